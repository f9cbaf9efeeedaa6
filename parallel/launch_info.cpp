#include "parallel/launch_info.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <optional>
#include <sstream>

#include "recipes/error.h"

namespace tessera {
namespace {
std::optional<int> number(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == 0) return std::nullopt;
  int result = 0;
  const std::string_view text(value);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), result);
  if (error != std::errc() || end != text.data() + text.size() || result < 0) {
    throw Error(
        fmt::format("environment variable {}='{}' is not a number of ranks; valid: 0, 1, 2, …", name, text));
  }
  return result;
}

LaunchInfo from_mpirun(int size) {
  LaunchInfo info;
  info.launcher = "mpirun";
  info.size = size;
  info.rank = number("OMPI_COMM_WORLD_RANK").value_or(0);
  info.local_rank = number("OMPI_COMM_WORLD_LOCAL_RANK").value_or(0);
  info.local_size = number("OMPI_COMM_WORLD_LOCAL_SIZE").value_or(1);
  return info;
}

LaunchInfo from_srun(int rank, int size) {
  LaunchInfo info;
  info.launcher = "srun";
  info.size = size;
  info.rank = rank;
  info.local_rank = number("SLURM_LOCALID").value_or(0);
  const char* list = std::getenv("SLURM_STEP_TASKS_PER_NODE");
  info.local_size = list ? tasks_of_node(list, number("SLURM_NODEID").value_or(0)) : info.local_rank + 1;
  return info;
}

void check(const LaunchInfo& info) {
  if (info.size >= 1 && info.rank < info.size && info.local_rank < info.local_size &&
      info.local_size <= info.size) {
    return;
  }
  throw Error(
      fmt::format("{} says that this is rank {} of {} and {} of {} on its host, which cannot be: do "
                  "variables of another job "
                  "(OMPI_COMM_WORLD_*, PMIX_*, SLURM_*) linger in the environment?",
                  info.launcher, info.rank, info.size, info.local_rank, info.local_size));
}
}  // namespace

int tasks_of_node(const std::string& list, int node) {
  std::istringstream items(list);
  std::string item;
  while (std::getline(items, item, ',')) {
    int tasks = 0;
    int nodes = 1;
    if (std::sscanf(item.c_str(), "%d(x%d)", &tasks, &nodes) < 1) break;
    if (node < nodes) return tasks;
    node -= nodes;
  }
  throw Error(fmt::format("Slurm's list of tasks per node '{}' has no such node or cannot be read", list));
}

LaunchInfo launch_info() {
  const auto mpirun_size = number("OMPI_COMM_WORLD_SIZE");
  const auto slurm_size =
      number("SLURM_STEP_NUM_TASKS") ? number("SLURM_STEP_NUM_TASKS") : number("SLURM_NTASKS");
  const auto slurm_rank = number("SLURM_PROCID");
  LaunchInfo info;
  if (mpirun_size) {
    info = from_mpirun(*mpirun_size);
  } else if (slurm_size.value_or(1) > 1 && slurm_rank) {
    if (!std::getenv("PMIX_RANK")) {
      throw Error(fmt::format(
          "Slurm started {} tasks, but without PMIx each would believe that it is alone; start them with "
          "'srun --mpi=pmix …' or with mpirun, or one alone with 'srun -n 1 …' (srun --mpi=list shows what "
          "this "
          "cluster has)",
          *slurm_size));
    }
    info = from_srun(*slurm_rank, *slurm_size);
  } else if (number("PMI_SIZE").value_or(1) > 1) {
    throw Error(
        fmt::format("the launcher of another MPI (PMI_SIZE={}) started this program, which is built with "
                    "Open MPI: use Open MPI's "
                    "mpirun, or 'srun --mpi=pmix …'",
                    *number("PMI_SIZE")));
  }
  check(info);
  return info;
}

}  // namespace tessera
