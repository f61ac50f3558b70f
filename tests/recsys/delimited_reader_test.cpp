#include "tally/recsys/data/delimited_reader.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "tally/recsys/data/titles.h"
#include "tests/support/temporary_directory.h"

namespace tally::recsys {
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

}  // namespace tally::recsys
