#include "tally/recsys/data/histories.h"

#include <catch2/catch.hpp>

#include "tally/core/io/gzip.h"
#include "tally/recsys/data/file_forms.h"
#include "tests/support/temporary_directory.h"

namespace tally::recsys::histories_test {
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

TEST_CASE("histories have the times that a file tells", "[recommend]") {
  const std::string text = "user_id,item_id,at\nu,b,30\nv,a,5\nu,a,10.5\nu,x,20\nw,,\n";
  HistoryOptions options{.unknown = UnknownItems::skip, .order_column = "at"};
  const Histories timed = read("h.csv", text, options);
  CHECK(sequences(timed) == std::vector<std::vector<std::int32_t>>{{0, 1}, {0}, {}});
  CHECK(timed.sequences.times.to_doubles() == std::vector<double>{10.5, 30, 5});
  options.order_column = "";
  CHECK_FALSE(read("h.csv", text, options).sequences.times.defined());
}

TEST_CASE("histories keep the order of users and of each user's rows", "[recommend]") {
  // v9 has no event; the rows of z7 do not stand together.
  const std::string text = "item_id\tuser_id\tnote\nc\tz7\tx\n\tv9\t\nb\ta1\t\na\tz7\t\nc\tz7\t\n";
  for (const Histories& histories :
       {read("h.tsv", text), read("h.tsv.gz", tally::gzip(text)),
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

TEST_CASE("the first line of a file of histories tells its form", "[recommend]") {
  const std::vector<std::vector<std::int32_t>> expected{{2, 0}, {1}};
  HistoryOptions semicolons;
  semicolons.format = {.separator = ";", .quoted = true, .columns = {}};
  semicolons.user_column = "who";
  semicolons.item_column = "what";
  HistoryOptions columns;
  columns.format = {.separator = "\t", .quoted = false, .columns = {"what", "x", "who"}};
  columns.user_column = "who";
  columns.item_column = "what";
  const TemporaryDirectory directory;
  const auto read_as = [&](const std::string& name, const std::string& text, const HistoryOptions& options) {
    return sequences(read_histories(directory.write(name, text), items(), options));
  };
  for (const HistoryOptions& options : {semicolons, columns}) {
    // Any form of a header that the training data's form or the name tells, with either names, typed or quoted.
    const std::string separator = options.format.separator;
    CHECK(read_as("h.data", "who" + separator + "what\nu" + separator + "c\nw" + separator + "b\nu" + separator + "a\n",
                  options) == expected);
    CHECK(read_as("h.csv",
                  "item_id" + separator + "user_id\nc" + separator + "u\nb" + separator + "w\na" + separator + "u\n",
                  options) == expected);
    CHECK(read_as("h.csv", "\"who\",what:token\nu,c\nw,b\nu,\"a\"\n", options) == expected);
    CHECK(read_as("h.tsv", "\xEF\xBB\xBFuser_id\titem_id\nu\tc\nw\tb\nu\ta\n", options) == expected);
    CHECK(read_as("h.inter.gz", tally::gzip("user_id:token\titem_id:token\nu\tc\nw\tb\nu\ta\n"), options) == expected);
    CHECK(read_as("h.txt", "what who\nc u\nb w\na u\n", options) == expected);
    // Without a header: what the name tells.
    CHECK(read_as("h.txt", "u c\nw b\nu a\n", options) == expected);
    CHECK(read_as("h.dat", "u::c::5::1\nw::b::5::1\nu::a::5::1\n", options) == expected);
  }
  // Or the columns that the training data were given.
  for (const char* name : {"h", "h.txt", "h.csv", "h.dat", "u.data"}) {
    CHECK(read_as(name, "c\t1\tu\nb\t1\tw\na\t1\tu\n", columns) == expected);
    const std::string message = message_of<IoError>([&] { read_as(name, "c\t1\tu\nb\t1\tw\na\tu\n", columns); });
    CHECK_THAT(message, Contains(":3] needs 3 fields (what, x, who); got 2"));
  }
  // A first row that a quote carries on over the line is no header; its columns are known.
  HistoryOptions quoted = columns;
  quoted.format = {.separator = ",", .quoted = true, .columns = {"what", "x", "who"}};
  CHECK(read_as("h", "c,\"1\n2\",u\nb,,w\na,,u\n", quoted) == expected);
  CHECK_THAT(message_of<IoError>([&] { read_as("h.csv", "u;c\nw;b\n", semicolons); }),
             Contains("needs a column 'user_id'; the columns are u;c"));
  CHECK_THAT(message_of<IoError>([&] { read_as("h", "c\t1\n", columns); }), Contains("h:1] needs 3 fields"));
  CHECK_THAT(message_of<IoError>([&] { read_as("h.csv", "", semicolons); }), Contains("h.csv] is empty"));
  CHECK_THAT(message_of<IoError>([&] { read_as("h", "", columns); }), Contains("h] has no rows"));
}

TEST_CASE("histories stand in the time order of the training data, where the file has times", "[recommend]") {
  HistoryOptions options;
  options.order_column = "when";
  options.rating_column = "stars";
  options.min_rating = 0.7;
  options.order.duplicates = Duplicates::last;
  const std::string all =
      "user_id\tstars\titem_id\twhen\nu\t1\tb\t9\nw\t1\ta\t5\nu\t0.7\tc\t2\nu\t0.6\ta\t1\nu\t1\ta\t10\nu\t1\tc\t3\n";
  const TemporaryDirectory directory;
  const auto read_all = [&](const std::string& text) {
    return read_histories(directory.write("h.tsv", text), items(), options);
  };
  const Histories histories = read_all(all);
  CHECK(sequences(histories) == std::vector<std::vector<std::int32_t>>{{2, 1, 0}, {0}});
  CHECK(histories.users.name(0) == "u");
  CHECK(histories.report.rows == 6);
  CHECK(histories.report.below_min_rating == 1);
  CHECK(histories.report.duplicates == 1);
  // Without times in order, without ratings none too low.
  CHECK(sequences(read_all("user_id\titem_id\nu\tb\nu\ta\nw\tc\nw\t\n")) ==
        std::vector<std::vector<std::int32_t>>{{1, 0}, {2}});
  CHECK_THAT(message_of<IoError>([&] { read_all("user_id\titem_id\twhen\nu\ta\tx\n"); }),
             Contains("h.tsv:2:5] needs a finite number as when; got 'x'"));
  CHECK_THAT(message_of<IoError>([&] { read_all("user_id\titem_id\tstars\nu\ta\t0\n"); }),
             Contains("has no rows left: 0 are malformed and 1 below"));
  // An item that is not known is no malformed row, which may be skipped.
  options.bad_rows = BadRows::skip;
  CHECK_THAT(message_of<IoError>([&] { read_all("user_id\titem_id\nu\ta\nu\tx\n"); }),
             Contains("h.tsv:3:3] needs an item"));
  CHECK(read_all("user_id\titem_id\nu\ta\nu\n").report.bad_rows == 1);
}

TEST_CASE("ids of histories are checked as those of training data", "[recommend]") {
  CHECK_THAT(refusal("h.csv", "user_id,item_id\ne,a\n\"a\tb\",a\n"),
             Contains("h.csv:3:1] needs a user_id without control characters, tabs and line breaks; got 'a\\x09b'"));
  CHECK_THAT(refusal("h.csv", "user_id,item_id\n\"c\nd\",a\n"), Contains("h.csv:2:1]") && Contains("'c\\x0ad'"));
  CHECK_THAT(refusal("h.csv", "user_id,item_id\n\"c\nd\",\n"), Contains("h.csv:2:1]"));
  CHECK_THAT(refusal("h.txt", std::string("u a\nu\0 a\n", 9)), Contains("h.txt:2:1]") && Contains("'u\\x00'"));
  CHECK_THAT(refusal("h.txt", "u a\x7f\n"), Contains("h.txt:1:3] needs a item_id"));
  CHECK_THAT(refusal("h.txt", "u a\n\xEF\xBB\xBFu a\n"),
             Contains("h.txt:2:1] needs a user_id without a byte order mark"));
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

}  // namespace tally::recsys::histories_test
