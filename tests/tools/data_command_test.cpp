// `tally data stats` and `tally recommend --input`.
#include <algorithm>
#include <catch2/catch.hpp>
#include <sstream>

#include "tally/core/blas.h"
#include "tally/core/io/file.h"
#include "tests/tools/small_runs.h"

namespace data_command_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

/// The cells of a table, its header line first.
std::vector<std::vector<std::string>> table(const std::string& text) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    rows.emplace_back();
    std::size_t begin = 0;
    for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
      end = line.find('\t', begin);
      rows.back().push_back(line.substr(begin, end - begin));
    }
  }
  return rows;
}

CommandResult recommend(const std::vector<std::string>& arguments) {
  std::vector<std::string> all{"recommend", finished().run()};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return tally_command(all);
}

/// The rows for one user of what `recommend --input` printed.
std::vector<std::vector<std::string>> rows_of(const std::string& text, const std::string& user) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& row : table(text)) {
    if (row[0] == user) rows.push_back(row);
  }
  return rows;
}

}  // namespace

TEST_CASE("recommend gives users of a file what it gives their history", "[recommend]") {
  const TemporaryDirectory directory;
  const fs::path input =
      directory.write("histories.tsv", "user_id\titem_id\nnew\t5\nother\t7\nnew\t6\nnobody\t\nnew\t8\n");
  for (const std::string seen : {"--filter-seen", "--no-filter-seen"}) {
    const CommandResult result = recommend({"--input", input, "--k", "12", seen});
    INFO(result.error);
    REQUIRE(result.exit_code == 0);
    const auto all = table(result.out);
    CHECK(all[0] == std::vector<std::string>{"user_id", "item_id", "score", "rank", "title", "ranker"});
    REQUIRE(all.size() == 1 + 3 * 12);
    CHECK(all[1][0] == "new");
    CHECK(all[13][0] == "other");
    CHECK(all[25][0] == "nobody");
    for (const auto& [user, history] : std::map<std::string, std::string>{{"new", "5,6,8"}, {"other", "7"}}) {
      const auto expected = table(recommend({"--history", history, "--k", "12", seen}).out);
      const auto rows = rows_of(result.out, user);
      REQUIRE(rows.size() == 12);
      for (std::size_t r = 0; r < 12; ++r) {
        CHECK(rows[r][1] == expected[r + 1][1]);
        CHECK(rows[r][2] == expected[r + 1][2]);
        CHECK(rows[r][3] == std::to_string(r + 1));
        CHECK(rows[r][4] == "Film, number " + rows[r][1]);
      }
    }
  }
  // All that is left is given, in order of score, and --out holds what is printed otherwise.
  const CommandResult whole = recommend({"--input", input, "--k", "100"});
  CHECK(rows_of(whole.out, "new").size() == kItems - 3);
  CHECK(rows_of(whole.out, "nobody").size() == kItems);
  const auto best = rows_of(recommend({"--input", input, "--k", "4"}).out, "new");
  const auto rows = rows_of(whole.out, "new");
  CHECK(best == std::vector<std::vector<std::string>>(rows.begin(), rows.begin() + 4));
  const CommandResult written = recommend({"--input", input, "--k", "100", "--out", directory / "out.tsv"});
  CHECK(written.exit_code == 0);
  CHECK(written.out.empty());
  CHECK(read_file(directory / "out.tsv") == whole.out);
}

TEST_CASE("recommend gives a user of the data what the run wrote down", "[recommend]") {
  const std::string run = finished().run();
  std::string text;
  std::istringstream lines(walks_csv());
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    const std::size_t comma = line.find(',');
    text += line.substr(0, comma) + ' ' + line.substr(comma + 1, line.find(',', comma + 1) - comma - 1) + '\n';
  }
  const TemporaryDirectory directory;
  const CommandResult result = recommend({"--input", directory.write("users.txt", text)});
  const auto given = table(result.out);
  const auto recorded = table(read_file(fs::path(run) / "recommendations.tsv"));
  REQUIRE(given.size() == recorded.size());
  for (std::size_t i = 1; i < given.size(); ++i) {
    CHECK(given[i][0] == recorded[i][0]);
    CHECK(given[i][1] == recorded[i][1]);
    CHECK(given[i][3] == recorded[i][3]);
  }
}

TEST_CASE("recommend refuses bad files of histories", "[recommend]") {
  const TemporaryDirectory directory;
  const std::string unknown = directory.write("h.tsv", "user_id\titem_id\nnew\t5\nnew\t4711\n");
  check_refused(recommend({"--input", unknown}), 1, {"h.tsv:3:5] needs an item", "'4711'"});
  check_refused(recommend({"--input", unknown, "--out", directory / "out.tsv"}), 1, {"'4711'"});
  CHECK_FALSE(fs::exists(directory / "out.tsv"));
  const CommandResult skipped = recommend({"--input", unknown, "--unknown-items", "skip", "--k", "3"});
  CHECK(skipped.exit_code == 0);
  CHECK_THAT(skipped.error, Contains("left out: 1 rows") && Contains("h.tsv:3:5]"));
  CHECK(rows_of(skipped.out, "new").size() == 3);
  check_refused(recommend({"--input", directory / "none.tsv"}), 1, {"none.tsv"});
  check_refused(recommend({"--input", unknown, "--history", "5"}), 2, {"one of the four"});
  check_refused(recommend({"--input", unknown, "--unknown-items", "keep"}), 2, {"--unknown-items"});
  const std::string good = directory.write("good.tsv", "user_id\titem_id\nnew\t5\n");
  check_refused(recommend({"--input", good, "--out", directory / "none/out.tsv"}), 1, {"none/", "cannot open"});
}

TEST_CASE("data stats prints the figures of a config or a file", "[data]") {
  const CommandResult of_config = tally_command({"data", "stats", finished().config()});
  INFO(of_config.error);
  REQUIRE(of_config.exit_code == 0);
  CHECK_THAT(of_config.out, Contains("users 60  items 40  events ") && Contains("content sha256 ") &&
                                Contains("ties in time: 0 ") && Contains("unreachable test targets") &&
                                Contains("events by timestamp, equal ones by file_order"));
  const CommandResult of_file = tally_command(
      {"data", "stats", finished().data(), "--USER_ID_FIELD=userId", "--ITEM_ID_FIELD=movieId", "--json"});
  INFO(of_file.error);
  REQUIRE(of_file.exit_code == 0);
  const Json json = parse_json(of_file.out);
  CHECK(json.at("users").as_integer() == kUsers);
  CHECK(json.at("items").as_integer() == kItems);
  CHECK(json.at("repeats").as_integer() >= 0);
  CHECK(json.at("git_blob").as_string().size() == 40);
  // It is the same data that the run was trained on.
  const Json recorded = read_json(fs::path(finished().run()) / "data.json");
  CHECK(json.at("content_sha256") == recorded.at("content_sha256"));
  CHECK(json.at("events") == recorded.at("events"));
  const CommandResult filtered =
      tally_command({"data", "stats", finished().config(), "--user_inter_num_interval=[20,inf)"});
  CHECK_THAT(filtered.out, Contains("left out by counts: ") && Contains("users of [20,inf) events (iterative)"));
}

TEST_CASE("data stats reads what no model could be trained on", "[data]") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("pairs.txt", "1 a\n2 b\n2 b\n");
  const CommandResult result = tally_command({"data", "stats", path});
  CHECK(result.exit_code == 0);
  CHECK_THAT(result.out, Contains("users 2  items 2  events 3  density 75.000%") && Contains("repeats 1") &&
                             Contains("fewer than three 2") && Contains("0 test users") &&
                             Contains("ties in time: unknown"));
  check_refused(tally_command({"data", "stats", path, "--format=tsv"}), 1, {"pairs.txt]", "the columns are 1 a"});
  check_refused(tally_command({"data", "stats", path, "--core=onepass"}), 2, {"core", "one_pass"});
  check_refused(tally_command({"data", "stats", directory / "none.tsv"}), 1, {"none.tsv"});
  check_refused(tally_command({"data", "stats", path, "user"}), 2, {"user"});
}

TEST_CASE("data stats tells data sets apart whose lines are the same", "[data]") {
  const TemporaryDirectory directory;
  const auto figures = [&](const std::string& text) {
    const CommandResult result = tally_command({"data", "stats", directory.write("r.tsv", text), "--json"});
    INFO(result.error);
    REQUIRE(result.exit_code == 0);
    return parse_json(result.out);
  };
  const std::string header = "user_id\titem_id\ttimestamp\n";
  const Json a = figures(header + "u1 x\ti1\t0\nu2\ti2\t0\n"), b = figures(header + "u1\tx i1\t0\nu2\ti2\t0\n");
  CHECK(a.at("git_blob") == b.at("git_blob"));
  CHECK_FALSE(a.at("content_sha256") == b.at("content_sha256"));
  CHECK(figures(header + "u2\ti2\t0\nu1\tx i1\t0\n").at("content_sha256") == b.at("content_sha256"));
  CHECK_FALSE(figures(header + "u2\ti2\t0\nu1\tx i1\t1\n").at("content_sha256") == b.at("content_sha256"));
}

TEST_CASE("data stats leaves out what is rated below a decimal, zero or a negative number", "[data]") {
  const TemporaryDirectory directory;
  const std::string path =
      directory.write("r.csv", "user_id,item_id,rating,timestamp\nu,a,-1,1\nu,b,0.7,2\nu,c,0.9,3\nu,d,0,4\n");
  const auto left_out = [&](const std::string& least) {
    const CommandResult result =
        tally_command({"data", "stats", path, "--RATING_FIELD=rating", "--min_rating=" + least, "--json"});
    INFO(result.error);
    REQUIRE(result.exit_code == 0);
    const Json json = parse_json(result.out);
    CHECK((json.at("rules").as_string().find("ratings from") != std::string::npos) == (least != "null"));
    return json.at("reading").at("below_min_rating").as_integer();
  };
  CHECK(left_out("0.7") == 2);
  CHECK(left_out("0.9") == 3);
  CHECK(left_out("0") == 1);
  CHECK(left_out("-1") == 0);
  CHECK(left_out("-0.5") == 1);
  CHECK(left_out("null") == 0);
}

TEST_CASE("ids that no table could hold are refused by every command that reads data", "[data]") {
  const Workshop workshop;
  const std::string walks = walks_csv();
  const std::string line = std::to_string(1 + std::count(walks.begin(), walks.end(), '\n'));
  for (const auto& [id, shown] : {std::pair<std::string, std::string>{std::string("a\0b", 3), "'a\\x00b'"},
                                  {"\"a\tb\"", "'a\\x09b'"},
                                  {"\"a\nb\"", "'a\\x0ab'"},
                                  {"a\x1b[31mb", "'a\\x1b[31mb'"}}) {
    workshop.files().write("ratings.csv", walks + "u1," + id + ",5,1000\n");
    const std::string where = "ratings.csv:" + line + ":4] needs a movieId without control characters";
    check_refused(workshop.train(), 1, {where, shown});
    check_refused(tally_command({"data", "stats", workshop.config()}), 1, {where, shown});
    CHECK_FALSE(fs::exists(workshop.output()));
  }
}

TEST_CASE("a config file may begin with a byte order mark", "[data]") {
  const Workshop workshop;
  const std::string config = workshop.files().write("config.json", "\xEF\xBB\xBF" + read_file(workshop.config()));
  const CommandResult result = tally_command({"data", "stats", config});
  INFO(result.error);
  CHECK(result.exit_code == 0);
}

TEST_CASE("version and training warn of kernels for older CPUs", "[version]") {
  const Workshop workshop;
  const auto under = [](const std::string& kernels, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"OPENBLAS_CORETYPE=" + kernels, TALLY_COMMAND});
    const CommandResult result = run_command("/usr/bin/env", arguments);
    INFO(result.error);
    REQUIRE(result.exit_code == 0);
    return result.out;
  };
  for (const std::string kernels : {"Prescott", "Nehalem", "Sandybridge", "Haswell"}) {
    // What is not known to the library, or not for this machine, it replaces itself.
    const std::string version = under(kernels, {"version"});
    const std::string warning = blas::fallback_warning(kernels, blas::vector_width());
    if (version.find(kernels + " kernels") == std::string::npos) continue;
    INFO(version);
    CHECK((version.find(warning) != std::string::npos &&
           warning.empty() == (version.find("warning") == std::string::npos)));
    if (kernels != "Prescott") continue;
    const std::string log = under(kernels, workshop.train_arguments({"--epochs=1"}));
    CHECK((log.find("warning: OpenBLAS") == std::string::npos) == warning.empty());
    CHECK(log.find(warning) < log.find("epoch   1"));
  }
}

}  // namespace data_command_test
