#include "tally/recsys/data/histories.h"

#include <catch2/catch.hpp>

#include "tally/recsys/data/file_forms.h"
#include "tests/support/gzip.h"
#include "tests/support/temporary_directory.h"

namespace tally::recsys {
namespace {

using Catch::Matchers::Contains;
using tally::test::message_of;
using tally::test::TemporaryDirectory;

IdMap items() {
  IdMap map;
  for (const char* name : {"a", "b", "c"}) map.add(name);
  return map;
}

Histories read(const std::string& name, const std::string& text, HistoryOptions options = {}) {
  const TemporaryDirectory directory;
  options.format = file_form_of(name).format;
  return read_histories(directory.write(name, text), items(), options);
}

std::vector<std::vector<std::int32_t>> sequences(const Histories& histories) {
  std::vector<std::vector<std::int32_t>> all;
  for (std::int64_t i = 0; i < histories.sequences.count(); ++i) {
    const auto sequence = histories.sequences.sequence(i);
    all.emplace_back(sequence.begin(), sequence.end());
  }
  return all;
}

std::string refusal(const std::string& name, const std::string& text) {
  return message_of<IoError>([&] { read(name, text); });
}

}  // namespace

TEST_CASE("histories keep the order of users and of each user's rows", "[recommend]") {
  // v9 has no event; the rows of z7 do not stand together.
  const std::string text = "item_id\tuser_id\tnote\nc\tz7\tx\n\tv9\t\nb\ta1\t\na\tz7\t\nc\tz7\t\n";
  for (const Histories& histories :
       {read("h.tsv", text), read("h.tsv.gz", tally::test::gzip(text)),
        read("h.csv", "user_id,item_id\r\nz7,c\r\nv9,\r\na1,b\r\n\"z7\",\"a\"\r\nz7,c\r\n"),
        read("h.txt", "z7 c\nv9 \na1 b\nz7 a\nz7 c\n")}) {
    REQUIRE(histories.users.size() == 3);
    CHECK(histories.users.name(0) == "z7");
    CHECK(histories.users.name(1) == "v9");
    CHECK(histories.users.name(2) == "a1");
    CHECK(sequences(histories) == std::vector<std::vector<std::int32_t>>{{2, 0, 2}, {}, {1}});
    CHECK(histories.unknown_items == 0);
  }
  const Histories named =
      read("h.csv", "movieId,userId\nb,u\n", {.format = {}, .user_column = "userId", .item_column = "movieId"});
  CHECK(sequences(named) == std::vector<std::vector<std::int32_t>>{{1}});
  const Histories usual =
      read("h.csv", "item_id,user_id\nb,u\n", {.format = {}, .user_column = "userId", .item_column = "movieId"});
  CHECK(sequences(usual) == std::vector<std::vector<std::int32_t>>{{1}});
}

TEST_CASE("items that are not known are refused, or skipped and counted", "[recommend]") {
  CHECK_THAT(refusal("h.tsv", "user_id\titem_id\nu\ta\nu\tx\n"),
             Contains("h.tsv:3:3] needs an item that the model was trained with; got 'x'"));
  std::string text = "user_id\titem_id\nu\ta\nw\tx\nu\tb\n";
  for (int i = 0; i < 20; ++i) text += "u\ty\n";
  const Histories histories = read("h.tsv", text, {.format = {}, .unknown = UnknownItems::skip});
  CHECK(histories.unknown_items == 21);
  REQUIRE(histories.unknown_messages.size() == Histories::kMessagesKept);
  CHECK_THAT(histories.unknown_messages[0], Contains("h.tsv:3:3]") && Contains("'x'"));
  CHECK(histories.users.name(1) == "w");
  CHECK(sequences(histories) == std::vector<std::vector<std::int32_t>>{{0, 1}, {}});
}

TEST_CASE("bad histories are refused with file and line", "[recommend]") {
  CHECK_THAT(refusal("h.tsv", "user_id\titem_id\nu\ta\tb\n"), Contains("h.tsv:2] needs 2 fields"));
  CHECK_THAT(refusal("h.tsv", "user_id\titem_id\n\ta\n"), Contains("h.tsv:2:1] needs a user_id; got an empty field"));
  CHECK_THAT(refusal("h.tsv", "user_id\titem_id\n"), Contains("h.tsv] has no rows"));
  CHECK_THAT(refusal("h.tsv", ""), Contains("h.tsv] is empty"));
  CHECK_THAT(refusal("h.tsv", "u\ta\n"), Contains("needs a column 'user_id'; the columns are u, a"));
  CHECK_THAT(refusal("h.txt", "u a b\n"), Contains("h.txt:1] needs 2 fields (user_id, item_id); got 3"));
  CHECK_THAT(refusal("h.txt", "u\n"), Contains("h.txt:1] needs 2 fields"));
  CHECK_THAT(message_of<IoError>([] { read_histories("/nonexistent/h.tsv", items()); }),
             Contains("/nonexistent/h.tsv"));
}

}  // namespace tally::recsys
