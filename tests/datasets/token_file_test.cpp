#include "datasets/token_file.h"

#include <gmock/gmock.h>

#include <cmath>

#include "datasets/hdf5.h"
#include "tests/datasets/text_fixture.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
class TokenFileTest : public InFolder {};

TEST_F(TokenFileTest, GivesBackWhatWasWritten) {
  const TokenFile file(token_file("a", {{{10, 11}, {12}}, {{13, 10, 10}}}));
  EXPECT_EQ(file.header().num_documents, 2);
  EXPECT_EQ(file.header().num_sentences, 3);
  EXPECT_EQ(file.header().num_tokens, 6);
  EXPECT_EQ(file.header().vocab_size, 1000);
  EXPECT_EQ(file.header().special.mask, 4);
  EXPECT_EQ(file.header().special.end, -1);
  EXPECT_NEAR(file.header().unigram_entropy, 0.5 * std::log(2.0) + 0.5 * std::log(6.0), 1e-12);
  EXPECT_THAT(file.documents(), ElementsAre(0, 3, 6));
  EXPECT_THAT(file.sentences(), ElementsAre(0, 2, 3, 6));
  EXPECT_EQ(file.first_sentence(1), 2);
  EXPECT_EQ(file.first_sentence(2), 3);
  EXPECT_EQ(file.tokenizer_json(), "{\"numbers\": true}");
  std::vector<int32_t> tokens{7};
  file.read(1, 5, tokens);
  EXPECT_THAT(tokens, ElementsAre(7, 11, 12, 13, 10));
}

TEST_F(TokenFileTest, UsesTheSmallestType) {
  const auto narrow = token_file("narrow", {{{65535}}}, NumberTokenizer(65536));
  const auto wide = token_file("wide", {{{65536, 100000}}}, NumberTokenizer(200000));
  EXPECT_EQ(hdf5::File::open(narrow).info("/tokens").type, hdf5::Type::u16);
  EXPECT_EQ(hdf5::File::open(wide).info("/tokens").type, hdf5::Type::u32);
  std::vector<int32_t> tokens;
  TokenFile(narrow).read(0, 1, tokens);
  TokenFile(wide).read(0, 2, tokens);
  EXPECT_THAT(tokens, ElementsAre(65535, 65536, 100000));
}

TEST_F(TokenFileTest, RefusesWhatIsNoTokenFile) {
  EXPECT_THAT(error_of([&] { TokenFile file(at("missing.h5")); }), HasSubstr("missing.h5"));
  write("text.h5", "This is no HDF5 file at all.");
  EXPECT_THAT(error_of([&] { TokenFile file(at("text.h5")); }), HasSubstr("text.h5"));
  hdf5::File::create(at("other.h5")).set_attribute("/", "format", std::string("something else"));
  EXPECT_THAT(error_of([&] { TokenFile file(at("other.h5")); }), HasSubstr("not a token file"));
  const auto newer = token_file("newer", {{{1}}});
  hdf5::File::append(newer).set_attribute("/", "format_version", int64_t{99});
  EXPECT_THAT(error_of([&] { TokenFile file(newer); }), HasSubstr("format version 99"));
}

TEST_F(TokenFileTest, NoticesEveryTruncation) {
  std::vector<std::vector<std::vector<int32_t>>> documents(300, {{5, 6, 7, 8}, {9, 10, 11}});
  const std::string whole = bytes_of(token_file("whole", documents));
  for (int part = 0; part < 40; ++part) {
    const auto path = write("cut.h5", whole.substr(0, whole.size() * part / 40));
    EXPECT_THAT(error_of([&] { TokenFile file(path); }), HasSubstr("cut.h5")) << "kept " << part << "/40";
  }
}

TEST_F(TokenFileTest, NoticesEveryFlippedBitThatMatters) {
  std::vector<std::vector<std::vector<int32_t>>> documents(50, {{5, 6, 7, 8}, {9, 10, 11}});
  const auto path = token_file("whole", documents);
  const std::string whole = bytes_of(path);
  std::vector<int32_t> original;
  TokenFile(path).read(0, 350, original);
  int noticed = 0;
  for (size_t at_byte = 0; at_byte < whole.size(); at_byte += 17) {
    std::string flipped = whole;
    flipped[at_byte] ^= 0x10;
    const auto copy = write("flipped.h5", flipped);
    try {
      const TokenFile file(copy);
      std::vector<int32_t> tokens;
      file.read(0, file.header().num_tokens, tokens);
      EXPECT_EQ(tokens, original) << "byte " << at_byte;  // a flip in what HDF5 pads with changes nothing
    } catch (const Error& error) {
      ++noticed;
      EXPECT_THAT(error.what(), HasSubstr("flipped.h5"));
    }
  }
  EXPECT_GT(noticed, 10);
}

TEST_F(TokenFileTest, RefusesIdsOutsideTheVocabulary) {
  const auto path = token_file("a", {{{10, 11, 12}}});
  hdf5::File::append(path).set_attribute("/", "vocab_size", int64_t{11});
  EXPECT_THAT(error_of([&] { TokenFile file(path); }), HasSubstr("does not match its hash"));
  const TokenFile file(path, Verify::never);
  std::vector<int32_t> tokens;
  EXPECT_THAT(error_of([&] { file.read(0, 3, tokens); }), HasSubstr("the vocabulary has 11"));
  EXPECT_THAT(error_of([&] { file.read(0, 4, tokens); }), HasSubstr("past the end"));
}

}  // namespace
}  // namespace tessera
