#pragma once
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace tessera {

/// The classes of a task, by number.
class LabelNames {
 public:
  LabelNames() = default;
  /// Errors: Error for a name that stands twice.
  explicit LabelNames(std::vector<std::string> names);
  /// Those found in data: sorted, as numbers where all are whole numbers.
  static LabelNames of(const std::set<std::string>& found);

  int64_t size() const { return static_cast<int64_t>(names_.size()); }
  const std::vector<std::string>& names() const { return names_; }
  const std::string& name(int64_t number) const { return names_.at(static_cast<size_t>(number)); }
  /// The number of a class given by name, or (where no name is a number) by number. Errors: Error that begins
  /// with `where` and lists the names.
  int32_t number(const std::string& label, const std::string& where) const;

 private:
  std::vector<std::string> names_;
  std::unordered_map<std::string, int32_t> numbers_;
  bool numbered_ = false;  // classes may be given by number
};

}  // namespace tessera
