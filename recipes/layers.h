#pragma once
#include <optional>
#include <string>
#include <vector>

#include "recipes/section.h"

namespace tessera {

/// The recipe in `path` on top of what it includes. Nothing when a file cannot be read or parsed (reported).
std::optional<Section> load_layers(const std::string& path, ProblemList& problems);

/// The same for a text; its includes are relative to the working folder.
std::optional<Section> load_layers_text(std::string_view text, const std::string& origin,
                                        ProblemList& problems);

/// Puts "key.sub=value" on top; the value is YAML.
void apply_override(Section& root, const std::string& assignment, ProblemList& problems);

}  // namespace tessera
