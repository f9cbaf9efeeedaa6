// Every mistake that a recipe can have, with the exact message.
#include <gtest/gtest.h>

#include "tests/recipes/fake_catalog.h"

namespace tessera {
namespace {

/// The good recipe with `from` replaced by `to` (or `to` appended when `from` is empty), and overrides.
struct Bad {
  const char* name;
  std::string from, to;
  std::string message;
  std::vector<std::string> overrides = {};
};

void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.to; }

std::string message_of(const Bad& bad) {
  std::string text = fake::good;
  const size_t at = bad.from.empty() ? text.size() : text.find(bad.from);
  if (at == std::string::npos) return "the good recipe has no '" + bad.from + "'";
  text.replace(at, bad.from.size(), bad.to);
  try {
    read_recipe_text(text, "r.yaml", bad.overrides, fake::catalog());
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

class BadRecipe : public testing::TestWithParam<Bad> {};

TEST_P(BadRecipe, SaysWhatIsWrong) { EXPECT_EQ(message_of(GetParam()), GetParam().message); }

std::string name_of(const testing::TestParamInfo<Bad>& info) { return info.param.name; }

std::string keys_of_train() {
  std::vector<std::string> keys;
  for (const auto& row : list_fields(TrainSection())) keys.push_back(row.key);
  return join(keys);
}
const std::string train_keys = keys_of_train();
const std::string train_section = "train:\n  steps: 2000\n  global_batch: 64\n  micro_batch: 32\n";
const std::string model_line =
    "model: {family: bert, num_layers: 4, hidden_size: 256, num_heads: 4, max_positions: 128}\n";
const std::string missing_batches =
    "train.global_batch: missing (sequences per optimizer step, over all ranks); valid: whole number, at "
    "least 1\n";
const std::string missing_micro =
    "train.micro_batch: missing (sequences that one rank computes at a time; the rest of the global batch is "
    "accumulated); valid: whole number, at least 1";
const std::string whole = "valid: whole number, at least 1";
const std::string warm_up = "valid: whole number of steps, or per cent of all steps such as 5%";

INSTANTIATE_TEST_SUITE_P(
    Keys, BadRecipe,
    testing::Values(
        Bad{"UnknownSection", "", "trian: {steps: 3}\n",
            "r.yaml:13:1 trian: unknown key; valid: run, model, objective, data, optimizer, schedule, adapt, "
            "train, "
            "parallel, "
            "checkpoint, evaluate, log; did you mean 'train'?"},
        Bad{"UnknownKey", "  steps: 2000", "  steps: 2000\n  precison: bf16",
            "r.yaml:11:3 train.precison: unknown key; valid: " + train_keys + "; did you mean 'precision'?"},
        Bad{"UnknownKeyLikeNoOther", "  steps: 2000", "  steps: 2000\n  zebra: 1",
            "r.yaml:11:3 train.zebra: unknown key; valid: " + train_keys},
        Bad{"KeyOfAnotherChoice", "learning_rate: 5e-4", "learning_rate: 5e-4, momentum: 0.9",
            "r.yaml:7:47 optimizer.momentum: unknown key; valid: learning_rate, beta2"},
        Bad{"DuplicateKey", "  steps: 2000", "  steps: 2000\n  steps: 3",
            "r.yaml:11:3 train.steps: this key is given twice, first in line 10"},
        Bad{"DuplicateKeyInBraces", "name: mlm", "name: mlm, name: mlm",
            "r.yaml:3:24 objective.name: this key is given twice, first in line 3"},
        Bad{"DuplicateSection", "", "train: {steps: 3}\n",
            "r.yaml:13:1 train: this key is given twice, first in line 9"},
        Bad{"MissingSection", train_section, "",
            "r.yaml:1:1 " + missing_batches + "r.yaml:1:1 " + missing_micro},
        Bad{"EmptySection", train_section, "train:\n",
            "r.yaml:9:1 " + missing_batches + "r.yaml:9:1 " + missing_micro},
        Bad{"MissingKey", ", learning_rate: 5e-4", "",
            "r.yaml:7:1 optimizer.learning_rate: missing (peak learning rate); valid: number, above 0"},
        Bad{"SectionIsANumber", train_section, "train: 5\n",
            "r.yaml:9:8 train: '5' is not a section; valid: a section with the keys " + train_keys},
        Bad{"SectionIsAList", train_section, "train: [5]\n",
            "r.yaml:9:8 train: a list is not a section; valid: a section with the keys " + train_keys},
        Bad{"KeyIsAList", "  steps: 2000", "  [a]: 1\n  steps: 2000",
            "r.yaml:10:3 train: a key must be a name, but this is a list"},
        Bad{"MergeKeyWithoutASection", "", "  <<: 5\n",
            "r.yaml:13:3 train: << takes a section, but this is '5'"},
        Bad{"FamilyUnknown", "family: bert", "family: brt",
            "r.yaml:2:17 model.family: 'brt' is not known; valid: bert, gpt; did you mean 'bert'?"},
        Bad{"FamilyMissing", "family: bert, ", "", "r.yaml:2:1 model.family: missing; valid: bert, gpt"},
        Bad{"FamilyMistyped", "family: bert", "famly: bert",
            "r.yaml:2:1 model.family: missing; valid: bert, gpt\n"
            "r.yaml:2:9 model.famly: unknown key; did you mean 'family'?"},
        Bad{"ModelMissing", model_line, "", "r.yaml:1:1 model.family: missing; valid: bert, gpt"},
        Bad{"ModelIsAName", model_line, "model: bert\n",
            "r.yaml:2:8 model: 'bert' is not a section; valid: a section with the key family"}),
    name_of);

Bad steps(const char* name, const std::string& value, const std::string& what) {
  return {name, "steps: 2000", "steps: " + value, "r.yaml:10:10 train.steps: " + what + "; " + whole};
}
Bad rate(const char* name, const std::string& value, const std::string& what) {
  return {name, "5e-4", value, "r.yaml:7:41 optimizer.learning_rate: " + what + "; valid: number, above 0"};
}
Bad warm(const char* name, const std::string& value, const std::string& what) {
  return {name, "warm_up: 5%", "warm_up: " + value, "r.yaml:8:35 schedule.warm_up: " + what};
}
Bad shuffle(const char* name, const std::string& value, const std::string& shown) {
  return {name, "  sequence_length", "  shuffle: " + value + "\n  sequence_length",
          "r.yaml:6:12 data.shuffle: " + shown + " is not a truth value; valid: true, false"};
}

INSTANTIATE_TEST_SUITE_P(
    Values, BadRecipe,
    testing::Values(
        steps("Octal", "010", "010 has a leading zero"),
        steps("Hexadecimal", "0x10", "'0x10' is not a whole number"),
        steps("Underscore", "1_000", "'1_000' is not a whole number"),
        steps("Comma", "1,000", "'1,000' is not a whole number"),
        steps("Exponent", "1e3", "'1e3' is not a whole number"),
        steps("Point", "2.0", "'2.0' is not a whole number"),
        steps("Word", "abc", "'abc' is not a whole number"),
        steps("Truth", "true", "'true' is not a whole number"),
        steps("Quoted", "'7'", "the quoted text '7' is not a whole number"),
        steps("List", "[1]", "a list is not a whole number"), steps("Zero", "0", "0 is out of range"),
        steps("Negative", "-5", "-5 is out of range"),
        steps("Huge", "99999999999999999999", "99999999999999999999 is out of range"),
        rate("RealZero", "0", "0 is out of range"), rate("RealNegative", "-1e-3", "-1e-3 is out of range"),
        rate("RealHuge", "1e999", "1e999 is out of range"),
        rate("Infinity", ".inf", "'.inf' is not a number"),
        rate("NotANumber", "nan", "'nan' is not a number"), rate("CutExponent", "1e", "'1e' is not a number"),
        rate("TwoPoints", "1.5.2", "'1.5.2' is not a number"),
        rate("TwoSigns", "+-1", "'+-1' is not a number"),
        rate("RealQuoted", "'1'", "the quoted text '1' is not a number"),
        rate("RealLeadingZero", "00.1", "00.1 has a leading zero"),
        warm("StepsWithPoint", "5.5", "'5.5' is not a number of steps or a per cent; " + warm_up),
        warm("WarmUpWord", "five", "'five' is not a number of steps or a per cent; " + warm_up),
        warm("PercentApart", "5 %", "'5 %' is not a number of steps or a per cent; " + warm_up),
        warm("PercentTooMuch", "101%", "101% is out of range; valid: steps, at least 0, or from 0% to 100%"),
        warm("StepsNegative", "-1", "-1 is out of range; valid: steps, at least 0, or from 0% to 100%"),
        shuffle("Yes", "yes", "'yes'"), shuffle("CapitalTrue", "True", "'True'"), shuffle("One", "1", "'1'"),
        Bad{"NoValue", "", "  precision:\n",
            "r.yaml:13:3 train.precision: has no value; valid: fp32, bf16, fp16"},
        Bad{"NameUnknown", "", "  precision: bf61\n",
            "r.yaml:13:14 train.precision: 'bf61' is not known; valid: fp32, bf16, fp16; did you mean "
            "'bf16'?"},
        Bad{"NameIsAList", "", "  precision: [bf16]\n",
            "r.yaml:13:14 train.precision: a list is not a name; valid: fp32, bf16, fp16"},
        Bad{"SourcesWrong", "train: data/train.h5", "train: [{path: a, weight: 0}, {paht: b, path: b}, c]",
            "r.yaml:5:29 data.train[0].weight: 0 is out of range; valid: number, above 0\n"
            "r.yaml:5:34 data.train[1].paht: unknown key; valid: path, weight; did you mean 'path'?\n"
            "r.yaml:5:53 data.train[2]: 'c' is not a section; valid: a section with the keys path, weight"},
        Bad{"SourcesEmpty", "train: data/train.h5", "train: []",
            "r.yaml:5:10 data.train: the list is empty; valid: path, or list of {path, weight}"},
        Bad{"FolderEmpty", "runs/test", "''",
            "r.yaml:1:15 run.folder: is empty; valid: a path, such as runs/bert-mini"}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Together, BadRecipe,
    testing::Values(
        Bad{"HeadsDoNotDivide", "num_heads: 4", "num_heads: 3",
            "r.yaml:2:51 model.hidden_size: is not divisible by num_heads"},
        Bad{"SequenceTooLong", "sequence_length: 128", "sequence_length: 129",
            "r.yaml:6:20 data.sequence_length: 129 is longer than the model's max_positions 128; valid: at "
            "most 128, or a "
            "larger model.max_positions"},
        Bad{"BatchNotDivisible", "global_batch: 64", "global_batch: 100",
            "r.yaml:11:17 train.global_batch: 100 is not divisible by micro_batch 32; valid: global_batch 96 "
            "or 128, or "
            "micro_batch 25"},
        Bad{"BatchTooSmall", "global_batch: 64", "global_batch: 5",
            "r.yaml:11:17 train.global_batch: 5 is not divisible by micro_batch 32; valid: global_batch 32, "
            "or "
            "micro_batch 5"},
        Bad{"TwoLengths", "", "  epochs: 3\n",
            "r.yaml:13:11 train.epochs: the length is given in steps as well; valid: one of the two "
            "(train.steps=null "
            "takes the steps back)"},
        Bad{"NoLength", "  steps: 2000\n", "",
            "r.yaml:9:1 train.steps: missing; valid: a length in steps, or in epochs (train.epochs)"},
        Bad{"NoSuchStage", "", "parallel: {tensor: 2, zero: 4}\n",
            "r.yaml:13:29 parallel.zero: 4 is out of range; valid: whole number from 1 to 3"},
        Bad{"CatalogsOwnCheck", "name: mlm", "name: causal_lm",
            "r.yaml:3:19 objective.name: causal_lm needs a decoder; valid: mlm"},
        Bad{"ManyAtOnce",
            "steps: 2000",
            "steps: x\n  foo: 1\n  epochs: -2",
            "r.yaml:10:10 train.steps: 'x' is not a whole number; " + whole +
                "\nr.yaml:11:3 train.foo: unknown key; valid: " + train_keys +
                "\nr.yaml:12:11 train.epochs: -2 is out of range; valid: number, above 0\n"
                "command line data.shufle=true: unknown key; valid: train, validation, sequence_length, "
                "tokenizer, pack, "
                "shuffle, bucket, prefetch, short_sequence_probability, duplicate; did you mean 'shuffle'?\n"
                "command line train.micro_batch=zero: 'zero' is not a whole number; " +
                whole,
            {"train.micro_batch=zero", "data.shufle=true"}}),
    name_of);

const std::string no_override = ": not an override; valid: section.key=value, such as train.steps=100";

INSTANTIATE_TEST_SUITE_P(
    CommandLine, BadRecipe,
    testing::Values(Bad{"NoEquals", "", "", "command line train.steps" + no_override, {"train.steps"}},
                    Bad{"NoKey", "", "", "command line =5" + no_override, {"=5"}},
                    Bad{"TwoDots", "", "", "command line train..steps=4" + no_override, {"train..steps=4"}},
                    Bad{"WrongValue",
                        "",
                        "",
                        "command line train.steps=abc: 'abc' is not a whole number; " + whole,
                        {"train.steps=abc"}},
                    Bad{"WrongValueInASection",
                        "",
                        "",
                        "command line train={steps: abc} train.steps: 'abc' is not a whole number; " + whole,
                        {"train={steps: abc}"}},
                    Bad{"BrokenYaml",
                        "",
                        "",
                        "command line train.steps=[1: not valid YAML: a '[' is not closed",
                        {"train.steps=[1"}},
                    Bad{"UnknownSectionThere",
                        "",
                        "",
                        "command line x.y=5 x: unknown key; valid: run, model, objective, data, optimizer, "
                        "schedule, adapt, train, parallel, "
                        "checkpoint, evaluate, log",
                        {"x.y=5"}},
                    Bad{"BelowAValue",
                        "",
                        "",
                        "command line train.steps.y=3 train.steps: a section is not a whole number; " + whole,
                        {"train.steps.y=3"}},
                    Bad{"KeyTakenBack",
                        "",
                        "",
                        "command line train.global_batch=null: has no value; " + whole,
                        {"train.global_batch=null"}}),
    name_of);

std::string message_of_text(const std::string& text) {
  try {
    read_recipe_text(text, "r.yaml", {}, fake::catalog());
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(BadText, SaysWhatIsWrong) {
  const std::string sections = "r.yaml:1:1: a recipe is made of sections such as 'train:', but ";
  EXPECT_EQ(message_of_text(""), sections + "it is empty");
  EXPECT_EQ(message_of_text("# only a comment\n"), sections + "it is empty");
  EXPECT_EQ(message_of_text("- a\n- b\n"), sections + "this is a list");
  EXPECT_EQ(message_of_text("hello"), sections + "this is 'hello'");
  EXPECT_EQ(message_of_text(fake::good + "---\na: 1\n"),
            "r.yaml:14:1: a recipe is one YAML document, but a second begins here");
}

TEST(BadText, BrokenYamlHasAPlace) {
  const std::map<std::string, std::string> table = {
      {"train:\n\tsteps: 2\n", "2:7: not valid YAML: this line is indented with a tab; valid: spaces"},
      {"train: {steps: 2\n", "2:1: not valid YAML: a '{' is not closed"},
      {"train: [2\n", "2:1: not valid YAML: a '[' is not closed"},
      {"train: 'a\nb: 2\n", "1:8: not valid YAML: this quote is not closed"},
      {"train:\n  a: 1\n b: 2\n", "3:2: not valid YAML: this line does not fit the section's indentation"},
      {"train: a: b\n", "1:9: not valid YAML: there is a ':' where none may be; texts with ': ' need quotes"},
      {"train: *x\n", "1:8: not valid YAML: this alias (*name) has no anchor (&name) before it"},
      {"train: &x [*x]\n", "1:12: not valid YAML: this alias stands inside what it stands for"},
      {"train: %x\n", "1:8: not valid YAML: a text cannot begin with this character; it needs quotes"},
      {std::string("a: \0b", 5), "1:4: not a YAML text: it has the control character 0x00"},
      {"a: \x04\n", "1:4: not a YAML text: it has the control character 0x04"},
      {"\x89HDF\r\n", "1:1: not a YAML text: the byte 0x89 is not UTF-8"},
      {"a: caf\xe9 au lait\n", "1:7: not a YAML text: the byte 0xe9 is not UTF-8"},
      {std::string(5000, '['), "1:1: not valid YAML: the lists or sections are nested too deeply"}};
  for (const auto& [text, message] : table) EXPECT_EQ(message_of_text(text), "r.yaml:" + message);
}

TEST(BadText, AliasesCannotFillTheMemory) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 30; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before + ", " + before + "]\n";
  }
  EXPECT_TRUE(message_of_text(text).ends_with("not valid YAML: the aliases expand to too many values"));
}

TEST(GoodText, IsReadWhateverItsForm) {
  EXPECT_EQ(message_of_text("\xEF\xBB\xBF" + fake::good), "no error");
  EXPECT_EQ(message_of_text("---\n" + fake::good + "...\n"), "no error");
  std::string windows;
  for (const char c : fake::good) windows += c == '\n' ? "\r\n" : std::string(1, c);
  EXPECT_EQ(message_of_text(windows), "no error");
}

}  // namespace
}  // namespace tessera
