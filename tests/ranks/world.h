#pragma once
#include "parallel/world.h"

namespace tessera {
/// The world of the test program, started by its main.
World& test_world();
}  // namespace tessera
