#include "tally/recsys/data/filters.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <set>

#include "tally/recsys/data/delimited_reader.h"
#include "tests/recsys/samples.h"

namespace tally::recsys::filters_test {
namespace {

namespace fs = std::filesystem;

/// One event, with what must stay with it.
struct Row {
  std::string user, item;
  float rating = 0;
  double time = 0;

  friend bool operator==(const Row&, const Row&) = default;
};

std::vector<Row> rows_of(const Interactions& data) {
  std::vector<Row> rows;
  for (std::int32_t user = 0; user < data.num_users(); ++user) {
    for (std::int64_t row = data.begin_of(user); row < data.end_of(user); ++row) {
      const auto i = static_cast<std::size_t>(row);
      rows.push_back({std::string(data.users.name(user)), std::string(data.items.name(data.events[i])),
                      data.ratings.empty() ? 0 : data.ratings[i], data.times.empty() ? 0 : data.times[i]});
    }
  }
  return rows;
}

/// The definition, word by word.
std::vector<Row> filtered(std::vector<Row> rows, const FilterOptions& options) {
  while (true) {
    std::map<std::string, std::int64_t> users, items;
    for (const Row& row : rows) {
      ++users[row.user];
      ++items[row.item];
    }
    std::vector<Row> kept;
    for (const Row& row : rows) {
      if (options.users.contains(users[row.user]) && options.items.contains(items[row.item])) kept.push_back(row);
    }
    const bool changed = kept.size() < rows.size();
    rows = std::move(kept);
    if (!changed || options.core == Core::one_pass) return rows;
  }
}

FilterOptions at_least(std::int64_t least, Core core) {
  const CountIntervals enough = CountIntervals::parse("[" + std::to_string(least) + ",inf)");
  return {.users = enough, .items = enough, .core = core};
}

const fs::path kData = TALLY_SOURCE_DIR "/../shared/data";

bool present(const fs::path& path) {
  if (fs::exists(path)) return true;
  WARN("skipped: " << path << " is not here");
  return false;
}

Interactions read(const std::string& name) {
  ReadOptions options;
  options.order_column = name == "ml-100k" ? "timestamp" : "";
  return read_interactions(kData / name / "interactions.tsv.gz", options);
}

void check_size(const Interactions& data, std::int64_t users, std::int64_t items, std::int64_t events) {
  CHECK(data.num_users() == users);
  CHECK(data.num_items() == items);
  CHECK(data.size() == events);
}

}  // namespace

TEST_CASE("intervals of counts are read as RecBole writes them", "[data]") {
  const auto holds = [](const char* text, std::vector<std::int64_t> counts) {
    const CountIntervals intervals = CountIntervals::parse(text);
    std::vector<std::int64_t> held;
    for (std::int64_t count = 0; count <= 9; ++count) {
      if (intervals.contains(count)) held.push_back(count);
    }
    INFO(text);
    CHECK(held == counts);
  };
  const std::vector<std::int64_t> all{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  holds("[5,inf)", {5, 6, 7, 8, 9});
  holds("[5,inf]", {5, 6, 7, 8, 9});
  holds("(5,inf)", {6, 7, 8, 9});
  holds("(3,100]", {4, 5, 6, 7, 8, 9});
  holds("(-inf,3)", {0, 1, 2});
  holds("[2, 4]", {2, 3, 4});
  holds("[1,2];(6,8)", {1, 2, 7});
  holds("", all);
  holds("[0,inf)", all);
  CHECK(CountIntervals::parse("").is_everything());
  CHECK(CountIntervals::parse("[-inf,inf]").is_everything());
  CHECK_FALSE(CountIntervals::parse("[1,inf)").is_everything());
  for (const char* bad : {"5", "[5]", "[5,", "5,inf", "[5,inf", "[a,b]", "[5.5,7]", "[5,,7]", "[5,7,9]", "[7,5]",
                          "(5,6)", "[5,inf);", ";", "[inf,inf]", "[5,99999999999999999999]", "[5,7][8,9]"}) {
    INFO(bad);
    CHECK_THROWS_AS(CountIntervals::parse(bad), ValueError);
  }
}

TEST_CASE("filters equal their definition", "[data]") {
  std::int64_t several_rounds = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    Interactions data = test::random_interactions(RngKey{seed}, 30, 25, 9);
    for (std::int64_t i = 0; i < data.size(); ++i) {
      if (seed % 2 == 0) data.ratings.push_back(static_cast<float>(i));
      if (seed % 3 == 0) data.times.push_back(static_cast<double>(2 * i));
    }
    for (const Core core : {Core::iterative, Core::one_pass}) {
      for (FilterOptions options : {at_least(3, core), at_least(5, core),
                                    FilterOptions{.users = CountIntervals::parse("[2,7]"), .items = {}, .core = core},
                                    FilterOptions{.users = CountIntervals::parse("(1,8)"),
                                    .items = CountIntervals::parse("[2,4];[6,inf)"),
                                    .core = core}}) {
        const std::vector<Row> expected = filtered(rows_of(data), options);
        FilterReport report;
        const Interactions result = filter_by_counts(data, options, &report);
        REQUIRE(rows_of(result) == expected);
        CHECK(result.ratings.size() == (seed % 2 == 0 ? expected.size() : 0));
        CHECK(report.events == data.size() - result.size());
        CHECK(report.users == data.num_users() - result.num_users());
        CHECK(report.items == data.num_items() - result.num_items());
        several_rounds += report.rounds > 2;
        if (report.rounds > 0) {
          for (std::int32_t user = 0; user < result.num_users(); ++user) CHECK_FALSE(result.sequence(user).empty());
          CHECK(static_cast<std::size_t>(result.num_items()) ==
                std::set<std::int32_t>(result.events.begin(), result.events.end()).size());
        }
      }
    }
  }
  CHECK(several_rounds > 10);
}

TEST_CASE("a filter may take out everything or nothing", "[data]") {
  const Interactions data = test::interactions_of({{0, 1, 2}, {0, 1}, {2}}, 3);
  FilterReport report;
  const Interactions none = filter_by_counts(data, at_least(4, Core::iterative), &report);
  CHECK(none.num_users() == 0);
  CHECK(none.num_items() == 0);
  CHECK(none.offsets == std::vector<std::int64_t>{0});
  CHECK(report.events == 6);
  CHECK(report.to_text() == "left out by counts: 3 users, 3 items, 6 events in 1 round\n");
  const Interactions all = filter_by_counts(data, {}, &report);
  CHECK(rows_of(all) == rows_of(data));
  CHECK(report.rounds == 0);
  CHECK(filter_by_counts(Interactions(), at_least(2, Core::iterative)).size() == 0);
}

TEST_CASE("one pass leaves users below the least count; the core does not", "[data]") {
  // Item 2 has two events only; without it user 1 has two.
  const Interactions data = test::interactions_of({{0, 1, 0, 1}, {0, 1, 2}, {0, 1, 0}, {2, 1, 1, 0}}, 3);
  const Interactions once = filter_by_counts(data, at_least(3, Core::one_pass));
  CHECK(once.sequence(1).size() == 2);
  CHECK(once.num_users() == 4);
  const Interactions core = filter_by_counts(data, at_least(3, Core::iterative));
  CHECK(core.num_users() == 3);
  CHECK(core.users.name(1) == "u2");
}

TEST_CASE("the core of real data sets", "[data]") {
  if (!present(kData / "amazon-beauty/interactions.tsv.gz")) return;
  FilterReport report;
  check_size(filter_by_counts(read("amazon-beauty"), at_least(5, Core::iterative), &report), 22363, 12101, 198502);
  CHECK(report.rounds == 0);
  // SASRec's Beauty was filtered in one pass, which only takes out what the 5-core does too: its 5-core is that of the
  // raw data.
  const Interactions sasrec = read("amazon-beauty-sasrec");
  check_size(sasrec, 52204, 57289, 394908);
  std::int64_t below = 0;
  for (std::int32_t user = 0; user < sasrec.num_users(); ++user) below += sasrec.sequence(user).size() < 5;
  CHECK(below == 11978);
  check_size(filter_by_counts(sasrec, at_least(5, Core::iterative), &report), 22363, 12101, 198502);
  CHECK(report.rounds > 2);
}

TEST_CASE("MovieLens 1M as RecBole tunes on it: ratings of 3 and more, 10-core", "[data]") {
  if (!present(kData / "ml-1m/interactions.tsv.gz")) return;
  ReadOptions options;
  options.rating_column = "rating";
  options.min_rating = 3;
  options.order_column = "position";
  // RecBole prints 6,034 users and 3,124 items: it counts its padding id among each.
  const Interactions data = read_interactions(kData / "ml-1m/interactions.tsv.gz", options);
  check_size(filter_by_counts(data, at_least(10, Core::iterative)), 6033, 3123, 834449);
}

}  // namespace tally::recsys::filters_test
