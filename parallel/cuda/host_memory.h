#pragma once
#include "parallel/plugin.h"

namespace tessera {
/// Fills in the plug-in's part about memory of the host.
void offer_host_memory(GpuPlugin& plugin);
}  // namespace tessera
