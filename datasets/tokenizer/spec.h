#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "datasets/tokenizer.h"
#include "datasets/tokenizer/added_tokens.h"

namespace tessera {

/// What a tokenizer.json says, checked for form, not yet for meaning.
struct TokenizerSpec {
  using Json = nlohmann::ordered_json;
  std::string origin;  ///< for messages: a path
  Json sections;       ///< the top level without added_tokens and model
  Json model;          ///< the model without vocab and merges
  std::vector<AddedToken> added_tokens;
  std::vector<std::pair<std::string, int64_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;
};

TokenizerSpec read_spec(std::string_view json, const std::string& origin);
TokenizerPtr make_tokenizer(TokenizerSpec spec);

/// The file's text, written as the wheel writes it: tokens by id, merges as pairs by rank.
std::string write_spec(const TokenizerSpec& spec);

/// `section[key]` as a bool, int, string… or `fallback` where it is missing or null; an Error where it has
/// another type.
bool bool_of(const TokenizerSpec::Json& section, const char* key, bool fallback, const std::string& where);
std::string text_of(const TokenizerSpec::Json& section, const char* key, const std::string& fallback,
                    const std::string& where);
/// The "type" of a section, "" where the section is null; an Error unless it is one of `supported`.
std::string type_of(const TokenizerSpec& spec, const char* section,
                    const std::vector<std::string>& supported);

}  // namespace tessera
