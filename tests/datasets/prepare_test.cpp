#include "datasets/prepare.h"

#include <gmock/gmock.h>
#include <zlib.h>
#include <zstd.h>

#include <cmath>
#include <set>

#include "tests/datasets/text_fixture.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

class Prepare : public InFolder {
 protected:
  PrepareOptions options(std::vector<std::string> inputs, const std::string& output = "out") const {
    PrepareOptions result;
    result.inputs = std::move(inputs);
    result.output = at(output);
    result.tokenizer = std::make_shared<NumberTokenizer>(100'000);
    result.validation = 0;
    return result;
  }
  /// Tokens of each document of a file.
  static std::vector<std::vector<int32_t>> documents(const std::string& path) {
    const TokenFile file(path);
    std::vector<std::vector<int32_t>> result(file.header().num_documents);
    for (size_t i = 0; i < result.size(); ++i)
      file.read(file.documents()[i], file.documents()[i + 1], result[i]);
    return result;
  }
  static std::vector<uint64_t> sentences(const std::string& path) {
    const TokenFile file(path);
    return {file.sentences().begin(), file.sentences().end()};
  }
  /// Documents of a few sentences, all different.
  static std::string text(int count, int seed = 0) {
    RandomStream random(seed);
    std::string result;
    for (int i = 0; i < count; ++i) {
      result += "W" + std::to_string(10 + i % 90'000);
      for (uint32_t j = 0; j < random.below(200); ++j) {
        result += (random.below(9)   ? " w"
                   : random.below(3) ? ". W"
                                     : "\nW") +
                  std::to_string(10 + random.below(90'000));
      }
      result += "\n\n";
    }
    return result;
  }
};

TEST_F(Prepare, DocumentsAreSeparatedByBlankLines) {
  const auto input = write("a.txt", "\n\nw10 w11\nw12\n   \n\t\nw13\r\nw14\r\n\r\nw15");
  const auto summary = prepare(options({input}));
  EXPECT_THAT(documents(summary.train_path),
              ElementsAre(ElementsAre(10, 11, 12), ElementsAre(13, 14), ElementsAre(15)));
  EXPECT_THAT(sentences(summary.train_path), ElementsAre(0, 2, 3, 4, 5, 6));
  EXPECT_EQ(summary.train.num_documents, 3);
  EXPECT_EQ(summary.bytes, 11 + 7 + 3);
  EXPECT_TRUE(summary.validation_path.empty());
}

TEST_F(Prepare, DocumentsMayBeLinesOrFiles) {
  const std::string content = "w10 w11\n\nw12\n";
  auto choice = options({write("a.txt", content), write("b.txt", "\xEF\xBB\xBFw13")});
  choice.overwrite = true;
  choice.documents = DocumentRule::line;
  EXPECT_THAT(documents(prepare(choice).train_path),
              ElementsAre(ElementsAre(10, 11), ElementsAre(12), ElementsAre(13)));
  choice.documents = DocumentRule::file;
  EXPECT_THAT(documents(prepare(choice).train_path), ElementsAre(ElementsAre(10, 11, 12), ElementsAre(13)));
}

TEST_F(Prepare, JsonLinesGiveTheirField) {
  auto choice = options(
      {write("a.jsonl", "{\"text\": \"w10\\nw11\", \"n\": 1}\n\n{\"body\": \"w9\", \"text\": \"w12\"}\n")});
  choice.overwrite = true;
  EXPECT_THAT(documents(prepare(choice).train_path), ElementsAre(ElementsAre(10, 11), ElementsAre(12)));
  choice.json_field = "txt";
  EXPECT_THAT(error_of([&] { prepare(choice); }),
              AllOf(HasSubstr("a.jsonl:1"), HasSubstr("did you mean 'text'")));
  choice.json_field = "n";
  EXPECT_THAT(error_of([&] { prepare(choice); }), HasSubstr("no text field 'n'"));
  write("a.jsonl", "{\"text\": \"w10\"}\n{\"text\": \n");
  choice.json_field = "text";
  EXPECT_THAT(error_of([&] { prepare(choice); }),
              AllOf(HasSubstr("a.jsonl:2"), HasSubstr("not a line of JSON")));
}

TEST_F(Prepare, ReadsEveryKindAlike) {
  const std::string content = text(2000);
  const std::string plain = bytes_of(prepare(options({write("a.txt", content)}, "plain")).train_path);
  const std::string middle = content.substr(0, content.size() / 2), rest = content.substr(content.size() / 2);
  EXPECT_EQ(plain, bytes_of(prepare(options({write("a.txt.gz", gzip(content))}, "gz")).train_path));
  EXPECT_EQ(plain, bytes_of(prepare(options({write("b.gz", gzip(middle) + gzip(rest))}, "gz2")).train_path));
  EXPECT_EQ(plain, bytes_of(prepare(options({write("a.txt.zst", zstd(content))}, "zst")).train_path));
  EXPECT_EQ(plain,
            bytes_of(prepare(options({write("b.zst", zstd(middle) + zstd(rest))}, "zst2")).train_path));
}

TEST_F(Prepare, TheNumberOfThreadsChangesNothing) {
  write("in/b/2.txt", text(3000, 1));
  write("in/a.txt.gz", gzip(text(3000, 2)));
  write("in/.hidden.txt", "w10");
  write("in/c.bin", "w10");
  std::set<std::string> train, validation;
  for (const int threads : {1, 2, 3, 8}) {
    auto choice = options({at("in")}, "out" + std::to_string(threads));
    choice.threads = threads;
    choice.validation = 0.1;
    choice.deduplicate = true;
    const auto summary = prepare(choice);
    EXPECT_EQ(summary.train.num_documents + summary.validation.num_documents + summary.duplicates, 6000);
    train.insert(bytes_of(summary.train_path));
    validation.insert(bytes_of(summary.validation_path));
  }
  EXPECT_EQ(train.size(), 1u);
  EXPECT_EQ(validation.size(), 1u);
}

TEST_F(Prepare, TokensAreThoseOfTheWholeText) {
  const std::string content = text(500);
  const auto path = write("a.txt", content);
  std::vector<int32_t> expected;
  NumberTokenizer(100'000).encode(std::string_view(content), expected);
  // "w12." is a word of its own to the test's tokenizer, and the same number
  for (const auto rule :
       {SentenceRule::lines, SentenceRule::paragraphs, SentenceRule::wrapped, SentenceRule::none}) {
    auto choice = options({path});
    choice.sentences = rule;
    choice.overwrite = true;
    const auto summary = prepare(choice);
    std::vector<int32_t> tokens;
    TokenFile(summary.train_path).read(0, summary.train.num_tokens, tokens);
    EXPECT_EQ(tokens, expected);
    const bool more = summary.train.num_sentences > summary.train.num_documents;
    EXPECT_EQ(more, rule != SentenceRule::none);
  }
}

TEST_F(Prepare, TrainsATokenizerAndCutsNoTokenAtSentences) {
  const auto input =
      write("a.txt",
            "One line. Another, \"quoted.\" More (e.g. this) follow!\n- An item\n- The last\n\nAgain one "
            "line, and another.  Two  spaces.\n\n");
  const std::string first = "One line. Another, \"quoted.\" More (e.g. this) follow!\n- An item\n- The last";
  using Kind = TrainerOptions::Kind;
  for (const Kind kind : {Kind::wordpiece, Kind::byte_level_bpe}) {
    auto choice = options({input});
    choice.tokenizer = nullptr;
    choice.trainer.kind = kind;
    choice.trainer.vocab_size = 300;
    choice.overwrite = true;
    std::set<std::string> files;
    for (const int threads : {1, 3}) {
      choice.threads = threads;
      files.insert(bytes_of(prepare(choice).train_path));
    }
    EXPECT_EQ(files.size(), 1u);
    const auto tokenizer = Tokenizer::load(at("out/tokenizer.json"));
    EXPECT_EQ(tokenizer->json(), TokenFile(at("out/train.h5")).tokenizer_json());
    EXPECT_EQ(documents(at("out/train.h5")).at(0), tokenizer->encode(first));
    EXPECT_EQ(sentences(at("out/train.h5")).size(), 5u + 2u + 1u);
  }
}

TEST_F(Prepare, DuplicatesGoWhenAsked) {
  auto choice = options({write("a.txt", "w10 w11\n\nw12\n\nw10 w11\n\nw12\n\nw10  w11\n")});
  choice.overwrite = true;
  EXPECT_EQ(prepare(choice).train.num_documents, 5);
  choice.deduplicate = true;
  const auto summary = prepare(choice);
  EXPECT_EQ(summary.duplicates, 2);
  EXPECT_THAT(documents(summary.train_path),
              ElementsAre(ElementsAre(10, 11), ElementsAre(12), ElementsAre(10, 11)));
}

TEST_F(Prepare, ADocumentFallsToTheSameSideWhateverElseIsThere) {
  const auto split = [&](const std::string& content, const std::string& output) {
    auto choice = options({write(output + ".txt", content)}, output);
    choice.validation = 0.2;
    const auto summary = prepare(choice);
    std::pair<std::set<std::vector<int32_t>>, std::set<std::vector<int32_t>>> sides;
    for (const auto& document : documents(summary.train_path)) sides.first.insert(document);
    for (const auto& document : documents(summary.validation_path)) sides.second.insert(document);
    return sides;
  };
  const auto few = split(text(2000, 1), "few"), many = split(text(500, 7) + text(2000, 1), "many");
  EXPECT_TRUE(std::includes(many.first.begin(), many.first.end(), few.first.begin(), few.first.end()));
  EXPECT_TRUE(std::includes(many.second.begin(), many.second.end(), few.second.begin(), few.second.end()));
  EXPECT_NEAR(few.second.size(), 400, 3 * std::sqrt(2000 * 0.2 * 0.8));
}

TEST_F(Prepare, DamagedInputsAreNamed) {
  const std::string content = text(3000);
  const auto refused = [&](const std::string& name, const std::string& bytes) {
    return error_of([&] { prepare(options({write(name, bytes)}, "refused")); });
  };
  const std::string gz = gzip(content), zst = zstd(content);
  EXPECT_THAT(refused("cut.gz", gz.substr(0, gz.size() / 2)),
              AllOf(HasSubstr("cut.gz"), HasSubstr("cut off")));
  EXPECT_THAT(refused("cut.zst", zst.substr(0, zst.size() / 2)),
              AllOf(HasSubstr("cut.zst"), HasSubstr("cut off")));
  std::string bad = gz;
  bad[gz.size() / 2] ^= 0x55;
  bad[gz.size() / 2 + 1] ^= 0x55;
  EXPECT_THAT(refused("bad.gz", bad), HasSubstr("damaged gzip file"));
  bad = zst;
  for (size_t i = zst.size() / 2; i < zst.size() / 2 + 200; ++i) bad[i] ^= 0x55;
  EXPECT_THAT(refused("bad.zst", bad), HasSubstr("damaged zstd file"));
  EXPECT_FALSE(fs::exists(at("refused/train.h5")));
  EXPECT_FALSE(fs::exists(at("refused/.partial")));
}

TEST_F(Prepare, MistakesAreExplained) {
  const auto input = write("corpus.txt", "w10 w11\n");
  EXPECT_THAT(error_of([&] { prepare(options({at("copus.txt")})); }),
              AllOf(HasSubstr("no such"), HasSubstr("corpus.txt")));
  fs::create_directories(at("nothing"));
  EXPECT_THAT(error_of([&] { prepare(options({at("nothing")})); }), HasSubstr("no text in this folder"));
  EXPECT_THAT(error_of([&] { prepare(options({write("empty.txt", "\n \n")})); }), HasSubstr("no document"));
  auto choice = options({input});
  choice.validation = 1;
  EXPECT_THAT(error_of([&] { prepare(choice); }), HasSubstr("out of range"));
  prepare(options({input}));
  EXPECT_THAT(error_of([&] { prepare(options({input})); }), HasSubstr("is there already"));
  write("file", "");
  EXPECT_THAT(error_of([&] { prepare(options({input}, "file")); }), HasSubstr("cannot be made"));
}

TEST_F(Prepare, ReportsItsProgress) {
  const auto input = write("a.txt.gz", gzip(text(9000)));
  auto choice = options({input});
  std::vector<int64_t> done;
  choice.progress = [&](const PrepareProgress& progress) {
    EXPECT_EQ(progress.bytes_total, static_cast<int64_t>(fs::file_size(input)));
    done.push_back(progress.bytes_done);
  };
  prepare(choice);
  EXPECT_GT(done.size(), 2u);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), static_cast<int64_t>(fs::file_size(input)));
}

std::vector<std::string> split(std::string_view text, SentenceRule rule) {
  auto starts = sentence_starts(text, rule);
  starts.push_back(static_cast<uint32_t>(text.size()));
  std::vector<std::string> result;
  for (size_t i = 0; i + 1 < starts.size(); ++i)
    result.emplace_back(text.substr(starts[i], starts[i + 1] - starts[i]));
  return result;
}

TEST(Sentences, EndAtFullStopsButNotAbbreviations) {
  EXPECT_THAT(split("It works. Mr. Smith (e.g. J. Doe) agrees! \"Does he?\" Yes: 3.5 times. no more",
                    SentenceRule::paragraphs),
              ElementsAre("It works.", " Mr. Smith (e.g. J. Doe) agrees!", " \"Does he?\"",
                          " Yes: 3.5 times. no more"));
  EXPECT_THAT(split("One... Two?! 3 (Four.) Five", SentenceRule::paragraphs),
              ElementsAre("One...", " Two?!", " 3 (Four.)", " Five"));
  EXPECT_THAT(split("一。二！三", SentenceRule::paragraphs), ElementsAre("一。", "二！", "三"));
  EXPECT_THAT(split("", SentenceRule::paragraphs), ElementsAre(""));
}

TEST(Sentences, LinesCountAsTheRuleSays) {
  const std::string text = "A heading\nwraps here. Goes\non.\n\n- item\n- other. Item";
  EXPECT_THAT(split(text, SentenceRule::lines),
              ElementsAre("A heading", "\nwraps here. Goes", "\non.", "\n\n- item", "\n- other. Item"));
  EXPECT_THAT(
      split(text, SentenceRule::paragraphs),
      ElementsAre("A heading", "\nwraps here.", " Goes", "\non.", "\n\n- item", "\n- other.", " Item"));
  EXPECT_THAT(split(text, SentenceRule::wrapped),
              ElementsAre("A heading\nwraps here.", " Goes\non.", "\n\n- item", "\n- other.", " Item"));
  EXPECT_THAT(split(text, SentenceRule::none), ElementsAre(text));
}

}  // namespace
}  // namespace tessera
