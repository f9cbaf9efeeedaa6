#pragma once
#include "parallel/plugin.h"
#include "tests/ranks/world.h"

namespace tessera {

/// The transports that this machine can run: "mpi", and "nccl" where there is a GPU.
inline std::vector<std::string> test_transports() {
  if (find_gpu_plugin()) return {"mpi", "nccl"};
  return {"mpi"};
}

/// All ranks. Starting NCCL takes a second: once for all tests.
inline Communicator make_test_communicator(const std::string& name) {
  World& world = test_world();
  if (name == "mpi") return world.communicator();
  static const Communicator gpus =
      world.gpu_communicator(device_for(world.local_rank(), gpu_plugin().device_count()));
  return gpus;
}

/// Whether messages are told apart by tags, and groups need not act in the same order everywhere.
inline bool has_tags(const std::string& name) { return name == "mpi"; }

}  // namespace tessera
