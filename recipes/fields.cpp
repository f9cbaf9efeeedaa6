#include "recipes/fields.h"

#include <algorithm>

#include "recipes/error.h"

namespace tessera {

void field_details::report_missing(const std::string& name, const std::string& docs, const std::string& valid,
                                   Problems& problems) {
  problems.add(name, "missing (" + docs + "); valid: " + valid);
}

void FieldReader::finish(const std::function<bool(const SectionEntry&)>& known_elsewhere) {
  for (const auto& entry : section_.entries) {
    if (std::find(names_.begin(), names_.end(), entry.key) != names_.end()) continue;
    if (known_elsewhere && known_elsewhere(entry)) continue;
    problems_.add_at(entry.place, entry.key, "unknown key" + valid_names(entry.key, names_));
  }
}

}  // namespace tessera
