#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "datasets/tokenizer.h"
#include "recipes/recipe.h"
#include "trainer/model.h"
#include "trainer/parameters.h"

namespace tessera {

/// The model in a folder that `model.from` names: a run's, a checkpoint's, or one that save_pretrained left.
class StartModel {
 public:
  /// Errors: Error naming the folder and what is wrong with it.
  static std::unique_ptr<StartModel> open(const std::string& folder);
  virtual ~StartModel() = default;

  const std::string& folder() const { return folder_; }
  /// Its section of a recipe.
  virtual Choice section() const = 0;
  /// Null where the folder has none.
  virtual TokenizerPtr tokenizer() const = 0;

  /// Tells this model's values from others'. Reads all of it, where the folder has no checksums.
  virtual std::string hash() const = 0;

  struct Fit {
    std::vector<std::string> fresh;   ///< parameters of the model that the folder has none for
    std::vector<std::string> unused;  ///< tensors in the folder that the model has no place for
  };
  /// Of a model that is not placed yet. Errors: Error naming parameters other than heads that the folder
  /// lacks, or a tensor of another shape.
  Fit fit(const Model& model) const;
  /// Fills the masters of parameters of `model`, which fits, or of parts of them, and their working copies,
  /// but for fresh ones.
  void load(const Model& model, const std::vector<Parameter>& parameters) const;
  /// Sets the magnitudes of DoRA among the parameters to those of the folder's weights.
  void load_magnitudes(const Model& model, const std::vector<Parameter>& parameters) const;

 protected:
  explicit StartModel(std::string folder) : folder_(std::move(folder)) {}
  virtual bool has(const Model& model, const std::string& name) const = 0;
  virtual std::vector<int64_t> shape(const Model& model, const std::string& name) const = 0;
  /// Errors: Error where the parameter's shape is not `wanted`.
  virtual void check_shape(const Model& model, const std::string& name, at::IntArrayRef wanted) const = 0;
  /// The part of a parameter that its placement says, in float32 or the type of the folder.
  virtual at::Tensor read(const Model& model, const Parameter& parameter) const = 0;
  virtual std::vector<std::string> unused(const Model& model) const = 0;

 private:
  std::string folder_;
};

/// What the recipe's model.from names; null where it starts anew. Errors: StartModel::open()'s, with the
/// recipe's place.
std::unique_ptr<StartModel> open_start(const Recipe& recipe);

/// Gives a model that is not placed yet the parts that `adapt` asks for, or that the adapter in adapt.from
/// has, whose options then become the recipe's. `fresh` and `step` as in adapt(). Returns the adapter's
/// values by parameter, whole. Errors: those of adapt() and PeftAdapter, with the recipe's place.
std::map<std::string, at::Tensor> adapt_or_follow(Model& model, Recipe& recipe,
                                                  const std::vector<std::string>& fresh, int64_t step = 0);

}  // namespace tessera
