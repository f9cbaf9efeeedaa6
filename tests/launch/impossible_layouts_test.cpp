// Combinations that cannot be: each refused with what is possible instead.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/shipped_recipes.h"
#include "recipes/parallel_checks.h"
#include "trainer/catalog.h"

namespace tessera {
namespace {

struct Impossible {
  std::string name;
  std::vector<std::string> overrides;
  int ranks;
  std::vector<std::string> says;
};

Recipe mini(const std::vector<std::string>& overrides) {
  return read_recipe(find_shipped_recipe("gpt/pretrain-mini"), overrides, catalog());
}

/// What the recipe and the ranks are refused with; "" where they are fine.
std::string refusal(const std::vector<std::string>& overrides, int ranks) {
  try {
    check_ranks(mini(overrides), ranks);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void PrintTo(const Impossible& impossible, std::ostream* out) { *out << impossible.name; }

class ImpossibleLayout : public testing::TestWithParam<Impossible> {};

TEST_P(ImpossibleLayout, IsRefused) {
  const std::string message = refusal(GetParam().overrides, GetParam().ranks);
  for (const auto& text : GetParam().says) EXPECT_THAT(message, testing::HasSubstr(text));
}

// The recipe: 4 blocks of 256 with 4 heads, 128 positions, 32 sequences in micro-batches of 16.
const std::vector<Impossible> impossible_layouts = {
    {"HeadsByTensor", {"parallel.tensor=3"}, 3, {"3 does not divide the model's 4 heads; valid: 1, 2, 4"}},
    {"HeadsByUlysses",
     {"parallel.context=8", "parallel.context_method=ulysses"},
     8,
     {"parallel.context=8: 8 x tensor 1 = 8 does not divide the model's 4 heads",
      "valid: 1, 2, 4, or context_method ring"}},
    {"HeadsByTensorAndUlysses",
     {"parallel.tensor=2", "parallel.context=4", "parallel.context_method=ulysses"},
     8,
     {"4 x tensor 2 = 8 does not divide", "valid: 1, 2, or"}},
    {"AttentionDropoutInARing",
     {"parallel.context=2", "model.attention_dropout=0.1"},
     2,
     {"model.attention_dropout=0.1: 0.1 cannot", "2 ranks (ring); valid: 0, or parallel.context 1"}},
    {"AttentionDropoutWithUlysses",
     {"parallel.context=2", "model.attention_dropout=0.1", "parallel.context_method=ulysses"},
     2,
     {"(ulysses); valid: 0"}},
    {"FeedForwardBelowTensor",
     {"parallel.tensor=4", "model.feed_forward_size=3"},
     4,
     {"cannot divide the model's feed_forward_size 3 columns; valid: at most 3"}},
    {"VocabularyBelowTensor",
     {"parallel.tensor=4", "model.vocab_size=2"},
     4,
     {"vocab_size 2 tokens; valid: at most 2"}},
    {"SequenceBelowContext",
     {"parallel.context=128", "parallel.context_method=ring", "data.sequence_length=128"},
     128,
     {"128 positions do not make 256 chunks", "two for each rank of a causal ring",
      "at least 256, or parallel.context 64"}},
    {"SequenceBelowTensorAndContext",
     {"parallel.context=4", "parallel.tensor=4", "data.sequence_length=20"},
     16,
     {"20 positions do not make 32 chunks", "parallel.context 2"}},
    {"SequenceBelowTensor",
     {"parallel.tensor=4", "data.sequence_length=3"},
     4,
     {"3 positions do not make 4 chunks", "parallel.tensor 3"}},
    {"MoreStagesThanBlocks",
     {"parallel.pipeline=5"},
     5,
     {"= 5 parts, but the model has 4 blocks; valid: pipeline 4"}},
    {"MorePartsThanBlocks",
     {"parallel.pipeline=2", "parallel.pipeline_chunks=3", "parallel.pipeline_schedule=interleaved"},
     2,
     {"2 x pipeline_chunks 3 = 6 parts", "valid: pipeline_chunks 2, or pipeline 1"}},
    {"ChunksUnder1F1B",
     {"parallel.pipeline=2", "parallel.pipeline_chunks=2"},
     2,
     {"parallel.pipeline_chunks=2: 2, but 1f1b has one chunk per rank; valid: 1, or pipeline_schedule "
      "interleaved or gpipe"}},
    {"InterleavedMicroBatches",
     {"parallel.pipeline=4", "parallel.pipeline_schedule=interleaved"},
     4,
     {"2 micro-batches (32 / 1 replicas / micro_batch 16) are not a multiple of 4 stages", "global_batch 64",
      "train.micro_batch 8", "or 1f1b"}},
    {"SplitTooShort",
     {"parallel.pipeline=4", "parallel.pipeline_split=[1, 2]"},
     4,
     {"2 first blocks, but 4 parts have 3 after the first", "[1, 2, 3]"}},
    {"SplitTooLong", {"parallel.pipeline=2", "parallel.pipeline_split=[1, 2]"}, 2, {"2 parts have 1", "[2]"}},
    {"SplitNotAscending",
     {"parallel.pipeline=3", "parallel.pipeline_split=[2, 2]"},
     3,
     {"2 after 2 is not ascending"}},
    {"SplitBeyondTheBlocks",
     {"parallel.pipeline=2", "parallel.pipeline_split=[4]"},
     2,
     {"block 4 of 4 (0 to 3)"}},
    {"SplitLeavesTheFirstEmpty",
     {"parallel.pipeline=2", "parallel.pipeline_split=[0]"},
     2,
     {"block 0 leaves the first part"}},
    {"ProductByRanks",
     {"parallel.shard=4"},
     6,
     {"= 4, which does not divide 6 ranks; valid: 4 or 8 ranks, or parallel.shard 3"}},
    {"MoreThanAllRanks",
     {"parallel.tensor=4"},
     2,
     {"= 4, which does not divide 2 ranks; valid: 4 ranks, or parallel.tensor 2"}},
    {"TensorOfOtherHeads",
     {"parallel.tensor=4"},
     6,
     {"or parallel.tensor 2"}},  // 3 would not divide the heads
    {"SeveralAxesByRanks",
     {"parallel.tensor=2", "parallel.shard=4"},
     12,
     {"= 8, which does not divide 12 ranks; valid: 8 or 16 ranks, or parallel.shard 3, or parallel.tensor "
      "1"}},
    {"GlobalBatchByRanks",
     {},
     3,
     {"train.global_batch: 32 is not divisible by 3 ranks x micro_batch 16 = 48"}},
    {"GlobalBatchByGroups",
     {"parallel.tensor=2"},
     6,
     {"32 is not divisible by 3 groups of 2 ranks x micro_batch 16"}},
    {"MicroBatchOfABatch", {"train.micro_batch=12"}, 1, {"not divisible by micro_batch 12", "micro_batch 8"}},
    {"LossScaleBeyondFp16",
     {"train.precision=fp16", "train.loss_scale=1e30"},
     1,
     {"train.loss_scale=1e30: 1e+30 overflows", "valid: 1 to 16777216"}},
    {"NoSuchStage", {"parallel.zero=4"}, 1, {"4 is out of range; valid: whole number from 1 to 3"}}};

INSTANTIATE_TEST_SUITE_P(All, ImpossibleLayout, testing::ValuesIn(impossible_layouts),
                         [](const auto& each) { return each.param.name; });

TEST(PossibleLayout, HarmlessSettingsAreLeftAlone) {
  EXPECT_EQ(refusal({"parallel.zero=1"}, 2), "");
  EXPECT_EQ(refusal({"parallel.shard=2", "parallel.zero=1", "parallel.prefetch=4"}, 2), "");
  EXPECT_EQ(refusal({"parallel.pipeline_chunks=2"}, 2), "");
  EXPECT_EQ(refusal({"train.precision=bf16", "train.loss_scale=1e30"}, 2), "");
  EXPECT_EQ(refusal({"parallel.context_method=ulysses", "model.attention_dropout=0.1"}, 2), "");
  EXPECT_EQ(refusal({"parallel.pipeline=2", "parallel.pipeline_split=[3]"}, 2), "");
}

TEST(ImpossibleVocabulary, IsKnownFromTheData) {
  EXPECT_NO_THROW(check_vocabulary(mini({"parallel.tensor=4"}), 4));
  EXPECT_THROW(check_vocabulary(mini({"parallel.tensor=4"}), 3), Error);
}

}  // namespace
}  // namespace tessera
