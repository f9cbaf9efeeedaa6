#include "parallel/mpi_task.h"

#include <fmt/format.h>

#include <algorithm>

#include "parallel/check.h"
#include "recipes/error.h"

namespace tessera {
namespace {
constexpr size_t max_open_lanes = 4;
constexpr int64_t max_message = 1 << 30;  // MPI counts in int
// UCX leaves 23 bits for tags: 10 for the group, 13 for the sequence number or the caller's tag.
constexpr int tag_bits = 13;
constexpr std::chrono::milliseconds look_at_peers_every(100);
}  // namespace

MpiTask::MpiTask(Operation operation, std::shared_ptr<const MpiGroup> group, uint32_t first_sequence,
                 std::atomic<int>& num_waiting)
    : operation_(std::move(operation)),
      schedule_(make_schedule(operation_, group->rank, static_cast<int>(group->members.size()))),
      group_(std::move(group)),
      first_sequence_(first_sequence),
      start_(std::chrono::steady_clock::now()),
      last_progress_(start_),
      last_watch_(start_),
      num_waiting_(num_waiting) {}

void MpiTask::wait() {
  if (!done()) {
    ++num_waiting_;
    done_.wait(false, std::memory_order_acquire);
    --num_waiting_;
  }
  if (error_) std::rethrow_exception(error_);
}

double MpiTask::seconds() {
  return done() ? std::chrono::duration<double>(last_progress_ - start_).count() : 0;
}

void MpiTask::finish(std::exception_ptr error) {
  error_ = std::move(error);
  // After an error MPI may still write into the tensors: they stay alive with this task, which the worker
  // keeps.
  if (!error_) {
    operation_.input = operation_.output = at::Tensor();
    schedule_.rounds = nullptr;
  }
  done_.store(true, std::memory_order_release);
  done_.notify_all();
}

bool MpiTask::advance(const MpiContext& context) {
  open_lanes();
  bool moved = false;
  for (Lane& lane : lanes_) moved |= advance_lane(lane, context);
  std::erase_if(lanes_, [](const Lane& lane) { return lane.round == lane.rounds.size(); });
  watch(moved, context);
  if (lanes_.empty() && next_lane_ == schedule_.num_lanes) finish(nullptr);
  return moved;
}

void MpiTask::open_lanes() {
  while (lanes_.size() < max_open_lanes && next_lane_ < schedule_.num_lanes) {
    const uint32_t number = point_to_point() ? static_cast<uint32_t>(operation_.tag)
                                             : first_sequence_ + static_cast<uint32_t>(next_lane_);
    Lane lane;
    lane.rounds = schedule_.rounds(next_lane_++);
    lane.tag = group_->id << tag_bits | static_cast<int>(number % (1u << tag_bits));
    lanes_.push_back(std::move(lane));
  }
}

void MpiTask::post(Lane& lane, const MpiContext& context) {
  const MPI_Comm comm = point_to_point() ? context.point_to_point : context.collectives;
  lane.requests.clear();
  lane.peers.clear();
  for (const Message& message : lane.rounds[lane.round].messages) {
    const int peer = group_->members[message.peer];
    int64_t offset = 0;
    do {
      const int bytes = static_cast<int>(std::min(message.bytes - offset, max_message));
      void* data = static_cast<char*>(message.data) + offset;
      MPI_Request request = MPI_REQUEST_NULL;
      if (message.way == Message::Way::send) {
        check_mpi(MPI_Isend(data, bytes, MPI_BYTE, peer, lane.tag, comm, &request), "MPI_Isend");
        if (operation_.traffic) operation_.traffic->add(bytes);
      } else {
        check_mpi(MPI_Irecv(data, bytes, MPI_BYTE, peer, lane.tag, comm, &request), "MPI_Irecv");
      }
      lane.requests.push_back(request);
      lane.peers.push_back(peer);
      offset += bytes;
    } while (offset < message.bytes);
  }
  lane.posted = true;
}

bool MpiTask::advance_lane(Lane& lane, const MpiContext& context) {
  bool moved = false;
  while (lane.round < lane.rounds.size()) {
    if (!lane.posted) {
      post(lane, context);
      moved = true;
    }
    int complete = 1;
    if (!lane.requests.empty()) {
      check_mpi(MPI_Testall(static_cast<int>(lane.requests.size()), lane.requests.data(), &complete,
                            MPI_STATUSES_IGNORE),
                "MPI_Testall");
    }
    if (!complete) break;
    if (const auto& after = lane.rounds[lane.round].after) after();
    ++lane.round;
    lane.posted = false;
    moved = true;
  }
  return moved;
}

void MpiTask::watch(bool moved, const MpiContext& context) {
  const auto now = std::chrono::steady_clock::now();
  // A process that was itself stopped for so long has nobody to blame.
  if (moved || now - last_watch_ > context.time_limit / 2) last_progress_ = now;
  last_watch_ = now;
  if (now - std::max(last_progress_, last_look_at_peers_) < look_at_peers_every) return;
  last_look_at_peers_ = now;
  std::vector<int> peers = awaited();
  const std::string what = fmt::format("{} among {} ranks", describe(operation_), group_->members.size());
  if (now - last_progress_ > context.time_limit) {
    throw std::runtime_error(
        fmt::format("{}: rank {} ({}) has waited {:.0f} s for {}, which hangs, died or went another way "
                    "(limit: TESSERA_TIMEOUT_SECONDS)",
                    what, context.rank, context.hosts[context.rank],
                    std::chrono::duration<double>(context.time_limit).count(), names(peers, context)));
  }
  std::erase_if(peers, [&](int peer) { return !context.neighbours.died(peer); });
  if (peers.empty()) return;
  throw std::runtime_error(fmt::format("{}: {} has died", what, names(peers, context)));
}

std::vector<int> MpiTask::awaited() const {
  std::vector<int> peers;
  for (const Lane& lane : lanes_) {
    for (size_t i = 0; i < lane.requests.size(); ++i) {
      // MPI_Testall leaves all requests be until all are complete: ask each.
      int complete = 0;
      MPI_Request_get_status(lane.requests[i], &complete, MPI_STATUS_IGNORE);
      if (!complete) peers.push_back(lane.peers[i]);
    }
  }
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  return peers;
}

std::string MpiTask::names(const std::vector<int>& peers, const MpiContext& context) const {
  std::vector<std::string> names;
  for (const int peer : peers) names.push_back(fmt::format("rank {} ({})", peer, context.hosts[peer]));
  return join(names);
}

}  // namespace tessera
