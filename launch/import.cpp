// tessera import: a Hugging Face folder as a checkpoint.
#include "trainer/hugging_face/import.h"

#include <fmt/format.h>

#include <cstdio>

#include "launch/commands.h"
#include "launch/model_facts.h"
#include "recipes/error.h"
#include "trainer/parameters.h"

namespace tessera {

std::function<int()> declare_import(CLI::App& app) {
  struct Options {
    std::string from, out;
  };
  auto options = std::make_shared<Options>();
  app.add_option("folder", options->from, "A folder that transformers' save_pretrained left")->required();
  app.add_option("output", options->out, "The run folder to make; it gets one checkpoint")->required();
  return [options] {
    const ImportedModel imported = import_model(options->from, options->out);
    fmt::print("{}: {} parameters\n", imported.checkpoint, with_commas(imported.parameters));
    if (!imported.fresh.empty()) {
      fmt::print("drawn anew, since {} has none: {}\n", options->from, join(name_patterns(imported.fresh)));
    }
    return 0;
  };
}

}  // namespace tessera
