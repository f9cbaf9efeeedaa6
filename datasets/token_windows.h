#pragma once
#include "datasets/dataset.h"
#include "datasets/token_file.h"
#include "recipes/sections.h"  // Pack

namespace tessera {

struct WindowOptions {
  int64_t window = 0;  ///< tokens taken from the text per example
  /// From one window's start to the next one's; window - 1 where the last token is only a label.
  int64_t stride = 0;
  Pack pack = Pack::join;
  int32_t separator = -1;  ///< after each document, counted as its last token; -1 = none
  int32_t prefix = -1;     ///< before the window ([CLS]), not counted in it; -1 = none
  int32_t suffix = -1;     ///< after the window ([SEP]); -1 = none
};

/// Examples cut out of the text one after the other. Joined, all windows are full and the few tokens that
/// fill none at the end are left out. By documents, each document's last window may be shorter, and windows
/// without a token to predict from (stride < window) are left out.
DatasetPtr token_windows(TokenFilePtr file, const WindowOptions& options);

}  // namespace tessera
