#pragma once
#include <string>
#include <vector>

namespace tessera {

/// How attention sees a sequence that is divided among ranks: parallel/context_attention.h.
enum class ContextMethod {
  ring,    ///< keys and values travel round the ranks (Liu et al., Ring attention, 2023)
  ulysses  ///< each rank attends with some of the heads (Jacobs et al., DeepSpeed-Ulysses, 2023)
};
inline std::vector<std::string> names_of(ContextMethod) { return {"ring", "ulysses"}; }

/// In which order the stages of a pipeline compute: parallel/pipeline_schedule.h.
enum class PipelineSchedule { one_f_one_b, interleaved, gpipe };
inline std::vector<std::string> names_of(PipelineSchedule) { return {"1f1b", "interleaved", "gpipe"}; }

/// What lies in the host's memory while the model is on a GPU (Ren et al., "ZeRO-Offload", 2021).
enum class Offload {
  none,
  optimizer,  ///< masters and optimizer state, which are stepped there
  parameters  ///< and this rank's parts of sharded parameters
};
inline std::vector<std::string> names_of(Offload) { return {"none", "optimizer", "parameters"}; }

}  // namespace tessera
