#include "datasets/records.h"

#include <gmock/gmock.h>

#include "text_fixture.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

class RecordsFile : public InFolder {
 protected:
  Records records(const std::string& name, const std::string& content) const {
    return Records::open(write(name, content));
  }
  /// The message of opening the file, without its folder.
  std::string refusal(const std::string& name, const std::string& content) const {
    std::string message = error_of([&] { records(name, content); });
    const std::string folder = folder_.string() + "/";
    if (message.starts_with(folder)) message.erase(0, folder.size());
    return message;
  }
};

TEST_F(RecordsFile, ReadsJsonLines) {
  const Records all = records(
      "a.jsonl",
      "\xEF\xBB\xBF{\"text\": \"one\", \"label\": 1}\r\n\n  \t\n{\"label\": 0, \"text\": \"\\u00fc\"}");
  EXPECT_EQ(all.size(), 2);
  EXPECT_THAT(all.columns(), ElementsAre("text", "label"));
  EXPECT_EQ(all.text(0, "text"), "one");
  EXPECT_EQ(all.text(1, "text"), "ü");
  EXPECT_EQ(all.integer(0, "label"), 1);
  EXPECT_THAT(all.where(1), EndsWith("a.jsonl:4"));
}

TEST_F(RecordsFile, ReadsCsvWithQuotesAndLineBreaks) {
  const Records all = records(
      "a.csv", "\xEF\xBB\xBFtext,label,\r\n\"one, \"\"two\"\"\r\nthree\",1,\r\n\r\n5\" disk,\"\",x\n,,");
  EXPECT_EQ(all.size(), 3);
  EXPECT_THAT(all.columns(), ElementsAre("text", "label", ""));
  EXPECT_EQ(all.text(0, "text"), "one, \"two\"\r\nthree");
  EXPECT_EQ(all.text(1, "text"), "5\" disk");
  EXPECT_EQ(all.text(1, ""), "x");
  EXPECT_EQ(all.text(2, "label"), "");
  EXPECT_THAT(all.where(1), EndsWith("a.csv:5"));
  EXPECT_THAT(all.where(2), EndsWith("a.csv:6"));
}

TEST_F(RecordsFile, ReadsTsvWithoutQuoting) {
  const Records all = records("a.tsv", "a\tb\r\n\"x\ty\" z\r\n'\t\n");
  EXPECT_EQ(all.size(), 2);
  EXPECT_EQ(all.text(0, "a"), "\"x");
  EXPECT_EQ(all.text(0, "b"), "y\" z");
  EXPECT_EQ(all.text(1, "b"), "");
}

TEST_F(RecordsFile, KnowsWhatIsMissing) {
  const Records json = records("a.jsonl", R"({"a": null, "b": "", "c": 0})");
  EXPECT_FALSE(json.has(0, "a"));
  EXPECT_TRUE(json.has(0, "b"));
  EXPECT_TRUE(json.has(0, "c"));
  EXPECT_FALSE(json.has(0, "d"));
  const Records csv = records("a.csv", "a,b\n,0\n");
  EXPECT_FALSE(csv.has(0, "a"));
  EXPECT_TRUE(csv.has(0, "b"));
  EXPECT_FALSE(csv.has(0, "c"));
}

TEST_F(RecordsFile, FollowsDotsIntoObjects) {
  const Records all = records(
      "a.jsonl",
      R"({"id": 7, "answers": {"text": ["x", "y"], "start": [3, 4]}, "a.b": 1, "a": {"b": 2, "c": 3}, "x": {"y.z": 4}})");
  EXPECT_THAT(all.columns(), ElementsAre("id", "answers", "answers.text", "answers.start", "a.b", "a", "a.b",
                                         "a.c", "x", "x.y.z"));
  EXPECT_THAT(all.texts(0, "answers.text"), ElementsAre("x", "y"));
  EXPECT_THAT(all.integers(0, "answers.start"), ElementsAre(3, 4));
  EXPECT_EQ(all.integer(0, "a.b"), 1);
  EXPECT_EQ(all.integer(0, "a.c"), 3);
  EXPECT_EQ(all.integer(0, "x.y.z"), 4);
  EXPECT_EQ(all.json(0, "answers").dump(), R"({"text":["x","y"],"start":[3,4]})");
  EXPECT_THAT(error_of([&] { all.text(0, "answers.texts"); }),
              HasSubstr("no column 'answers.texts'; its columns: id, answers, answers.text, answers.start"));
  EXPECT_THAT(error_of([&] { all.text(0, "answers.texts"); }), EndsWith("did you mean 'answers.text'?"));
}

TEST_F(RecordsFile, ReadsTypes) {
  const Records all =
      records("a.jsonl", R"({"t": true, "i": -3, "f": 2.0, "h": 0.5, "s": " 12 ", "e": "1e3"})");
  EXPECT_EQ(all.integer(0, "t"), 1);
  EXPECT_EQ(all.integer(0, "i"), -3);
  EXPECT_EQ(all.integer(0, "f"), 2);
  EXPECT_EQ(all.integer(0, "s"), 12);
  EXPECT_EQ(all.integer(0, "e"), 1000);
  EXPECT_EQ(all.number(0, "h"), 0.5);
  EXPECT_EQ(all.number(0, "e"), 1000);
  EXPECT_EQ(all.text(0, "i"), "-3");
  EXPECT_EQ(all.text(0, "h"), "0.5");
  EXPECT_EQ(all.text(0, "t"), "true");
}

TEST_F(RecordsFile, ReadsLists) {
  const Records csv = records("a.tsv", "tags\tids\nB-PER I-PER  O\t 1 2 \n[\"a b\", 3]\t[4, 5]\n\t[]\n");
  EXPECT_THAT(csv.texts(0, "tags"), ElementsAre("B-PER", "I-PER", "O"));
  EXPECT_THAT(csv.integers(0, "ids"), ElementsAre(1, 2));
  EXPECT_THAT(csv.texts(1, "tags"), ElementsAre("a b", "3"));
  EXPECT_THAT(csv.integers(1, "ids"), ElementsAre(4, 5));
  EXPECT_THAT(csv.texts(2, "tags"), ElementsAre());
  EXPECT_THAT(csv.integers(2, "ids"), ElementsAre());
}

TEST_F(RecordsFile, RefusesValuesOfOtherTypes) {
  const Records all = records(
      "a.jsonl", R"({"n": null, "l": [1, null], "o": {}, "s": "three", "f": 1.5, "u": 18446744073709551615})"
                 "\n{\"x\": 1}");
  const auto at = [&](const auto& action) { return error_of(action); };
  EXPECT_THAT(at([&] { all.text(0, "n"); }), EndsWith("a.jsonl:1: column 'n' is null; valid: text"));
  EXPECT_THAT(at([&] { all.text(0, "l"); }), EndsWith("column 'l' is a list; valid: text"));
  EXPECT_THAT(at([&] { all.text(0, "o"); }), EndsWith("column 'o' is an object; valid: text"));
  EXPECT_THAT(at([&] { all.integer(0, "s"); }), HasSubstr("is the text 'three'; valid: an integer"));
  EXPECT_THAT(at([&] { all.integer(0, "f"); }), HasSubstr("is 1.5; valid: an integer"));
  EXPECT_THAT(at([&] { all.integer(0, "u"); }), HasSubstr("is 18446744073709551615; valid: an integer"));
  EXPECT_THAT(at([&] { all.integers(0, "l"); }), HasSubstr("column 'l': element 1 is null"));
  EXPECT_THAT(at([&] { all.texts(0, "s"); }), EndsWith("is the text 'three'; valid: a list"));
  EXPECT_THAT(at([&] { all.number(0, "s"); }), EndsWith("valid: a finite number"));
  EXPECT_THAT(at([&] { all.text(1, "s"); }),
              EndsWith("a.jsonl:2: no column 's'; its columns: x; did you mean 'x'?"));
  const Records csv = records("a.csv", "label,list\nnan,\"['a', 'b']\"\n");
  EXPECT_THAT(at([&] { csv.number(0, "label"); }), HasSubstr("is the text 'nan'; valid: a finite number"));
  EXPECT_THAT(at([&] { csv.texts(0, "list"); }), HasSubstr("valid: a JSON list"));
  EXPECT_THAT(at([&] { csv.text(0, "lable"); }),
              EndsWith("a.csv:2: no column 'lable'; its columns: label, list; did you mean 'label'?"));
}

TEST_F(RecordsFile, RefusesOtherFiles) {
  EXPECT_THAT(refusal("a.txt", "x"),
              HasSubstr("a.txt: not a kind of file that holds records; valid: .jsonl"));
  EXPECT_THAT(refusal("a.parquet", "x"), HasSubstr("pandas.read_parquet("));
  EXPECT_THAT(refusal("a.jsonl.gz", "x"), HasSubstr("valid: .jsonl"));
  EXPECT_EQ(records("A.JSONL", "{\"a\": 1}").size(), 1);
  EXPECT_THAT(error_of([&] { Records::open(at("A.JSON")); }), HasSubstr("did you mean"));
  std::filesystem::create_directories(at("folder.csv"));
  EXPECT_THAT(error_of([&] { Records::open(at("folder.csv")); }), HasSubstr("cannot be read as a file"));
}

TEST_F(RecordsFile, RefusesMalformedJsonLines) {
  const auto refused = [&](const std::string& content) { return refusal("a.jsonl", content); };
  EXPECT_EQ(refused(""), "a.jsonl: the file is empty");
  EXPECT_EQ(refused("\xEF\xBB\xBF \n\r\n"), "a.jsonl: the file is empty");
  EXPECT_THAT(refused("[{\"a\": 1}]"), HasSubstr("a.jsonl:1: a JSON array; valid: one JSON object a line"));
  EXPECT_THAT(refused("{\n\"a\": 1}"), HasSubstr("a.jsonl:1: not JSON: at column 2"));
  EXPECT_THAT(refused("{}\n\n3"), HasSubstr("a.jsonl:3: a JSON number, not an object"));
  EXPECT_THAT(refused("{}\n{\"a\": {\"b\": 1, \"b\": 2}}"), HasSubstr("a.jsonl:2: the key 'b' stands twice"));
  EXPECT_THAT(refused("{}\n{\"a\": \"\xff\"}"), HasSubstr("a.jsonl:2: not valid UTF-8"));
  EXPECT_THAT(refused("{}\n{\"a\": \"\xed\xa0\x80\"}"), HasSubstr("a.jsonl:2: not valid UTF-8"));
  EXPECT_THAT(refused(std::string("{\"a\": 1}\0", 9)), HasSubstr("a.jsonl:1: a zero byte"));
  EXPECT_THAT(refused("{\"a\": NaN}"), HasSubstr("a.jsonl:1: not JSON"));
  EXPECT_THAT(refused("{\"a\": 1e999}"), HasSubstr("a.jsonl:1: not JSON: a number out of the range"));
  EXPECT_THAT(refused("{\"a\": 1} {\"a\": 2}"), HasSubstr("a.jsonl:1: not JSON"));
  EXPECT_THAT(refused("{\"a\": " + std::string(1'000'000, '[')), HasSubstr("nested deeper than 64"));
  std::string keys = "{\"a\": 1";
  for (int i = 0; i < 5'000; ++i) keys += ", \"" + std::to_string(i) + "\": 1";
  EXPECT_THAT(refused(keys + "}"), HasSubstr("an object of more than 4096 keys"));
  EXPECT_THAT(refused("{}\n" + std::string((64 << 20) + 1, ' ')),
              HasSubstr("a.jsonl:2: a line longer than 64 MiB"));
}

TEST_F(RecordsFile, RefusesMalformedTables) {
  const auto csv = [&](const std::string& content) { return refusal("a.csv", content); };
  EXPECT_EQ(csv("a,b\n"), "a.csv: no records, only a header");
  EXPECT_EQ(csv("a,b\n1,2\n\n1,2,3\n"), "a.csv:4: 3 fields, but the header has 2; its columns: a, b");
  EXPECT_EQ(refusal("a.tsv", "a\tb\n1\n"), "a.tsv:2: 1 fields, but the header has 2; its columns: a, b");
  EXPECT_EQ(csv("a,b,a\n1,2,3"), "a.csv:1: the column 'a' stands twice");
  EXPECT_EQ(csv("a\n\"x\n\"y\n"), "a.csv:3: text after a closing quote; quotes inside quotes are doubled");
  EXPECT_EQ(csv("a\nb\n\"x\ny\n"), "a.csv:3: a quote that is never closed");
  EXPECT_EQ(csv("a\rb\r"), "a.csv:1: a carriage return without a line feed outside quotes");
  EXPECT_EQ(csv("a\nb\xc3\n"), "a.csv:2: not valid UTF-8; convert the file, for example with iconv");
  EXPECT_THAT(csv(std::string(300, 'x') + "\ny"), HasSubstr("a column name of 300 bytes"));
  EXPECT_THAT(csv(std::string(1'000'000, ',') + "\ny"), HasSubstr("1000001 columns; valid: at most 4096"));
  EXPECT_THAT(csv("a,b\n" + std::string(1'000'000, ',')), HasSubstr("a.csv:2: 1000001 fields"));
  std::string large = "a\n\"";
  for (int i = 0; i < 70; ++i) large += std::string(1 << 20, 'x') + "\n";
  EXPECT_THAT(csv(large + "\"\n"), HasSubstr("a.csv:2: a record longer than 64 MiB"));
}

TEST_F(RecordsFile, KeepsMessagesShort) {
  std::string object = "{";
  for (int i = 0; i < 4'000; ++i) object += "\"key" + std::to_string(i) + "\": 1, ";
  const Records all = records("a.jsonl", object + "\"" + std::string(1 << 20, 'k') + "\": 1, \"z\": \"" +
                                             std::string(1 << 20, 'z') + "\"}");
  EXPECT_EQ(all.columns().size(), 4'001);
  const std::string missing = error_of([&] { all.text(0, "key3_999"); });
  EXPECT_THAT(missing, HasSubstr("key49 and 3951 more; did you mean 'key"));
  EXPECT_LT(missing.size(), 1000);
  EXPECT_LT(error_of([&] { all.integer(0, "z"); }).size(), 300);
  const std::string twice = "\"" + std::string(1000, 'k') + "\": 1";
  EXPECT_LT(refusal("b.jsonl", "{" + twice + ", " + twice + "}").size(), 200);
}

}  // namespace
}  // namespace tessera
