#pragma once
#include "parallel/transport.h"

namespace tessera {

/// A GPU carries out the operations of a channel one after the other, a send until its receive. Messages up
/// and down the ranks have channels of their own so as not to wait for each other, nor for collectives.
enum class Channel { collective, up, down };
constexpr int num_channels(GroupUse use) { return use == GroupUse::messages ? 3 : 1; }

/// The channel of an operation of this rank of a group, the same at both ends of a message.
inline Channel channel_of(const Operation& operation, int rank) {
  if (operation.kind == Operation::Kind::send) return operation.peer > rank ? Channel::up : Channel::down;
  if (operation.kind == Operation::Kind::receive) return operation.peer > rank ? Channel::down : Channel::up;
  return Channel::collective;
}

/// Whether every channel has an order of its own, or all of a rank's channels, of all its groups, share one.
/// NCCL shares where communicators are split with splitShare; then a pipeline's stage that receives ahead
/// never comes to its send.
enum class ChannelOrder { own, shared };
constexpr ChannelOrder channel_order = ChannelOrder::own;

}  // namespace tessera
