// Parsed once for all targets that use torch: 15 s a file otherwise.
#include <torch/torch.h>
