#pragma once
#include <functional>
#include <vector>

#include "parallel/transport.h"

namespace tessera {

/// Bytes to or from another rank of the group.
struct Message {
  enum class Way { send, receive };
  Way way;
  int peer;
  void* data;
  int64_t bytes;
};

/// Messages that travel at the same time, and what to compute once all have arrived.
struct Round {
  std::vector<Message> messages;
  std::function<void()> after;
};

/// An operation as one rank of the group carries it out: lanes that do not depend on each other, each a
/// series of rounds. Large tensors make several lanes, so that a processor adds one while another travels and
/// what was received is still in the cache when it is added. The order of additions depends on sizes and
/// ranks only: the same layout gives the same bits. All ranks make the same number of lanes.
struct Schedule {
  int64_t num_lanes = 1;
  std::function<std::vector<Round>(int64_t lane)> rounds;
};

Schedule make_schedule(const Operation& operation, int rank, int size);

}  // namespace tessera
