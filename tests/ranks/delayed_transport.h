#pragma once
#include <algorithm>
#include <chrono>
#include <thread>

#include "parallel/transport.h"

namespace tessera {

/// A group's messages as over a slow network: an asynchronous operation is not done before latency + bytes /
/// bandwidth have passed, while the caller goes on. Messages do not wait for each other.
class DelayedTransport : public Transport {
 public:
  struct Network {
    std::chrono::duration<double> latency{0};
    double bytes_per_second = 1e18;
  };

  DelayedTransport(Communicator group, Network network) : group_(std::move(group)), network_(network) {}
  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  at::Device device() const override { return group_.device(); }

  std::shared_ptr<Work::State> start(Operation operation) override {
    const auto bytes = [](const at::Tensor& tensor) {
      return tensor.defined() ? static_cast<double>(tensor.nbytes()) : 0;
    };
    const double most = std::max(bytes(operation.output), bytes(operation.input));
    const auto delay = network_.latency + std::chrono::duration<double>(most / network_.bytes_per_second);
    return std::make_shared<Delayed>(pass_on(operation), delay);
  }

  std::shared_ptr<Transport> split(int color, int key, GroupUse use) override {
    const Communicator group = group_.split(color, key, use);
    return group.size() > 1 ? std::make_shared<DelayedTransport>(group, network_) : nullptr;
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Delayed : Work::State {
    Delayed(Work work_, std::chrono::duration<double> delay_) : work(std::move(work_)), delay(delay_) {}
    bool done() override { return Clock::now() >= due && work.done(); }
    void wait() override {
      work.wait();
      std::this_thread::sleep_until(due);
    }
    double seconds() override { return done() ? std::max(delay.count(), work.seconds()) : 0; }

    Work work;
    std::chrono::duration<double> delay;
    Clock::time_point due = Clock::now() + std::chrono::duration_cast<Clock::duration>(delay);
  };

  Work pass_on(const Operation& operation) const {
    using Kind = Operation::Kind;
    switch (operation.kind) {
      case Kind::all_reduce:
        return group_.all_reduce_async(operation.output, operation.reduction);
      case Kind::reduce_scatter:
        return group_.reduce_scatter_async(operation.output, operation.input, operation.reduction);
      case Kind::all_gather:
        return group_.all_gather_async(operation.output, operation.input);
      case Kind::all_to_all:
        return group_.all_to_all_async(operation.output, operation.input);
      case Kind::send:
        return group_.send_async(operation.input, operation.peer, operation.tag);
      case Kind::receive:
        return group_.receive_async(operation.output, operation.peer, operation.tag);
      case Kind::broadcast:
        return group_.broadcast(operation.output, operation.peer), Work();
      case Kind::barrier:
        return group_.barrier(), Work();
    }
    throw std::logic_error("unknown operation");
  }

  Communicator group_;
  Network network_;
};

}  // namespace tessera
