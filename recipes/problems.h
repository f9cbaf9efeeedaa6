#pragma once
#include <memory>
#include <string>
#include <vector>

namespace tessera {

struct Section;

/// Where something was written: line and column (from 1) of a file, or, with line 0, a whole origin such as
/// "command line train.steps=10".
struct Place {
  std::string origin;
  int line = 0;
  int column = 0;
  int layer = 0;  ///< what is merged later wins: included files, then the recipe, then the command line

  std::string text() const;  ///< "file.yaml:3:5"
};

/// The mistakes found so far, so that all of them are reported in one go.
class ProblemList {
 public:
  /// `key` is the whole dotted key ("train.steps"), or "" when the problem is about the file.
  void add(const Place& place, const std::string& key, const std::string& what);
  size_t size() const { return problems_.size(); }
  std::string text() const;   ///< a line per problem: file by file, in the order of the lines
  void throw_if_any() const;  ///< one Error with the text

 private:
  struct Problem {
    Place place;
    std::string text;
  };
  std::vector<Problem> problems_;
};

/// A view of the problem list from one section: keys are relative to it and find their own place. This is
/// what the optional hook `void check(const T&, Problems&)` beside a config struct's fields() gets.
class Problems {
 public:
  /// `place` serves keys that are not written down; `path` is the dotted key of `section`.
  Problems(ProblemList& list, const Section* section, Place place, std::string path);

  /// Reports about `key` (dotted keys reach into nested sections; "" is the section itself).
  void add(const std::string& key, const std::string& what);
  /// Reports about `key` where the key, not its value, was written.
  void add_at(const Place& place, const std::string& key, const std::string& what);
  /// The view from the section or value under `key`.
  Problems inside(const std::string& key) const;
  /// The view of a list's item.
  Problems item(size_t index, const Section& section) const;

  size_t size() const { return list_->size(); }  ///< of the whole list
  std::string full_key(const std::string& key) const;
  const Place& place() const { return place_; }

 private:
  ProblemList* list_;
  const Section* section_;  // null: not written
  Place place_;
  std::string path_;
};

}  // namespace tessera
