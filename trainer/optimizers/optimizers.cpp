#include "trainer/optimizers/optimizers.h"

#include "trainer/optimizers/adamw.h"
#include "trainer/optimizers/sgd.h"

namespace tessera {
namespace {

using OptimizerRegistry =
    Registry<std::unique_ptr<Optimizer>, std::vector<Parameter>, const std::vector<std::string>&>;

template <class O, class Options>
OptimizerRegistry::Entry optimizer(const char* name, const char* summary) {
  return {choice<Options>(name, summary), [](const Choice& given, std::vector<Parameter> parameters,
                                             const std::vector<std::string>& elsewhere) {
            const auto& options = given.as<Options>();
            apply_groups(parameters, options.groups, elsewhere);
            return std::unique_ptr<Optimizer>(std::make_unique<O>(std::move(parameters), options));
          }};
}

const OptimizerRegistry& optimizers() {
  static const OptimizerRegistry registry(
      "name", {
                  optimizer<Adamw, AdamwOptions>("adamw", "Adam with decoupled weight decay"),
                  optimizer<Sgd, SgdOptions>("sgd", "stochastic gradient descent with momentum"),
              });
  return registry;
}

}  // namespace

const ChoiceTable& optimizer_choices() { return optimizers().choices(); }

std::unique_ptr<Optimizer> make_optimizer(const Choice& choice, std::vector<Parameter> parameters,
                                          const std::vector<std::string>& elsewhere) {
  return optimizers().make(choice, std::move(parameters), elsewhere);
}

}  // namespace tessera
