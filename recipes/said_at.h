#pragma once
#include <string>

#include "recipes/error.h"

namespace tessera {

/// What `body` returns. Its Error, about what `key` of the source names, is said at the place of that key.
/// `source`: a Recipe, or what else has error(key, what).
template <class Source, class Body>
auto said_at(const Source& source, const std::string& key, const Body& body) {
  try {
    return body();
  } catch (const Error& error) {
    throw source.error(key, error.what());
  }
}

}  // namespace tessera
