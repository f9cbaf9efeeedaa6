#pragma once
#include <string>
#include <vector>

namespace tessera {

/// In which order the stages of a pipeline compute: parallel/pipeline_schedule.h.
enum class PipelineSchedule { one_f_one_b, interleaved, gpipe };
inline std::vector<std::string> names_of(PipelineSchedule) { return {"1f1b", "interleaved", "gpipe"}; }

}  // namespace tessera
