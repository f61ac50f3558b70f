#include "tally/recsys/data/delimited_reader.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <sstream>

#include "tally/core/io/gzip.h"
#include "tally/recsys/data/event_fields.h"
#include "tally/recsys/data/titles.h"
#include "tests/support/temporary_directory.h"

namespace tally::recsys::delimited_reader_test {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::EndsWith;
using tally::test::message_of;
using tally::test::TemporaryDirectory;

constexpr const char* kHeader = "userId,movieId,rating,timestamp\r\n";

std::vector<std::string> items_of(const Interactions& data, std::int64_t user) {
  std::vector<std::string> names;
  for (const std::int32_t item : data.sequence(user)) names.emplace_back(data.items.name(item));
  return names;
}

/// The message of the IoError that reading this text as ratings.csv ends with.
std::string refusal(const std::string& text, const ReadOptions& options = movielens_csv_options()) {
  const TemporaryDirectory directory;
  const auto path = directory.write("ratings.csv", text);
  const std::string message = message_of<IoError>([&] { read_interactions(path, options); });
  CHECK_THAT(message, Contains(path.string()));
  CHECK(message.find('\n') == std::string::npos);
  return message;
}

}  // namespace

TEST_CASE("ratings.csv is read in time order with ids as strings", "[data]") {
  const TemporaryDirectory directory;
  const auto path = directory.write(
      "ratings.csv", std::string(kHeader) + "7,m1,4.0,30\r\n\"7\",\"m,2\",0.5,10\r\n8,m1,3,5\r\n7,m3,2,30\n");
  ReadReport report;
  const Interactions data = read_interactions(path, movielens_csv_options(), &report);
  CHECK(data.num_users() == 2);
  CHECK(data.num_items() == 3);
  CHECK(data.users.name(0) == "7");
  CHECK(items_of(data, 0) == std::vector<std::string>{"m,2", "m1", "m3"});
  CHECK(items_of(data, 1) == std::vector<std::string>{"m1"});
  CHECK(data.ratings == std::vector<float>{0.5F, 4, 2, 3});
  CHECK(data.times == std::vector<double>{10, 30, 30, 5});
  CHECK(report.rows == 4);
  CHECK(report.bad_rows == 0);
}

TEST_CASE("other separators, typed headers and files without a header", "[data]") {
  const TemporaryDirectory directory;
  ReadOptions options;
  options.order_column = "timestamp";
  const auto atomic = directory.write("a.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\tx\t2.5\nu\ty\t1\n");
  CHECK(items_of(read_interactions(atomic, options), 0) == std::vector<std::string>{"y", "x"});

  options.format = {.separator = "::", .quoted = false, .columns = {"user_id", "item_id", "rating", "timestamp"}};
  const auto ratings = directory.write("ratings.dat", "1::10::5::978300760\n1::20::3::978300000\n");
  CHECK(items_of(read_interactions(ratings, options), 0) == std::vector<std::string>{"20", "10"});

  ReadOptions plain;
  plain.format = {.separator = " ", .quoted = false, .columns = {"user_id", "item_id"}};
  const auto pairs = directory.write("pairs.txt", "1 9\n2 9\n1 3\n\n\n");
  CHECK(items_of(read_interactions(pairs, plain), 0) == std::vector<std::string>{"9", "3"});
}

TEST_CASE("a stray quote costs its own line alone", "[data]") {
  const TemporaryDirectory directory;
  ReadOptions options = movielens_csv_options();
  options.bad_rows = BadRows::skip;
  const std::string stray[]{"\"77,5,3,100\n", "1,\"5,3,100\n", "\"7\"7,5,3,100\n", "1,2\",3,100\n", "\"\"\"\n"};
  for (const char* quote : {"", "\""}) {
    std::string good;
    for (int i = 1; i <= 50; ++i) good += detail::join("1,", quote, i, quote, ",3,9\n");
    for (const std::string& bad : stray) {
      for (const std::string& second : {std::string(), bad, stray[0], stray[2]}) {
        const std::string text = kHeader + good + bad + good + second + good;
        for (const std::string& whole : {text, text.substr(0, text.size() - 1)}) {
          INFO(whole.substr(whole.size() - 20) << bad << second);
          ReadReport report;
          const Interactions data = read_interactions(directory.write("ratings.csv", whole), options, &report);
          const std::int64_t bad_rows = second.empty() ? 1 : 2;
          CHECK(report.bad_rows == bad_rows);
          CHECK(report.rows == 150 + bad_rows);
          CHECK(data.size() == 150);
          REQUIRE(report.bad_row_messages.size() == static_cast<std::size_t>(bad_rows));
          CHECK_THAT(report.bad_row_messages[0], Contains("ratings.csv:52"));
          if (bad_rows == 2) CHECK_THAT(report.bad_row_messages[1], Contains("ratings.csv:103"));
        }
      }
    }
  }
}

TEST_CASE("quoted fields follow RFC 4180", "[data]") {
  const TemporaryDirectory directory;
  const auto path = directory.write(
      "t.csv",
      "a,\"b \"\"x\"\"\",c\r\n\"1, 2\",\"say \"\"hi\"\"\",\"\"\r\n\"two\r\nlines\",,\"\"\"\"\r\nplain,text,here\r\n");
  DelimitedRows rows(path, csv_format());
  CHECK(rows.columns() == std::vector<std::string>{"a", "b \"x\"", "c"});
  REQUIRE(rows.next());
  CHECK(rows.field(0) == "1, 2");
  CHECK(rows.field(1) == "say \"hi\"");
  CHECK(rows.field(2).empty());
  REQUIRE(rows.next());
  CHECK(rows.field(0) == "two\nlines");
  CHECK(rows.field(1).empty());
  CHECK(rows.field(2) == "\"");
  CHECK_THAT(rows.where(), EndsWith(":3"));
  REQUIRE(rows.next());
  CHECK(rows.field(2) == "here");
  CHECK_THAT(rows.where(), EndsWith(":5"));
  CHECK_FALSE(rows.next());
}

TEST_CASE("each kind of bad input gets one sentence with file, line and byte", "[data]") {
  const std::string header = kHeader;
  CHECK_THAT(refusal(""), Contains("is empty"));
  CHECK_THAT(refusal("\n\n"), Contains("is empty"));
  CHECK_THAT(refusal(header), Contains("has no rows"));
  CHECK_THAT(refusal("user,movieId,rating,timestamp\n1,2,3,4\n"),
             Contains("needs a column 'userId'; the columns are user, movieId, rating, timestamp"));
  CHECK_THAT(refusal("userId,movieId,rating,rating\n1,2,3,4\n"), Contains(":1] names the column 'rating' twice"));
  CHECK_THAT(refusal(header + "1,2,3,4\n1,2,3\n"), Contains("ratings.csv:3] needs 4 fields") && Contains("got 3"));
  CHECK_THAT(refusal(header + "1,2,3,4,5\n"), Contains("ratings.csv:2] needs 4 fields") && Contains("got 5"));
  CHECK_THAT(refusal(header + "1,2,3,4\n\n1,3,3,4\n"), Contains("ratings.csv:3] is a blank line"));
  CHECK_THAT(refusal(header + ",2,3,4\n"), Contains("ratings.csv:2:1] needs a userId; got an empty field"));
  CHECK_THAT(refusal(header + "1,,3,4\n"), Contains("ratings.csv:2:3] needs a movieId; got an empty field"));
  for (const std::string bad : {"nan", "inf", "-inf", "1e999", "x", "", "4.0 ", " 4", "+4", "0x4"}) {
    CHECK_THAT(refusal(header + "1,2," + bad + ",4\n"),
               Contains("ratings.csv:2:5] needs a finite number as rating; got '" + bad + "'"));
    CHECK_THAT(refusal(header + "1,2,3," + bad + "\n"),
               Contains("ratings.csv:2:7] needs a finite number as timestamp; got '" + bad + "'"));
  }
  CHECK_THAT(refusal(header + "1,2,3,1234567890123456789\n"),
             Contains("ratings.csv:2:7] needs a timestamp of at most"));
  CHECK_THAT(refusal(header + "1,\"2,3,4\n5,6,7,8\n"), Contains("ratings.csv:2:3] opens a quote that is never closed"));
  CHECK_THAT(refusal(header + "1,2\",3,4\n"), Contains("ratings.csv:2:4] has a quote within an unquoted field"));
  CHECK_THAT(refusal(header + "1,\"2\"x,3,4\n"), Contains("ratings.csv:2:6] has text after a closing quote"));
  ReadOptions rated = movielens_csv_options();
  rated.min_rating = 4;
  CHECK_THAT(refusal(header + "1,2,3,4\n", rated), Contains("has no rows left: 0 are malformed and 1 below"));
  CHECK_THAT(message_of<IoError>([] { read_interactions("/nonexistent/ratings.csv", movielens_csv_options()); }),
             Contains("/nonexistent/ratings.csv"));
  rated.rating_column.clear();
  CHECK_THROWS_AS(read_interactions("any.csv", rated), ValueError);
}

TEST_CASE("gzip data that ends early is refused with file and line", "[data]") {
  std::ifstream whole(TALLY_SOURCE_DIR "/examples/data/ml-latest-small/ratings.csv.gz", std::ios::binary);
  std::stringstream bytes;
  bytes << whole.rdbuf();
  REQUIRE(bytes.str().size() > 100000);
  const TemporaryDirectory directory;
  const auto path = directory.write("cut.csv.gz", bytes.str().substr(0, 100000));
  ReadOptions options = movielens_csv_options();
  options.bad_rows = BadRows::skip;  // which must not hide it
  CHECK_THAT(message_of<IoError>([&] { read_interactions(path, options); }), Contains(path.string() + ":"));
}

TEST_CASE("malformed rows are skipped when asked for, counted and named", "[data]") {
  const TemporaryDirectory directory;
  const std::string text = std::string(kHeader) + "1,a,3,1\n1,b,nan,2\n1,c\n\n2,d,3,x\n3,\"e,1,1\"x,2,2\n1,f,3,0\n";
  const auto path = directory.write("ratings.csv", text);
  ReadOptions options = movielens_csv_options();
  options.bad_rows = BadRows::skip;
  ReadReport report;
  const Interactions data = read_interactions(path, options, &report);
  CHECK(data.num_users() == 1);
  CHECK(data.num_items() == 2);
  CHECK(items_of(data, 0) == std::vector<std::string>{"f", "a"});
  CHECK(report.bad_rows == 5);
  REQUIRE(report.bad_row_messages.size() == 5);
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK_THAT(report.bad_row_messages[i], Contains("ratings.csv:" + std::to_string(i + 3)));
  }
  CHECK_THAT(report.to_text(), Contains("left out: 5 malformed rows"));
}

TEST_CASE("rows below the least rating are left out and counted", "[data]") {
  const TemporaryDirectory directory;
  const auto path = directory.write("ratings.csv", std::string(kHeader) + "1,a,3,1\n2,b,3.5,2\n1,c,4,3\n1,c,5,4\n");
  ReadOptions options = movielens_csv_options();
  options.min_rating = 3.5;
  options.order.duplicates = Duplicates::last;
  ReadReport report;
  const Interactions data = read_interactions(path, options, &report);
  CHECK(data.num_users() == 2);
  CHECK(data.users.name(0) == "2");
  CHECK(data.num_items() == 2);
  CHECK(data.ratings == std::vector<float>{3.5F, 5});
  CHECK(report.rows == 4);
  CHECK(report.below_min_rating == 1);
  CHECK(report.duplicates == 1);
}

TEST_CASE("ratings are compared with the least rating as they were read", "[data]") {
  const TemporaryDirectory directory;
  const auto left_out = [&](const std::string& rating, double least) {
    const auto path = directory.write("ratings.csv", std::string(kHeader) + "1,a," + rating + ",1\n1,b,1e30,2\n");
    ReadOptions options = movielens_csv_options();
    options.min_rating = least;
    ReadReport report;
    read_interactions(path, options, &report);
    return report.below_min_rating;
  };
  // In f32, 0.7, 0.1 and 4.4 lie below the doubles, 0.9, 2^24 + 1 and 0.30000001 are rounded up or down.
  for (const auto& [text, value] : std::vector<std::pair<std::string, double>>{{"0.7", 0.7},
                                                                               {"0.70", 0.7},
                                                                               {"7e-1", 0.7},
                                                                               {"0.9", 0.9},
                                                                               {"0.1", 0.1},
                                                                               {"4.4", 4.4},
                                                                               {"-0.3", -0.3},
                                                                               {"16777217", 16777217},
                                                                               {"-16777217", -16777217},
                                                                               {"1234567890.5", 1234567890.5},
                                                                               {"0", 0},
                                                                               {"-0.0", 0}}) {
    INFO(text);
    CHECK(left_out(text, value) == 0);
    CHECK(left_out(text, std::nextafter(value, 1e30)) == 1);
    CHECK(left_out(text, std::nextafter(value, -1e30)) == 0);
  }
  CHECK(left_out("16777216", 16777217) == 1);
  CHECK(left_out("0.6999999", 0.7) == 1);
  CHECK(left_out("-1", 0) == 1);
  CHECK(left_out("-1e-300", 0) == 1);
  // What is kept is f32: it must hold the rating.
  CHECK_THAT(refusal(std::string(kHeader) + "1,a,1e39,1\n"), Contains("needs a finite number as rating; got '1e39'"));
}

TEST_CASE("times that a double does not tell apart are refused in every spelling", "[data]") {
  const auto time_of = [](const std::string& text) {
    const TemporaryDirectory directory;
    const auto path = directory.write("ratings.csv", std::string(kHeader) + "1,a,3," + text + "\n");
    return read_interactions(path, movielens_csv_options()).times.at(0);
  };
  for (const std::string large :
       {"9007199254740993", "-9007199254740993", "9007199254740993.0", "9007199254740992.5", "9007199254740994",
        "9007199254740994.0", "9.007199254740993e15", "900719925474099.3e1", "1546300800000000005", "1.5e18", "1E16",
        "1546300800000000005.0", "1.546300800000000005e18", "-1.546300800000000005e18", "15463008000000000005",
        "00015463008000000000005", "1e300"}) {
    INFO(large);
    CHECK_THAT(
        refusal(std::string(kHeader) + "1,2,3," + large + "\n"),
        Contains("ratings.csv:2:7] needs a timestamp of at most 2^53, beyond which times are not told apart; got " +
                 large));
  }
  for (const std::string fine : {"1546300800.123456789", "1546300800.12345678", "1.546300800123456789e9",
                                 "0.10000000000000000001", "123456789012345.123", "4503599627370497.25"}) {
    INFO(fine);
    CHECK_THAT(refusal(std::string(kHeader) + "1,2,3," + fine + "\n"),
               Contains("ratings.csv:2:7] needs a timestamp of no more digits than a double holds") && Contains(fine));
  }
  // Whatever was written out of doubles, shortest, with 17 digits or in full, and what is padded with zeros.
  for (const auto& [text, value] :
       std::vector<std::pair<std::string, double>>{{"9007199254740992", 9007199254740992.0},
                                                   {"9007199254740992.0", 9007199254740992.0},
                                                   {"-9007199254740992", -9007199254740992.0},
                                                   {"9.007199254740991e15", 9007199254740991.0},
                                                   {"1546300800.123456", 1546300800.123456},
                                                   {"1546300800.1234567", 1546300800.1234567},
                                                   {"1546300800.12345671653747558594", 1546300800.1234567},
                                                   {"1546300800.500000000000000000000", 1546300800.5},
                                                   {"0.10000000000000001", 0.1},
                                                   {"000000000000000000000000012.5", 12.5},
                                                   {"8.74965758e8", 874965758},
                                                   {"0.00000000000000000000000000001", 1e-29},
                                                   {"0.0", 0}}) {
    INFO(text);
    CHECK(time_of(text) == value);
  }
}

TEST_CASE("ids that lines, cells and JSON could not hold are refused where they are read", "[data]") {
  for (int byte = 0; byte < 256; ++byte) {
    const bool control = byte < 0x20 || byte == 0x7f;
    const std::string id = "a" + std::string(1, static_cast<char>(byte)) + "b";
    INFO(byte);
    CHECK((fault_of_id(id) == "without control characters, tabs and line breaks") == control);
    CHECK((fault_of_id(id) == "in UTF-8") == (byte >= 0x80));
  }
  for (const char* fine :
       {" ", "a b", "\"", "\\", "caf\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8e\xb5", "a\xEF\xBB\xBFz", "-"}) {
    CHECK(fault_of_id(fine).empty());
  }
  for (const char* bad : {"\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xff\xfe", "caf\xe9"})
    CHECK(fault_of_id(bad) == "in UTF-8");
  for (const char* control : {"A\xc2\x9b"
                              "31m",
                              "b\xc2\x85", "\xc2\x80"}) {
    CHECK(fault_of_id(control) == "without control characters, tabs and line breaks");
  }
  CHECK(fault_of_id("\xEF\xBB\xBFz") == "without a byte order mark");

  const std::string header = kHeader;
  const std::string nul("n\0l", 3);
  CHECK_THAT(
      refusal(header + "1,2,3,4\n" + nul + ",2,3,4\n"),
      Contains("ratings.csv:3:1] needs a userId without control characters, tabs and line breaks; got 'n\\x00l'"));
  CHECK_THAT(refusal(header + "1,\"x\ty\",3,4\n"),
             Contains("ratings.csv:2:3] needs a movieId") && Contains("'x\\x09y'"));
  CHECK_THAT(refusal(header + "1,\"x\r\ny\",3,4\n"),
             Contains("ratings.csv:2:3] needs a movieId") && Contains("\\x0ay"));
  CHECK_THAT(refusal(header + "caf\xe9,2,3,4\n"), Contains("ratings.csv:2:1] needs a userId in UTF-8"));
  // The second of two files that were put one behind the other.
  CHECK_THAT(refusal(header + "1,2,3,4\n\xEF\xBB\xBF" + "1,3,3,4\n"),
             Contains("ratings.csv:3:1] needs a userId without a byte order mark"));
  const TemporaryDirectory directory;
  ReadOptions skipping = movielens_csv_options();
  skipping.bad_rows = BadRows::skip;
  ReadReport report;
  const auto path = directory.write("ratings.csv", header + "1,2,3,4\n" + nul + ",2,3,4\n1,\x7f,3,4\n");
  const Interactions data = read_interactions(path, skipping, &report);
  CHECK(data.num_users() == 1);
  CHECK(data.num_items() == 1);
  CHECK(report.bad_rows == 2);
  // Other columns may hold anything.
  const auto noted = directory.write("noted.csv", "userId,movieId,rating,timestamp,note\n1,2,3,4,\"a\tb\nc\"\n");
  CHECK(read_interactions(noted, movielens_csv_options()).size() == 1);
}

TEST_CASE("a byte order mark is skipped wherever text comes in", "[data]") {
  const TemporaryDirectory directory;
  const std::string mark = "\xEF\xBB\xBF";
  const auto quoted = directory.write("ratings.csv", mark + "\"userId\",movieId,rating,timestamp\n1,2,3,4\n");
  CHECK(read_interactions(quoted, movielens_csv_options()).size() == 1);
  const auto zipped = directory.write("ratings.csv.gz", tally::gzip(mark + kHeader + "1,2,3,4\n"));
  CHECK(read_interactions(zipped, movielens_csv_options()).size() == 1);
  ReadOptions plain;
  plain.format = {.separator = " ", .quoted = false, .columns = {"user_id", "item_id"}};
  const Interactions pairs = read_interactions(directory.write("pairs.txt", mark + "u a\nu b\n"), plain);
  CHECK(pairs.num_users() == 1);
  CHECK(read_titles(directory.write("movies.csv", mark + "movieId,title\n1,a\n")).at("1") == "a");
  CHECK(read_titles(directory.write("movies.csv", "movieId,title\n1,\"a\tb\nc\"\n")).at("1") == "a b c");
  CHECK(read_json(directory.write("config.json", mark + "{\"a\": 1}")).at("a").as_integer() == 1);
}

TEST_CASE("titles of the shipped data set", "[data]") {
  const auto titles = read_titles(TALLY_SOURCE_DIR "/examples/data/ml-latest-small/movies.csv.gz");
  CHECK(titles.size() == 9742);
  CHECK(titles.at("1") == "Toy Story (1995)");
  CHECK(titles.at("11") == "American President, The (1995)");
  const TemporaryDirectory directory;
  // Files of MovieLens 1M and 100K, in Latin-1: e acute is the one byte E9.
  const auto dat = directory.write("movies.dat", "7::Caf\xe9 (1990)::Drama|Comedy\n8::na\xc3\xafve::Drama\n");
  CHECK(read_titles(dat, title_options_of(dat)).at("7") == "Caf\xc3\xa9 (1990)");
  CHECK(read_titles(dat, title_options_of(dat)).at("8") == "na\xc3\xafve");
  const auto u_item =
      directory.write("u.item", "1|Toy \"Story\"|01-Jan-1995||http|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n");
  CHECK(read_titles(u_item, title_options_of(u_item)).at("1") == "Toy \"Story\"");
  const auto tsv = directory.write("items.tsv", "title\titem_id\nA\tx\n");
  CHECK(read_titles(tsv, title_options_of(tsv)).at("x") == "A");
  const auto twice = directory.write("movies.csv", "movieId,title\n1,a\n1,b\n");
  CHECK_THAT(message_of<IoError>([&] { read_titles(twice); }), Contains(":3:1] gives a second title for '1'"));
}

}  // namespace tally::recsys::delimited_reader_test
