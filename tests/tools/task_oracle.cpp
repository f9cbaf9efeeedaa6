// Loads weights under their Hugging Face keys, makes a batch as a task's objective does, and writes its loss,
// outputs and gradients, for tests/trainer/test_task_models_oracle.py.
// usage: tool_task_oracle FAMILY IN.h5 OUT.h5 key=value… (sizes as tool_model_oracle; task: 0 sequence, 1
// tokens, 2 span, 3 choice; outputs; problem). IN: /weights/KEY float32; /batch/tokens [rows, longest] int64,
// lengths [rows], second [rows] (where the second text begins), labels or targets. OUT: /outputs, /loss,
// /gradients/KEY.
#include "tests/tools/oracle_files.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/objectives/objectives.h"

namespace {

using namespace tessera;

constexpr const char* tokenizer_json =
    R"({"version": "1.0", "added_tokens": [], "normalizer": {"type": "BertNormalizer", "clean_text": true,
        "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "model": {"type": "WordPiece", "unk_token": "[UNK]",
        "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}}})";

ObjectivePtr make(const std::string& family, const OracleArguments& arguments) {
  ObjectiveSetting setting{Tokenizer::parse(tokenizer_json, "built in"),
                           arguments.integer("max_positions", 64), 1};
  setting.causal = family == "gpt";
  std::vector<std::string> labels;
  for (int64_t i = 0; i < arguments.integer("outputs", 2); ++i) labels.push_back("L" + std::to_string(i));
  const int64_t task = arguments.integer("task", 0);
  if (task == 1) {
    TokenClassificationOptions tags;
    tags.labels = labels;
    return make_token_classification(tags, setting);
  }
  if (task == 2) return make_question_answering({}, setting);
  if (task == 3) return make_multiple_choice({}, setting);
  SequenceClassificationOptions options;
  options.labels = labels;
  options.problem = static_cast<Problem>(arguments.integer("problem", 0));
  return make_sequence_classification(options, setting);
}

std::vector<Example> read_examples(const hdf5::File& file) {
  const auto read = [&](const char* name) { return read_tensor(file, name, at::kLong); };
  const at::Tensor tokens = read("/batch/tokens"), lengths = read("/batch/lengths"),
                   second = read("/batch/second");
  std::vector<Example> examples(static_cast<size_t>(tokens.size(0)));
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    Example& example = examples[static_cast<size_t>(i)];
    example.index = i;
    const auto length = lengths[i].item<int64_t>();
    for (int64_t k = 0; k < length; ++k) example.tokens.push_back(tokens[i][k].item<int32_t>());
    for (int64_t k = 0; k < length; ++k) example.segments.push_back(k >= second[i].item<int64_t>());
    if (file.exists("/batch/labels")) {
      const at::Tensor labels = read("/batch/labels")[i].view(-1);
      for (int64_t k = 0; k < labels.size(0); ++k) example.labels.push_back(labels[k].item<int32_t>());
    }
    if (!file.exists("/batch/targets")) continue;
    const at::Tensor targets = read_tensor(file, "/batch/targets", at::kFloat)[i];
    example.targets.assign(targets.data_ptr<float>(), targets.data_ptr<float>() + targets.numel());
  }
  return examples;
}

/// Rows as choices: `labels` then has the right one in each row.
std::vector<Example> grouped(const std::vector<Example>& rows, int64_t choices) {
  std::vector<Example> examples(rows.size() / static_cast<size_t>(choices));
  for (size_t i = 0; i < rows.size(); ++i) {
    Example& example = examples[i / static_cast<size_t>(choices)];
    example.labels = rows[i].labels;
    example.choices.push_back(rows[i]);
  }
  return examples;
}

void run(const std::string& family, const std::string& in, const std::string& out,
         const OracleArguments& arguments) {
  const at::Device device = test_device();
  const hdf5::File source = hdf5::File::open(in);
  hdf5::File result = hdf5::File::create(out);
  const ObjectivePtr objective = make(family, arguments);
  auto gpt = arguments.sizes<GptConfig>();
  gpt.version = arguments.integer("version", 2);
  const ModelPtr model =
      load_weights(family == "bert" ? make_bert(arguments.sizes<BertConfig>(), objective->heads())
                                    : make_gpt(gpt, objective->heads()),
                   source, device);
  auto parameters = model->named_parameters();
  std::vector<Example> examples = read_examples(source);
  if (const int64_t choices = arguments.integer("choices", 0)) examples = grouped(examples, choices);
  const Batch batch = objective->collate(examples), moved = batch.to(device);
  const LossTerms terms = objective->loss(*model, model->forward(moved), moved);
  write_tensor(result, "/outputs", terms.outputs);
  write_tensor(result, "/predictions", objective->predictions(batch, terms.outputs));
  const at::Tensor loss = terms.sums / static_cast<double>(batch.counts.at(0));
  write_tensor(result, "/loss", loss);
  loss.sum().backward();
  const auto gradient = [&](const std::string& name) {
    const at::Tensor& parameter = parameters[name];
    return parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter);
  };
  for (const HuggingFaceTensor& entry : model->name_map()) {
    write_tensor(result, "/gradients/" + entry.key, to_hugging_face(entry, gradient));
  }
  result.close();
}

}  // namespace

int main(int argc, char** argv) { run(argv[1], argv[2], argv[3], {argc, argv}); }
