#pragma once
#include <string>

#include "recipes/recipe.h"

namespace tessera {

/// A way between two ranks.
struct LinkFigures {
  double latency = 0;    ///< seconds before the first byte
  double bandwidth = 0;  ///< bytes per second that one rank sends
};

/// What a plan's seconds are made of: figures of one rank.
struct MachineFigures {
  std::string source;     ///< where the figures come from, for whoever reads the plan
  double flops_fp32 = 0;  ///< of matrix products, per second
  double flops_16_bit = 0;
  double memory = 0;            ///< bytes that this rank may fill
  double memory_bandwidth = 0;  ///< bytes per second read and written
  double block_overhead = 0;    ///< seconds that a block's operations take to start, forward and backward
  double overlap = 1;           ///< share of a message that hides beside products; less where ranks carry it
  LinkFigures inside;           ///< between ranks of one host
  LinkFigures between;          ///< between hosts
};

/// Published and assumed figures: of an H100 or H200 where the recipe may use GPUs, of a CPU core otherwise.
/// `ranks_per_host` share the memory of the CPU's host. memory is this machine's: its GPU's, or the ranks'
/// share of its RAM.
MachineFigures usual_machine(const Recipe& recipe, int64_t ranks_per_host);

/// A file that `tessera doctor --save` wrote. Errors: no such file, no JSON, keys missing, unknown or below
/// 0.
MachineFigures read_machine(const std::string& path);
void write_machine(const std::string& path, const MachineFigures& machine);

/// RAM that this process may use, in bytes: of the machine, or of its control group.
double host_memory();

}  // namespace tessera
