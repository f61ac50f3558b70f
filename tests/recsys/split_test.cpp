#include "tally/recsys/data/split.h"

#include <catch2/catch.hpp>
#include <set>

#include "tally/core/error.h"
#include "tests/recsys/samples.h"

namespace tally::recsys::split_test {
namespace {

using Items = std::vector<std::int32_t>;

Items items_of(std::span<const std::int32_t> items) { return {items.begin(), items.end()}; }

}  // namespace

TEST_CASE("leave-one-out without validation trains on all but the last event", "[data]") {
  const Interactions data = test::interactions_of({{4, 3, 2, 1}, {0, 1}, {1, 2, 3}, {2}}, 5);
  const Split split = leave_one_out(data, {.validation = false});
  CHECK(split.name() == "leave-one-out (no validation)");
  CHECK(split.targets(Part::validation).empty());
  CHECK(split.targets(Part::test) == std::vector<Target>{{0, 3}, {2, 8}});
  CHECK(items_of(split.training(0)) == Items{4, 3, 2});
  CHECK(items_of(split.training(1)) == Items{0, 1});
  CHECK(items_of(split.training(2)) == Items{1, 2});
  CHECK(items_of(split.training(3)) == Items{2});
  CHECK(items_of(split.history(split.targets(Part::test)[1])) == Items{1, 2});
  const Split shorter = leave_one_out(data, {.validation = false, .min_length = 2});
  CHECK(shorter.targets(Part::test) == std::vector<Target>{{0, 3}, {1, 5}, {2, 8}});
}

TEST_CASE("leave-one-out drops users that are too short when asked to", "[data]") {
  const Interactions data = test::interactions_of({{4, 3, 2, 1}, {0, 1}, {1, 2, 3}, {2}}, 5);
  const Split split = leave_one_out(data, {.validation = false, .min_length = 4, .short_users = ShortUsers::drop});
  CHECK(split.name() == "leave-one-out (no validation; users of 4 events or more; shorter users dropped)");
  CHECK(split.targets(Part::test) == std::vector<Target>{{0, 3}});
  CHECK(split.training_size() == 3);
  CHECK(split.training(1).empty());
  CHECK(split.training(2).empty());
  CHECK(split.training_counts() == std::vector<std::int64_t>{0, 0, 1, 1, 1});
  const Split trained = leave_one_out(data, {.min_length = 4});
  CHECK(trained.name() == "leave-one-out (users of 4 events or more)");
  CHECK(trained.training_size() == 2 + 2 + 3 + 1);
  CHECK_THROWS_AS(leave_one_out(data, {.min_length = 2}), ValueError);
  CHECK_THROWS_AS(leave_one_out(data, {.validation = false, .min_length = 1}), ValueError);
}

TEST_CASE("a sample of targets is drawn without replacement and keeps their order", "[data]") {
  const Interactions data = test::random_interactions(RngKey{3}, 400, 20, 8);
  const Split split = leave_one_out(data);
  const std::vector<Target>& all = split.targets(Part::test);
  REQUIRE(all.size() > 100);
  const std::vector<Target> sample = sample_targets(all, 60, RngKey{1});
  REQUIRE(sample.size() == 60);
  std::set<std::int64_t> rows;
  for (const Target& target : all) rows.insert(target.row);
  for (std::size_t i = 0; i < sample.size(); ++i) {
    CHECK(rows.count(sample[i].row) == 1);
    if (i > 0) CHECK(sample[i - 1].user < sample[i].user);
  }
  CHECK(sample == sample_targets(all, 60, RngKey{1}));
  CHECK_FALSE(sample == sample_targets(all, 60, RngKey{2}));
  CHECK(sample_targets(all, static_cast<std::int64_t>(all.size()), RngKey{1}) == all);
  CHECK(sample_targets({}, 5, RngKey{1}).empty());
  CHECK_THROWS_AS(sample_targets(all, 0, RngKey{1}), ValueError);
}

TEST_CASE("every target is as likely to be drawn", "[data]") {
  std::vector<Target> all;
  for (std::int32_t i = 0; i < 10; ++i) all.push_back({i, i});
  std::vector<int> drawn(10, 0);
  constexpr int kDraws = 4000;
  for (std::uint64_t seed = 0; seed < kDraws; ++seed) {
    for (const Target& target : sample_targets(all, 3, RngKey{seed})) ++drawn[static_cast<std::size_t>(target.user)];
  }
  // Binomial(4000, 0.3): mean 1200, deviation 29.
  for (const int count : drawn) CHECK(std::abs(count - 1200) < 5 * 29);
}

}  // namespace tally::recsys::split_test
