// Every form of file is read through a config, plain and gzip'd, and refused with file and line when it is bad.
#include "tally/recsys/run/run_data.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "tally/core/io/gzip.h"
#include "tally/recsys/run/data_report.h"
#include "tests/support/temporary_directory.h"

namespace tally::recsys::run_data_test {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using tally::gzip;
using tally::test::message_of;
using tally::test::TemporaryDirectory;

/// Three users with the items a b c, c a b and b c a b, in each form; times out of order where there are times.
const std::string kCsv =
    "user_id,item_id,timestamp\r\n\"u1\",a,1\r\nu1,c,3\r\nu2,c,5\r\nu1,b,2\r\nu2,b,9\r\nu2,a,8\r\nu3,b,1\r\nu3,c,2\r\n"
    "u3,a,3\r\nu3,\"b\",4\r\n";
const std::string kTsv =
    "item_id\tposition\tuser_"
    "id\na\t1\tu1\nc\t3\tu1\nb\t2\tu1\nc\t1\tu2\na\t2\tu2\nb\t3\tu2\nb\t1\tu3\nc\t2\tu3\na\t3\tu3\n"
    "b\t4\tu3\n";
const std::string kInter =
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\ta\t5\t1\nu1\tc\t5\t2."
    "5\nu1\tb\t1\t2\nu2\tc\t4\t5\n"
    "u2\ta\t4\t6\nu2\tb\t4\t7\nu3\tb\t4\t5\nu3\tc\t4\t6\nu3\ta\t4\t7\nu3\tb\t4\t8\n";
const std::string kMovieLens =
    "u1::a::5::1\nu1::c::5::4\nu1::b::4::2\nu2::c::4::5\nu2::a::4::6\nu2::b::4::7\nu3::b::4::5\nu3::c::4::6\nu3::a::4::"
    "7\n"
    "u3::b::4::8\n";
const std::string kUserItem = "u1 a\nu1 b\nu1 c\nu2 c\nu2 a\nu2 b\nu3 b\nu3 c\nu3 a\nu3 b\n";

std::string sequences(const Interactions& data) {
  std::string text;
  for (std::int32_t user = 0; user < data.num_users(); ++user) {
    text += std::string(data.users.name(user)) + ':';
    for (const std::int32_t item : data.sequence(user)) text += std::string(data.items.name(item));
    text += ' ';
  }
  return text;
}

/// The data section of a config that names the file, with further members.
DataConfig config_of(const std::filesystem::path& path, const std::string& further = "") {
  return parse_config(parse_json(R"({"data": {"path": ")" + path.string() + '"' + further + "}}")).data;
}

/// What the config reads of a file of that name and text.
std::string read(const std::string& name, const std::string& text, const std::string& further = "") {
  const TemporaryDirectory directory;
  return sequences(*load_run_data(config_of(directory.write(name, text), further)).interactions);
}

/// The message of the IoError that the config ends with, which names the file.
std::string refusal(const std::string& name, const std::string& text, const std::string& further = "") {
  const TemporaryDirectory directory;
  const auto path = directory.write(name, text);
  const std::string message = message_of<IoError>([&] { load_run_data(config_of(path, further)); });
  CHECK_THAT(message, StartsWith("[" + path.string()));
  CHECK(message.find('\n') == std::string::npos);
  return message.substr(message.find(name));
}

}  // namespace

TEST_CASE("every form of file is a config of two lines, plain and gzip'd", "[data]") {
  const std::string expected = "u1:abc u2:cab u3:bcab ";
  struct Form {
    std::string name, text, further;
  };
  const std::vector<Form> forms = {
      {"ratings.csv", kCsv, ""},     {"interactions.tsv", kTsv, R"(, "TIME_FIELD": "position")"},
      {"beauty.inter", kInter, ""},  {"ratings.dat", kMovieLens, ""},
      {"Beauty.txt", kUserItem, ""}, {"no-extension", kUserItem, R"(, "format": "user_item")"}};
  for (const Form& form : forms) {
    INFO(form.name);
    CHECK(read(form.name, form.text, form.further) == expected);
    CHECK(read(form.name + ".gz", gzip(form.text), form.further) == expected);
  }
}

TEST_CASE("separator, columns and order of a file may be named", "[data]") {
  CHECK(read("u.data", "u1\ta\t5\t2\nu1\tb\t5\t1\nu1\tc\t5\t1\n",
             R"(, "columns": ["user_id", "item_id", "rating", "timestamp"])") == "u1:bca ");
  // Without a column of times among those that are named, the file is in order.
  CHECK(read("u.data", "a\tu1\nc\tu1\nb\tu1\n", R"(, "columns": ["item_id", "user_id"])") == "u1:acb ");
  CHECK(read("ratings.csv", kCsv, R"(, "TIME_FIELD": "")") == "u1:acb u2:cba u3:bcab ");
  CHECK(read("x.txt", "user;item\n\"u;1\";a\n\"u;1\";b\n\"u;1\";c\n",
             R"(, "format": "csv", "separator": ";", "USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item",
                  "TIME_FIELD": "")") == "u;1:abc ");
  CHECK(read("x.txt", "u1|\"a\nu1|b\nu1|c\n", R"(, "separator": "|")") == "u1:\"abc ");
}

TEST_CASE("ids that a run's files could not hold are refused before any work", "[data]") {
  const TemporaryDirectory directory;
  for (const auto& [user, item, what] :
       {std::tuple{"u9", "b\n", "data.csv:12:6] needs a item_id without control characters, tabs and line breaks"},
        {"u\t9", "b", "data.csv:12:1] needs a user_id without control characters, tabs and line breaks"},
        {"u9", "\xEF\xBB\xBFz", "data.csv:12:6] needs a item_id without a byte order mark"},
        {"u9", "caf\xe9", "data.csv:12:6] needs a item_id in UTF-8"}}) {
    const DataConfig config =
        config_of(directory.write("data.csv", kCsv + detail::join('"', user, "\",\"", item, "\",1\n")));
    CHECK_THAT(message_of<IoError>([&] { read_run_data(config); }), Contains(what));
    CHECK_THAT(message_of<IoError>([&] { load_run_data(config); }), Contains(what));
  }
}

TEST_CASE("a least rating of zero is one, and none is null", "[data]") {
  const TemporaryDirectory directory;
  std::string text = "user_id,item_id,rating,timestamp\n";
  for (int user = 0; user < 4; ++user) {
    for (const int rating : {-1, 8, 0, -2, 7, 9, 0}) {
      const auto place = std::to_string(text.size());
      text += "u" + std::to_string(user) + ",i" + place + ',' + std::to_string(rating) + ',' + place + '\n';
    }
  }
  const auto path = directory.write("r.csv", text);
  const auto left_out = [&](const std::string& further) {
    const DataConfig config = config_of(path, R"(, "RATING_FIELD": "rating")" + further);
    const std::int64_t count = load_run_data(config).report.below_min_rating;
    CHECK((data_rules(config).find("ratings from") != std::string::npos) == config.min_rating.has_value());
    return count;
  };
  CHECK(left_out("") == 0);
  CHECK(left_out(R"(, "min_rating": null)") == 0);
  CHECK(left_out(R"(, "min_rating": 0)") == 8);
  CHECK(left_out(R"(, "min_rating": -0.0)") == 8);
  CHECK(left_out(R"(, "min_rating": -1)") == 4);
  CHECK(left_out(R"(, "min_rating": -1.5)") == 4);
  CHECK(left_out(R"(, "min_rating": -2)") == 0);
  CHECK(left_out(R"(, "min_rating": 0.5)") == 16);
  CHECK_THAT(data_rules(config_of(path, R"(, "RATING_FIELD": "rating", "min_rating": 0)")), Contains("ratings from 0"));

  // Without ratings 0 is none, as configs of before wrote it; another least rating has nothing to compare with.
  CHECK_FALSE(config_of(path, R"(, "min_rating": 0)").min_rating.has_value());
  CHECK_FALSE(config_of(path, R"(, "min_rating": 0.0)").min_rating.has_value());
  CHECK_THROWS_WITH(config_of(path, R"(, "min_rating": -1)"), Contains("needs data.RATING_FIELD"));
  CHECK_THROWS_WITH(config_of(path, R"(, "RATING_FIELD": "rating", "min_rating": "NaN")"), Contains("finite"));
  CHECK_THROWS_AS(config_of(path, R"(, "RATING_FIELD": "rating", "min_rating": "0")"), ConfigError);

  // What a run records reads back to the same.
  for (const char* value : {"null", "0", "-1", "3.5"}) {
    const std::string json =
        R"({"data": {"path": "r.csv", "RATING_FIELD": "rating", "min_rating": )" + std::string(value) + "}}";
    const RunConfig config = parse_config(parse_json(json));
    const Json recorded = to_json(config).at("data").at("min_rating");
    CHECK(recorded.is(Json::Kind::null) == (std::string(value) == "null"));
    CHECK(parse_config(parse_json(to_json(config).dump())).data.min_rating == config.data.min_rating);
  }
}

TEST_CASE("rules for equal times", "[data]") {
  std::string text = "user_id,item_id,timestamp\n";
  for (int i = 39; i >= 0; --i) text += "u," + std::to_string(i) + ",7\n";
  std::string by_id = "u:", by_file = "u:";
  for (int i = 0; i < 40; ++i) by_id += std::to_string(i), by_file += std::to_string(39 - i);
  CHECK(read("r.csv", text) == by_file + ' ');
  CHECK(read("r.csv", text, R"(, "tie_rule": "item_id")") == by_id + ' ');
  const std::string drawn = read("r.csv", text, R"(, "tie_rule": "random", "tie_seed": 3)");
  CHECK(drawn == read("r.csv", text, R"(, "tie_rule": "random", "tie_seed": 3)"));
  CHECK(drawn != read("r.csv", text, R"(, "tie_rule": "random", "tie_seed": 4)"));
  CHECK(drawn.size() == by_id.size() + 1);
  CHECK(drawn != by_id + ' ');
  CHECK(drawn != by_file + ' ');
  // Times go before draws.
  CHECK(read("ratings.csv", kCsv, R"(, "tie_rule": "random")") == "u1:abc u2:cab u3:bcab ");
}

TEST_CASE("filters of a config are applied, reported and part of the rules", "[data]") {
  const TemporaryDirectory directory;
  const auto path = directory.write("Beauty.txt", kUserItem + "u4 a\nu4 d\nu4 b\n");
  const std::string filters = R"x(, "user_inter_num_interval": "[3,inf)", "item_inter_num_interval": "[2,inf)")x";
  const DataConfig config = config_of(path, filters + R"(, "core": "one_pass")");
  const RunData data = load_run_data(config);
  CHECK(sequences(*data.interactions) == "u1:abc u2:cab u3:bcab u4:ab ");
  CHECK(data.filters.items == 1);
  CHECK(data.filters.users == 0);
  CHECK(data.filters.events == 1);
  CHECK(data_rules(config) ==
        "events by place in the file, users of [3,inf) events, items of [2,inf) events (one_pass)");
  const RunData core = load_run_data(config_of(path, filters));
  CHECK(sequences(*core.interactions) == "u1:abc u2:cab u3:bcab ");
  CHECK(core.filters.rounds == 2);
  CHECK_THAT(refusal("x.txt", kUserItem, R"x(, "user_inter_num_interval": "[5,inf)")x"),
             Contains("has no event that the filters leave"));
  CHECK_THROWS_WITH(
      config_of(path, R"x(, "user_inter_num_interval": "5")x"),
      Contains("[data.user_inter_num_interval] needs counts such as \"[5,inf)\"") && Contains("got \"5\""));
  CHECK_THROWS_AS(config_of(path, R"(, "format": "movielense")"), ConfigError);
  CHECK_THROWS_WITH(config_of(path, R"(, "core": "one-pass")"), Contains("one_pass"));
}

TEST_CASE("bad rows of every form are refused with file and line", "[data]") {
  CHECK_THAT(refusal("r.csv", kCsv + "u4,a\n"), StartsWith("r.csv:12] needs 3 fields as the header has; got 2"));
  CHECK_THAT(refusal("r.csv", kCsv + "u4,a,x\n"),
             StartsWith("r.csv:12:6] needs a finite number as timestamp; got 'x'"));
  CHECK_THAT(refusal("r.csv", kCsv + "u4,\"a,1\n"), StartsWith("r.csv:12:4] opens a quote"));
  CHECK_THAT(refusal("r.tsv", kTsv),
             Contains("needs a column 'timestamp'; the columns are item_id, position, user_id"));
  CHECK_THAT(refusal("r.tsv.gz", gzip(kTsv + "\t1\tu4\n"), R"(, "TIME_FIELD": "position")"),
             StartsWith("r.tsv.gz:12:1] needs a item_id; got an empty field"));
  CHECK_THAT(refusal("r.inter", kInter + "u4\ta\t1\n"), StartsWith("r.inter:12] needs 4 fields"));
  CHECK_THAT(refusal("r.inter", kUserItem), Contains("needs a column 'user_id'; the columns are u1 a"));
  CHECK_THAT(refusal("ratings.dat", kMovieLens + "1:2:3:4\n"),
             StartsWith("ratings.dat:11] needs 4 fields (user_id, item_id, rating, timestamp); got 1"));
  CHECK_THAT(refusal("ratings.dat", kMovieLens + "u4::a::x::4\n", R"(, "RATING_FIELD": "rating")"),
             StartsWith("ratings.dat:11:8] needs a finite number as rating; got 'x'"));
  CHECK_THAT(refusal("x.txt", kUserItem + "u4\n"), StartsWith("x.txt:11] needs 2 fields (user_id, item_id); got 1"));
  CHECK_THAT(refusal("x.txt", kUserItem + "u4 a b\n"),
             StartsWith("x.txt:11] needs 2 fields (user_id, item_id); got 3"));
  CHECK_THAT(refusal("x.txt", kUserItem + " a\n"), StartsWith("x.txt:11:1] needs a user_id; got an empty field"));
  CHECK_THAT(refusal("x.txt", "u1 a\n\nu1 b\n"), StartsWith("x.txt:2] is a blank line"));
  CHECK_THAT(refusal("x.txt", ""), Contains("has no rows"));
  CHECK_THAT(refusal("x.txt", "u1 a\nu1 b\n"), Contains("has no user with 3 events or more"));
  const std::string whole = gzip(kUserItem);
  CHECK_THAT(refusal("x.txt.gz", whole.substr(0, whole.size() - 9)), StartsWith("x.txt.gz:"));
}

TEST_CASE("bad rows of every form are skipped when asked for, counted and named", "[data]") {
  struct Form {
    std::string name, text, bad, further;
    int line;
  };
  const std::vector<Form> forms = {{"r.csv", kCsv, "u4,a\n", "", 12},
                                   {"r.tsv", kTsv, "a\tx\tu4\n", R"(, "TIME_FIELD": "position")", 12},
                                   {"r.inter", kInter, "u4\ta\t1\tnan\n", "", 12},
                                   {"r.dat", kMovieLens, "u4::a\n", "", 11},
                                   {"r.txt", kUserItem, "u4  a\n", "", 11}};
  for (const Form& form : forms) {
    const TemporaryDirectory directory;
    const auto path = directory.write(form.name, form.text + form.bad);
    const RunData data = load_run_data(config_of(path, R"(, "bad_rows": "skip")" + form.further));
    CHECK(sequences(*data.interactions) == "u1:abc u2:cab u3:bcab ");
    CHECK(data.report.bad_rows == 1);
    REQUIRE(data.report.bad_row_messages.size() == 1);
    CHECK_THAT(data.report.bad_row_messages[0], Contains(form.name + ':' + std::to_string(form.line)));
  }
}

TEST_CASE("a report of data says what it is and what was left out", "[data]") {
  const TemporaryDirectory directory;
  const auto path = directory.write("Beauty.txt", kUserItem + "u4 a\nu4 d\nbad\n");
  const DataConfig config = config_of(path, R"x(, "bad_rows": "skip", "item_inter_num_interval": "[2,inf)")x");
  const RunData data = read_run_data(config);
  const DataReport report = describe(config, data);
  CHECK(report.statistics.users == 4);
  CHECK(report.statistics.events == 11);
  CHECK(report.test_users == 3);
  CHECK(report.training_events == 1 + 1 + 2 + 1);
  CHECK(report.unreachable_targets == 0);
  CHECK_THAT(report.to_text(), Contains("left out: 1 malformed rows") && Contains("Beauty.txt:13]") &&
                                   Contains("left out by counts: 0 users, 1 items, 1 events in 1 round\n") &&
                                   Contains("content sha256 " + data.hash));
  const Json json = report.to_json();
  CHECK(json.at("filters").at("items").as_integer() == 1);
  CHECK(json.at("reading").at("bad_rows").as_integer() == 1);
  CHECK(json.at("content_sha256").as_string() == data.hash);
  CHECK(json.at("tied_pairs").is(Json::Kind::null));
}

TEST_CASE("targets that are never trained on are unreachable", "[data]") {
  const TemporaryDirectory directory;
  const auto path = directory.write("x.txt", "1 a\n1 b\n1 c\n2 c\n2 a\n2 z\n3 b\n3 a\n3 c\n");
  const RunData data = read_run_data(config_of(path));
  CHECK(count_unreachable(*data.split, Part::test) == 1);
  // Nothing but a, b and c is trained on; validation items b, a and a are.
  CHECK(count_unreachable(*data.split, Part::validation) == 0);
}

TEST_CASE("a file that a model was trained on gives the histories that it was trained on", "[data][recommend]") {
  struct Form {
    std::string name, text, further;
  };
  std::string unsorted = "user_id,rating,item_id,timestamp\n";
  for (int row = 0; row < 400; ++row) {
    const int item = row * 7 % 23, user = row * 5 % 11, rating = row % 6 - 2, time = row * 37 % 40;
    unsorted += detail::join('u', user, ',', rating, ",i", item, ',', time, '\n');
  }
  const auto with = [](std::string text, char separator) {
    std::replace(text.begin(), text.end(), ',', separator);
    return text;
  };
  const std::string bare = unsorted.substr(unsorted.find('\n') + 1);
  const std::string rated = R"(, "RATING_FIELD": "rating", "min_rating": 0)";
  const std::vector<Form> forms = {
      {"ratings.csv", kCsv, ""},
      {"beauty.inter", kInter, ""},
      {"ratings.dat", kMovieLens, ""},
      {"Beauty.txt", kUserItem, ""},
      {"interactions.tsv", kTsv, R"(, "TIME_FIELD": "position")"},
      {"r.csv", unsorted, ""},
      {"r.csv", unsorted, R"(, "TIME_FIELD": "")"},
      {"r.csv", unsorted, R"(, "tie_rule": "item_id")" + rated},
      {"r.csv", unsorted, R"(, "tie_rule": "random", "tie_seed": 5)"},
      {"r.csv", unsorted, R"(, "tie_rule": "random", "tie_seed": 5)" + rated},
      {"r.csv", unsorted, R"(, "rm_dup_inter": "first")" + rated},
      {"r.csv", unsorted, R"(, "rm_dup_inter": "last", "tie_rule": "random")"},
      {"r.csv", unsorted + "u1,1,i1\nu1,x,i1,2\n,1,i1,1\n", R"(, "bad_rows": "skip", "tie_rule": "random")" + rated},
      {"r.dat", with(unsorted, ';'), R"(, "format": "csv", "separator": ";")"},
      {"u.data", with(bare, '\t'), R"(, "columns": ["user_id", "rating", "item_id", "timestamp"])"},
      {"r.txt", with(bare, '|'), R"(, "separator": "|", "columns": ["user_id", "rating", "item_id", "timestamp"])"},
      {"r.csv", with(bare, ' '),
       R"(, "separator": " ", "columns": ["who", "r", "what", "when"], "USER_ID_FIELD": "who", "ITEM_ID_FIELD": "what",
          "TIME_FIELD": "when", "RATING_FIELD": "r", "min_rating": 1)"}};
  for (const Form& form : forms) {
    const TemporaryDirectory directory;
    for (const bool zipped : {false, true}) {
      INFO(form.name << form.further << zipped);
      const auto path = directory.write(form.name + (zipped ? ".gz" : ""), zipped ? gzip(form.text) : form.text);
      const DataConfig config = config_of(path, form.further);
      const RunData data = load_run_data(config);
      const Histories histories = read_histories(path, data.interactions->items, history_options(config));
      REQUIRE(histories.users.size() == data.interactions->num_users());
      for (std::int32_t user = 0; user < histories.users.size(); ++user) {
        CHECK(histories.users.name(user) == data.interactions->users.name(user));
        const auto given = histories.sequences.sequence(user), trained = data.interactions->sequence(user);
        CHECK(std::vector(given.begin(), given.end()) == std::vector(trained.begin(), trained.end()));
      }
      CHECK(histories.report.to_text() == data.report.to_text());
    }
  }
}

TEST_CASE("items that filters took out do not change the order of the others in histories", "[data][recommend]") {
  std::string text = "user_id\titem_id\ttimestamp\n";
  for (int row = 0; row < 300; ++row) text += detail::join('u', row % 9, "\ti", row * row % 61, "\t7\n");
  const TemporaryDirectory directory;
  const auto path = directory.write("r.tsv", text);
  const DataConfig config = config_of(
      path, R"x(, "tie_rule": "random", "item_inter_num_interval": "[6,inf)", "user_inter_num_interval": "[3,inf)")x");
  const RunData data = load_run_data(config);
  REQUIRE(data.filters.items > 0);
  HistoryOptions options = history_options(config);
  CHECK_THROWS_AS(read_histories(path, data.interactions->items, options), IoError);
  options.unknown = UnknownItems::skip;
  const Histories histories = read_histories(path, data.interactions->items, options);
  CHECK(histories.unknown_items > 0);
  for (std::int32_t user = 0; user < data.interactions->num_users(); ++user) {
    const auto given = histories.sequences.sequence(*histories.users.find(data.interactions->users.name(user)));
    const auto trained = data.interactions->sequence(user);
    CHECK(std::vector(given.begin(), given.end()) == std::vector(trained.begin(), trained.end()));
  }
}

}  // namespace tally::recsys::run_data_test
