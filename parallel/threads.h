#pragma once
#include <string>
#include <vector>

namespace tessera {

/// The processors that this process may use, as "0,1,2,…".
std::string affinity_text();

/// Threads for the rank whose processors are `masks[me]`, where `masks` lists those of all ranks of the host:
/// each processor is divided among the ranks that may use it; at least 1.
int threads_for(const std::vector<std::string>& masks, int me);

/// How many processors the control group of this process may keep busy (a container's CPU limit); 0: no
/// limit.
double processor_limit();

}  // namespace tessera
