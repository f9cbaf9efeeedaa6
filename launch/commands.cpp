#include "launch/commands.h"

namespace tessera {

std::function<int()> declare_train(CLI::App& app);

const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"train", "Train or resume what a recipe describes",
       "mpirun -n 2 tessera train recipes/bert/pretrain-mini.yaml train.steps=500", declare_train},
  };
  return table;
}

}  // namespace tessera
