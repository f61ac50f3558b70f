#include "tally/recsys/data/interactions.h"

#include <catch2/catch.hpp>
#include <map>

#include "tally/core/error.h"
#include "tally/core/io/sha1.h"
#include "tally/core/io/sha256.h"
#include "tally/core/parallel.h"
#include "tally/recsys/data/sequences.h"
#include "tally/recsys/data/split.h"
#include "tally/recsys/data/statistics.h"
#include "tests/recsys/samples.h"

namespace tally::recsys::interactions_test {
namespace {

IdMap ids(const std::vector<std::string>& names) {
  IdMap map;
  for (const std::string& name : names) map.add(name);
  return map;
}

using Items = std::vector<std::int32_t>;

Items items_of(const Interactions& data, std::int64_t user) {
  return Items(data.sequence(user).begin(), data.sequence(user).end());
}

}  // namespace

TEST_CASE("an id map numbers names in order of first appearance", "[data]") {
  IdMap map;
  std::map<std::string, std::int32_t> reference;
  const RngKey key{5};
  for (std::uint64_t i = 0; i < 5000; ++i) {
    const std::string name = "n" + std::to_string(uniform_below(key, 0, i, 1500));
    const auto expected = reference.emplace(name, static_cast<std::int32_t>(reference.size())).first->second;
    REQUIRE(map.add(name) == expected);
  }
  CHECK(map.size() == static_cast<std::int64_t>(reference.size()));
  for (const auto& [name, index] : reference) {
    REQUIRE(map.find(name) == index);
    REQUIRE(map.name(index) == name);
  }
  CHECK_FALSE(map.find("other"));
  const std::int64_t size = map.size();
  CHECK(map.add("") == size);
  CHECK_THROWS_AS(map.name(-1), IndexError);
}

TEST_CASE("ids sort as numbers where they are numbers", "[data]") {
  const std::vector<std::string> sorted{"0", "00", "2",   "007", "10", "99999999999999999999", "100000000000000000000",
                                        "",  "-1", "10a", "a",   "b"};
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    for (std::size_t j = 0; j < sorted.size(); ++j) {
      INFO(sorted[i] << " < " << sorted[j]);
      CHECK(id_less(sorted[i], sorted[j]) == (i < j));
    }
  }
}

TEST_CASE("events are grouped by user and ordered in time", "[data]") {
  const EventColumns events{.users = {0, 1, 0, 0, 1, 0},
                            .items = {0, 1, 2, 1, 0, 3},
                            .ratings = {1, 2, 3, 4, 5, 6},
                            .times = {9, 2, 5, 5, 1, 5}};
  const Interactions data = group_by_user(ids({"a", "b"}), ids({"30", "x", "4", "100"}), events);
  CHECK(data.offsets == std::vector<std::int64_t>{0, 4, 6});
  CHECK(data.events == Items{2, 1, 3, 0, 0, 1});
  CHECK(data.ratings == std::vector<float>{3, 4, 6, 1, 5, 2});
  CHECK(data.times == std::vector<double>{5, 5, 5, 9, 1, 2});

  const Interactions by_item =
      group_by_user(ids({"a", "b"}), ids({"30", "x", "4", "100"}), events, {.ties = TieRule::item_id});
  CHECK(items_of(by_item, 0) == Items{2, 3, 1, 0});  // 4, 100, x at time 5, then 30

  EventColumns in_file_order = events;
  in_file_order.times.clear();
  CHECK(items_of(group_by_user(ids({"a", "b"}), ids({"p", "q", "r", "s"}), in_file_order), 0) == Items{0, 2, 1, 3});
}

TEST_CASE("repeated items are kept, or only the first or last of them", "[data]") {
  const EventColumns events{.users = {0, 0, 1, 0, 0, 1, 0, 1},
                            .items = {0, 1, 1, 0, 2, 1, 1, 0},
                            .ratings = {},
                            .times = {1, 2, 3, 4, 5, 6, 7, 8}};
  const auto read = [&](Duplicates rule) {
    return group_by_user(ids({"a", "b"}), ids({"p", "q", "r"}), events, {.duplicates = rule});
  };
  const Interactions kept = read(Duplicates::keep);
  CHECK(items_of(kept, 0) == Items{0, 1, 0, 2, 1});
  CHECK(statistics(kept).repeats == 3);
  const Interactions first = read(Duplicates::first);
  CHECK(items_of(first, 0) == Items{0, 1, 2});
  CHECK(items_of(first, 1) == Items{1, 0});
  CHECK(first.times == std::vector<double>{1, 2, 5, 3, 8});
  const Interactions last = read(Duplicates::last);
  CHECK(items_of(last, 0) == Items{0, 2, 1});
  CHECK(items_of(last, 1) == Items{1, 0});
  CHECK(last.times == std::vector<double>{4, 5, 7, 6, 8});
  CHECK(statistics(last).repeats == 0);
}

TEST_CASE("columns that do not fit together are refused", "[data]") {
  CHECK_THROWS_AS(group_by_user(ids({"a"}), ids({"p"}), {.users = {0, 0}, .items = {0}, .ratings = {}, .times = {}}),
                  ShapeError);
  CHECK_THROWS_AS(group_by_user(ids({"a"}), ids({"p"}), {.users = {0}, .items = {1}, .ratings = {}, .times = {}}),
                  IndexError);
}

TEST_CASE("the content hash is that of ids and events, each with its length", "[data]") {
  const EventColumns events{.users = {0, 1, 0}, .items = {0, 0, 1}, .ratings = {}, .times = {}};
  const Interactions data = group_by_user(ids({"10", "9"}), ids({"x", "yz"}), events);
  std::string bytes;
  const auto number = [&](std::uint64_t value) {
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  };
  const auto id = [&](const std::string& name) {
    number(name.size());
    bytes += name;
  };
  for (const std::uint64_t value : {2, 0, 0}) number(value);
  id("9"), number(1), id("x");
  id("10"), number(2), id("x"), id("yz");
  Sha256 hash;
  hash.update(bytes);
  CHECK(content_hash(data) == hash.hex());
  Sha1 blob;
  blob.update(std::string("blob 15\0", 8) + "9 x\n10 x\n10 yz\n");
  CHECK(git_blob_id(data) == blob.hex());

  const EventColumns other_order{.users = {0, 1, 1}, .items = {0, 0, 1}, .ratings = {}, .times = {}};
  CHECK(content_hash(group_by_user(ids({"9", "10"}), ids({"x", "yz"}), other_order)) == hash.hex());
  const EventColumns other_places{.users = {1, 0, 0}, .items = {1, 1, 0}, .ratings = {}, .times = {}};
  CHECK(content_hash(group_by_user(ids({"10", "9"}), ids({"yz", "x"}), other_places)) == hash.hex());
}

TEST_CASE("data that differ in anything have different content hashes", "[data]") {
  std::vector<std::string> hashes;
  const auto add = [&](const std::vector<std::string>& users, const std::vector<std::string>& items,
                       const EventColumns& events) {
    IdMap user_ids, item_ids;
    for (const std::string& user : users) user_ids.add(user);
    for (const std::string& item : items) item_ids.add(item);
    hashes.push_back(content_hash(group_by_user(std::move(user_ids), std::move(item_ids), events)));
  };
  const EventColumns one{.users = {0}, .items = {0}, .ratings = {}, .times = {}};
  add({"u1 x"}, {"i1"}, one);
  add({"u1"}, {"x i1"}, one);
  add({"u"}, {"1x i1"}, one);
  add({"u1 x i1"}, {""}, one);
  add({"u1", "u2"}, {"a", "b"}, {.users = {0, 0, 1}, .items = {0, 1, 0}, .ratings = {}, .times = {}});
  add({"u1", "u2"}, {"a", "b"}, {.users = {0, 1, 1}, .items = {0, 1, 0}, .ratings = {}, .times = {}});
  add({"u1", "u2"}, {"a", "b"}, {.users = {0, 0, 1}, .items = {1, 0, 0}, .ratings = {}, .times = {}});
  add({"u1"}, {"ab", "c"}, {.users = {0, 0}, .items = {0, 1}, .ratings = {}, .times = {}});
  add({"u1"}, {"a", "bc"}, {.users = {0, 0}, .items = {0, 1}, .ratings = {}, .times = {}});
  add({"u1"}, {"a", "bc"}, {.users = {0, 0}, .items = {0, 1}, .ratings = {}, .times = {1, 2}});
  add({"u1"}, {"a", "bc"}, {.users = {0, 0}, .items = {0, 1}, .ratings = {}, .times = {1, 3}});
  add({"u1"}, {"a", "bc"}, {.users = {0, 0}, .items = {0, 1}, .ratings = {1, 2}, .times = {}});
  add({"u1"}, {"a", "bc"}, {.users = {0, 0}, .items = {0, 1}, .ratings = {1, 3}, .times = {}});
  add({"u1"}, {"a", "bc"}, {.users = {0, 0}, .items = {0, 1}, .ratings = {1, 2}, .times = {1, 2}});
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      INFO(i << " and " << j);
      CHECK(hashes[i] != hashes[j]);
    }
  }
}

TEST_CASE("statistics worked out by hand", "[data]") {
  Interactions data = test::interactions_of({{0, 1, 0, 2}, {3}, {1, 1}, {}}, 5);
  data.times = {1, 1, 2, 2, 7, 4, 4};
  const Statistics figures = statistics(data);
  CHECK(figures.users == 4);
  CHECK(figures.items == 5);
  CHECK(figures.events == 7);
  CHECK(figures.density == Approx(7.0 / 20));
  CHECK(figures.shortest == 0);
  CHECK(figures.longest == 4);
  CHECK(figures.mean_length == Approx(1.75));
  CHECK(figures.median_length == Approx(1.5));
  CHECK(figures.tenth_length == Approx(0.3));
  CHECK(figures.ninetieth_length == Approx(3.4));
  CHECK(figures.single_event_users == 1);
  CHECK(figures.short_users == 3);
  CHECK(figures.repeats == 2);
  CHECK(figures.tied_pairs == 3);
  CHECK(figures.tied_last_users == 2);
  CHECK(length_quantile(data, 0.25) == Approx(0.75));
  data.times.clear();
  CHECK_FALSE(statistics(data).has_times);
  CHECK(statistics(Interactions()).mean_length == 0);
  CHECK_THROWS_AS(length_quantile(data, 1.5), ValueError);
}

TEST_CASE("leave-one-out gives views of the last two events", "[data]") {
  const Interactions data = test::interactions_of({{4, 3, 2, 1}, {0, 1}, {1, 2, 3}, {2}}, 5);
  const Split split = leave_one_out(data);
  CHECK(split.name() == "leave-one-out");
  CHECK(split.targets(Part::validation) == std::vector<Target>{{0, 2}, {2, 7}});
  CHECK(split.targets(Part::test) == std::vector<Target>{{0, 3}, {2, 8}});
  CHECK(split.item(split.targets(Part::test)[0]) == 1);
  CHECK(split.training(0).data() == data.events.data());
  CHECK(split.training(0).size() == 2);
  CHECK(split.training(1).size() == 2);
  CHECK(split.training(2).size() == 1);
  CHECK(split.training(3).size() == 1);
  CHECK(split.training_size() == 6);
  CHECK(split.training_counts() == std::vector<std::int64_t>{1, 2, 1, 1, 1});
  const std::span<const std::int32_t> history = split.history(split.targets(Part::test)[0]);
  CHECK(Items(history.begin(), history.end()) == Items{4, 3, 2});
  CHECK_THROWS_AS(Split("bad", data, {2, 6, 9, 10}, {{0, 1}}, {}), IndexError);
  CHECK_THROWS_AS(Split("bad", data, {2, 6, 9, 10}, {}, {{0, 4}}), IndexError);
  CHECK_THROWS_AS(Split("bad", data, {2, 6}, {}, {}), ShapeError);
}

TEST_CASE("histories are packed whole, and sliced", "[data]") {
  const Interactions data = test::interactions_of({{4, 3, 2, 1}, {0, 1}, {1, 2, 3}}, 5);
  const Split split = leave_one_out(data);
  const Sequences packed = pack_histories(split, split.targets(Part::test));
  CHECK(packed.items.to_doubles() == std::vector<double>{4, 3, 2, 1, 2});
  CHECK(packed.offsets.tensor().to_doubles() == std::vector<double>{0, 3, 5});
  CHECK(packed.users.to_doubles() == std::vector<double>{0, 2});
  const Sequences second = packed.slice(1, 2);
  CHECK(second.items.to_doubles() == std::vector<double>{1, 2});
  CHECK(second.users.to_doubles() == std::vector<double>{2});
  CHECK(second.items.shares_storage_with(packed.items));
  CHECK_THROWS_AS(packed.slice(1, 3), IndexError);
  const Sequences batch = Sequences::from({{1, 2}, {}, {0}}, 3);
  CHECK(batch.count() == 3);
  CHECK(batch.sequence(1).empty());
  CHECK_FALSE(batch.users.defined());
  CHECK_THROWS_AS(Sequences::from({{3}}, 3), IndexError);
}

}  // namespace tally::recsys::interactions_test
