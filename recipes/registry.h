#pragma once
#include <any>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "recipes/fields.h"

/// Sections whose keys depend on a name in them (model.family, optimizer.name, …). Their structs lie with
/// what they configure, in folders to the right of this one; a Catalog brings them here.
namespace tessera {

struct Recipe;

/// A struct with fields(), whose type is not known here.
class OptionsType {
 public:
  virtual ~OptionsType() = default;
  virtual std::any make() const = 0;  ///< the defaults
  virtual bool read(const Section&, std::any&, Problems&,
                    const std::function<bool(const SectionEntry&)>& known_elsewhere) const = 0;
  virtual Section write(const std::any&) const = 0;
  virtual std::vector<FieldRow> list() const = 0;
};

template <class T>
class OptionsOf final : public OptionsType {
 public:
  std::any make() const override { return T{}; }
  bool read(const Section& section, std::any& value, Problems& problems,
            const std::function<bool(const SectionEntry&)>& known_elsewhere) const override {
    return read_fields(section, std::any_cast<T&>(value), problems, known_elsewhere);
  }
  Section write(const std::any& value) const override { return write_fields(std::any_cast<const T&>(value)); }
  std::vector<FieldRow> list() const override { return list_fields(T{}); }
};

struct ChoiceEntry {
  std::string name;
  std::string summary;  ///< a line for the reference
  std::shared_ptr<const OptionsType> options;
};

/// T is the struct of the section's other keys (an empty struct with an empty fields() where there are none).
template <class T>
ChoiceEntry choice(std::string name, std::string summary) {
  return {std::move(name), std::move(summary), std::make_shared<OptionsOf<T>>()};
}

struct ChoiceTable {
  std::string key;  ///< the key that holds the name: "family" or "name"
  std::vector<ChoiceEntry> entries;
  std::string standard = {};  ///< chosen where a recipe leaves the section out; empty: it must not

  const ChoiceEntry* find(const std::string& name) const;
  std::vector<std::string> names() const;
};

/// The options that a section chose. A value: copies are independent.
class Choice {
 public:
  Choice() = default;
  /// Standard options of one entry, for code that makes recipes without a file.
  explicit Choice(const ChoiceEntry& entry)
      : name_(entry.name), type_(entry.options), options_(entry.options->make()) {}

  const std::string& name() const { return name_; }
  bool chosen() const { return type_ != nullptr; }

  /// The options as the struct that the catalog has for this name; another type is a bug (std::logic_error).
  template <class T>
  const T& as() const {
    if (const T* options = std::any_cast<T>(&options_)) return *options;
    throw std::logic_error("the options of '" + name_ + "' are of another type");
  }
  template <class T>
  T* get_if() {
    return std::any_cast<T>(&options_);
  }
  template <class T>
  const T* get_if() const {
    return std::any_cast<T>(&options_);
  }

  /// A key shared by several types of options ("max_positions", "hidden_size"): its value if it is a whole
  /// number.
  std::optional<int64_t> integer(const std::string& key) const;
  /// The same for any number ("attention_dropout", "mask_probability").
  std::optional<double> number(const std::string& key) const;
  /// The same for text ("from"); nothing where it is null.
  std::optional<std::string> text(const std::string& key) const;
  Section write() const;  ///< the options alone, without the name

 private:
  friend struct Value<Choice>;
  std::string name_;
  std::shared_ptr<const OptionsType> type_;
  std::any options_;
};

/// What read_recipe() knows of the folders to the right: a line per implementation, in trainer/catalog.cpp.
struct Catalog {
  ChoiceTable model, objective, optimizer, schedule, adapt;
  /// What only several sections together can tell ("causal_lm needs a decoder"), run when each of them is
  /// right.
  std::vector<std::function<void(const Recipe&, Problems&)>> checks = {};
  /// The model in a folder that `model.from` names. Errors: Error.
  std::function<Choice(const std::string& folder)> model_in = {};
};

/// Implementations that a recipe can name, and how each is made from its options and what else it needs.
template <class Product, class... Needs>
class Registry {
 public:
  struct Entry {
    ChoiceEntry choice;
    std::function<Product(const Choice&, Needs...)> make;
  };

  /// `key` is the key that holds the name; `standard`: ChoiceTable's.
  Registry(std::string key, std::vector<Entry> entries, std::string standard = {})
      : entries_(std::move(entries)) {
    choices_.key = std::move(key);
    choices_.standard = std::move(standard);
    for (const Entry& entry : entries_) choices_.entries.push_back(entry.choice);
  }

  const ChoiceTable& choices() const { return choices_; }

  /// A choice out of another table is a bug (std::logic_error).
  Product make(const Choice& choice, Needs... needs) const {
    for (const Entry& entry : entries_) {
      if (entry.choice.name == choice.name()) return entry.make(choice, std::forward<Needs>(needs)...);
    }
    throw std::logic_error("no " + choices_.key + " '" + choice.name() + "'");
  }

 private:
  std::vector<Entry> entries_;
  ChoiceTable choices_;
};

/// Read with the rule from(table).
template <>
struct Value<Choice> {
  static constexpr bool is_section = true;
  static bool read(const Section&, Choice&, const Rules&, Problems&);
  static Section write(const Choice&, const Rules&);
  static std::string valid(const Rules&);
};

}  // namespace tessera
