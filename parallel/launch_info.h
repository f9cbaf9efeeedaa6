#pragma once
#include <string>

namespace tessera {

/// What mpirun or srun says about this process in its environment, known before MPI starts.
struct LaunchInfo {
  int rank = 0;
  int size = 1;
  int local_rank = 0;  ///< among the processes of this host
  int local_size = 1;
  std::string launcher;  ///< "mpirun", "srun", or "" for a process started by itself
};

/// Throws Error where the launcher started several processes without a way for them to find each other (srun
/// without
/// --mpi=pmix, another MPI's mpirun), or where a number is no number.
LaunchInfo launch_info();

/// The local size from Slurm's list of tasks per node, such as "2(x3),1": that of node number `node`.
int tasks_of_node(const std::string& list, int node);

}  // namespace tessera
