#include "tally/recsys/training/batches.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <set>
#include <tuple>

namespace batches_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

/// A user's items are 0, 1, 2, ...: an item is its place in the history.
std::vector<std::vector<std::int32_t>> counting(const std::vector<int>& lengths) {
  std::vector<std::vector<std::int32_t>> all;
  for (const int length : lengths) {
    all.emplace_back();
    for (std::int32_t i = 0; i < length; ++i) all.back().push_back(i);
  }
  return all;
}

/// (user, first input, inputs, first row whose loss is taken) of every sample of an epoch.
using Sample = std::tuple<int, int, int, int>;
std::multiset<Sample> epoch(const TrainingBatches& batches, std::int64_t number = 0) {
  std::multiset<Sample> samples;
  std::int64_t targets = 0;
  for (std::int64_t b = 0; b < batches.batches_per_epoch(); ++b) {
    const TrainingBatch batch = batches.batch(number, b);
    std::int64_t rows = 0, counted = 0;
    for (const TrainingShard& shard : batch.shards) {
      CHECK(shard.first_row == rows);
      rows += shard.targets.numel();
      for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
        const auto in = shard.inputs.sequence(s);
        const auto* target = shard.targets.data<std::int32_t>() + shard.inputs.offsets.at(s);
        int first = 0;
        for (std::size_t i = 0; i < in.size(); ++i) {
          CHECK(in[i] == in[0] + static_cast<std::int32_t>(i));
          CHECK((target[i] == in[i] + 1 || target[i] == -1));
          if (target[i] == -1) first = static_cast<int>(i) + 1;
          counted += target[i] >= 0;
        }
        samples.insert({shard.inputs.users.data<std::int32_t>()[s], in[0], static_cast<int>(in.size()), first});
      }
    }
    CHECK(batch.rows == rows);
    CHECK(batch.targets == counted);
    targets += counted;
  }
  CHECK(targets == batches.targets_per_epoch());
  CHECK(static_cast<std::int64_t>(samples.size()) == batches.samples_per_epoch());
  return samples;
}

TrainingBatches make(const std::vector<std::vector<std::int32_t>>& data, TrainingSamples samples, std::int64_t window,
                     std::int64_t stride = 0, std::int64_t prefixes = 0) {
  return {{data.begin(), data.end()},
          {.batch_size = 3,
           .window = window,
           .shard_tokens = 7,
           .samples = samples,
           .prefixes_per_user = prefixes,
           .stride = stride},
          RngKey{3, 0}};
}

}  // namespace

TEST_CASE("shifted samples are the last inputs of each user", "[batches]") {
  const auto data = counting({1, 2, 0, 9});
  const TrainingBatches batches = make(data, TrainingSamples::shifted, 5);
  CHECK(epoch(batches) == std::multiset<Sample>{{1, 0, 1, 0}, {3, 3, 5, 0}});
  CHECK(batches.users() == 2);
}

TEST_CASE("prefix samples take the loss at their end", "[batches]") {
  const auto data = counting({2, 1, 6});
  const std::multiset<Sample> all{{0, 0, 1, 0}, {2, 0, 1, 0}, {2, 0, 2, 1}, {2, 0, 3, 2}, {2, 1, 3, 2}, {2, 2, 3, 2}};
  CHECK(epoch(make(data, TrainingSamples::prefix, 3)) == all);
  CHECK(epoch(make(data, TrainingSamples::prefix, 3, 0, 5)) == all);
  const auto long_data = counting({200, 3});
  const TrainingBatches drawn = make(long_data, TrainingSamples::prefix, 10, 0, 4);
  const auto first = epoch(drawn, 0), second = epoch(drawn, 1);
  CHECK(first.size() == 6);
  CHECK(std::set<Sample>(first.begin(), first.end()).size() == 6);
  CHECK(first != second);
  CHECK(epoch(drawn, 0) == first);  // whatever epoch came before
  // Every prefix is drawn equally often.
  const auto six = counting({7});
  const TrainingBatches two = make(six, TrainingSamples::prefix, 10, 0, 2);
  std::vector<int> counts(6);
  for (std::int64_t e = 0; e < 3000; ++e) {
    for (const auto& sample : epoch(two, e)) ++counts[static_cast<std::size_t>(std::get<2>(sample) - 1)];
  }
  for (const int count : counts) CHECK(std::abs(count - 1000) < 130);  // five standard deviations
}

TEST_CASE("windows cover every event, from the end", "[batches]") {
  const auto data = counting({2, 5, 12});
  CHECK(epoch(make(data, TrainingSamples::window, 4)) ==
        std::multiset<Sample>{{0, 0, 1, 0}, {1, 0, 4, 0}, {2, 7, 4, 0}, {2, 3, 4, 0}, {2, 0, 3, 0}});
  CHECK(epoch(make(data, TrainingSamples::window, 4, 3)) ==
        std::multiset<Sample>{{0, 0, 1, 0}, {1, 0, 4, 0}, {2, 7, 4, 0}, {2, 4, 4, 0}, {2, 1, 4, 0}, {2, 0, 2, 0}});
  for (const std::int64_t stride : {1, 2, 3, 4}) {
    std::set<int> trained;
    for (const auto& [user, first, inputs, loss] : epoch(make(data, TrainingSamples::window, 4, stride))) {
      for (int i = first; user == 2 && i < first + inputs; ++i) trained.insert(i);
    }
    CHECK(trained.size() == 11);
  }
}

TEST_CASE("pieces are LISA's", "[batches]") {
  // Pieces of 10 items; a rest of up to 11 stays one.
  const auto data = counting({10, 11, 12, 21, 22, 31});
  CHECK(epoch(make(data, TrainingSamples::pieces, 12, 10)) == std::multiset<Sample>{{0, 0, 9, 0},
                                                                                    {1, 0, 10, 0},
                                                                                    {2, 2, 9, 0},
                                                                                    {2, 0, 1, 0},
                                                                                    {3, 11, 9, 0},
                                                                                    {3, 0, 10, 0},
                                                                                    {4, 12, 9, 0},
                                                                                    {4, 2, 9, 0},
                                                                                    {4, 0, 1, 0},
                                                                                    {5, 21, 9, 0},
                                                                                    {5, 11, 9, 0},
                                                                                    {5, 0, 10, 0}});
  CHECK(TrainingBatches::longest_piece(300) == 274);
  for (std::int64_t window = 1; window < 400; ++window) {
    const std::int64_t piece = TrainingBatches::longest_piece(window);
    CHECK(11 * piece / 10 - 1 <= window);
    CHECK(11 * (piece + 1) / 10 - 1 > window);
  }
  for (const auto& sample : epoch(make(data, TrainingSamples::pieces, 7))) CHECK(std::get<2>(sample) <= 7);
}

TEST_CASE("samples that leave events out are refused", "[batches]") {
  const auto data = counting({5});
  CHECK_THROWS_WITH(make(data, TrainingSamples::window, 4, 5), Contains("a stride of 1 to 4") && Contains("got 5"));
  CHECK_THROWS_WITH(make(data, TrainingSamples::pieces, 300, 275), Contains("a stride of 2 to 274"));
  CHECK_THROWS_WITH(make(data, TrainingSamples::prefix, 4, 0, -1), Contains("no negative number of prefixes"));
}

namespace {

/// The time of an item that is its place in the history of a user.
double time_of(std::int32_t user, std::int32_t item) { return 1000.0 * user + item + 0.25; }

}  // namespace

TEST_CASE("times stay with their events", "[batches][times]") {
  const auto data = counting({1, 9, 2, 25, 0, 12});
  std::vector<std::vector<double>> times;
  for (std::size_t u = 0; u < data.size(); ++u) {
    times.emplace_back();
    for (const std::int32_t item : data[u]) times.back().push_back(time_of(static_cast<std::int32_t>(u), item));
  }
  const std::vector<std::span<const std::int32_t>> items(data.begin(), data.end());
  const std::vector<std::span<const double>> when(times.begin(), times.end());
  for (const auto samples :
       {TrainingSamples::shifted, TrainingSamples::prefix, TrainingSamples::window, TrainingSamples::pieces}) {
    const TrainingBatches::Options options{.batch_size = 3, .window = 8, .shard_tokens = 10, .samples = samples};
    const TrainingBatches with(items, options, RngKey{1, 2}, when), without(items, options, RngKey{1, 2});
    std::int64_t seen = 0;
    for (std::int64_t b = 0; b < with.batches_per_epoch(); ++b) {
      const TrainingBatch batch = with.batch(0, b), plain = without.batch(0, b);
      for (std::size_t s = 0; s < batch.shards.size(); ++s) {
        const Sequences& inputs = batch.shards[s].inputs;
        CHECK(identical(inputs.items, plain.shards[s].inputs.items));
        CHECK_FALSE(plain.shards[s].inputs.times.defined());
        for (std::int64_t i = 0; i < inputs.count(); ++i) {
          const auto in = inputs.sequence(i);
          const auto at = inputs.times_of(i);
          REQUIRE(at.size() == in.size());
          for (std::size_t k = 0; k < in.size(); ++k, ++seen) {
            CHECK(at[k] == time_of(inputs.users.data<std::int32_t>()[i], in[k]));
          }
        }
      }
    }
    CHECK(seen > 0);
  }
  auto fewer = when;
  fewer.pop_back();
  CHECK_THROWS_AS(TrainingBatches(items, {}, RngKey{1, 2}, fewer), ShapeError);
  fewer.push_back(when[1]);
  CHECK_THROWS_WITH(TrainingBatches(items, {}, RngKey{1, 2}, fewer), Contains("user 5"));
}

TEST_CASE("packing, slicing, cutting and joining keep times", "[times]") {
  const std::vector<std::vector<std::int32_t>> items{{1, 2, 3}, {}, {4, 5}};
  const std::vector<std::vector<double>> when{{0.5, 1.5, 2.5}, {}, {7, 8}};
  const std::vector<std::span<const std::int32_t>> histories(items.begin(), items.end());
  const std::vector<std::span<const double>> times(when.begin(), when.end());
  const Sequences all = pack(histories, times);
  CHECK(all.times.to_doubles() == std::vector<double>{0.5, 1.5, 2.5, 7, 8});
  CHECK(all.slice(1, 3).times.to_doubles() == std::vector<double>{7, 8});
  const Sequences cut = cut_to_window(all, 2);
  CHECK(cut.items.to_doubles() == std::vector<double>{2, 3, 4, 5});
  CHECK(cut.times.to_doubles() == std::vector<double>{1.5, 2.5, 7, 8});
  CHECK(pack(histories, times, 1).times.to_doubles() == std::vector<double>{2.5, 8});
  const std::vector<Sequences> parts{all, cut};
  CHECK(concatenate(parts).times.to_doubles() == std::vector<double>{0.5, 1.5, 2.5, 7, 8, 1.5, 2.5, 7, 8});
  CHECK(concatenate(parts).sequence(5).size() == 2);
  const std::vector<Sequences> mixed{all, pack(histories)};
  CHECK_FALSE(concatenate(mixed).times.defined());
  CHECK(concatenate(mixed).items.numel() == 10);
  CHECK(pack(histories).times_of(0).empty());
  CHECK_THROWS_AS(pack(histories, std::span(times).first(2)), ShapeError);
  const std::vector<std::span<const double>> wrong{times[0], times[2], times[1]};
  CHECK_THROWS_WITH(pack(histories, wrong), Contains("history 1"));
}

TEST_CASE("histories of a split carry the times of the data", "[times]") {
  Interactions data;
  for (int i = 0; i < 6; ++i) data.items.add("i" + std::to_string(i));
  data.users.add("a");
  data.users.add("b");
  data.events = {0, 1, 2, 3, 4, 5, 0};
  data.offsets = {0, 4, 7};
  data.times = {10, 11, 12, 13, 20, 21, 22};
  const Split split = leave_one_out(data);
  const Sequences histories = pack_histories(split, split.targets(Part::test));
  CHECK(histories.times.to_doubles() == std::vector<double>{10, 11, 12, 20, 21});
  CHECK(std::vector<double>(split.training_times(0).begin(), split.training_times(0).end()) ==
        std::vector<double>{10, 11});
  data.times.clear();
  CHECK_FALSE(pack_histories(split, split.targets(Part::test)).times.defined());
  CHECK(split.training_times(1).empty());
}

TEST_CASE("a batch is cut evenly, into as many shards as 16 cores share", "[batches]") {
  const auto shards_of = [](std::int64_t users, std::int64_t length, std::int64_t shard_tokens = 2048) {
    const auto data = counting(std::vector<int>(static_cast<std::size_t>(users), static_cast<int>(length) + 1));
    const TrainingBatches batches({data.begin(), data.end()},
                                  {.batch_size = users, .window = length, .shard_tokens = shard_tokens}, RngKey{3, 0});
    std::vector<std::int64_t> rows;
    const TrainingBatch batch = batches.batch(0, 0);
    for (const TrainingShard& shard : batch.shards) rows.push_back(shard.targets.numel());
    CHECK(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}) == users * length);
    return rows;
  };
  CHECK(shards_of(10, 200) == std::vector<std::int64_t>{2000});
  CHECK(shards_of(128, 200) == std::vector<std::int64_t>(16, 1600));
  CHECK(shards_of(256, 200).size() == 32);
  CHECK(shards_of(11, 200) == std::vector<std::int64_t>{600, 600, 600, 400});
  CHECK(shards_of(4, 2049, 2048) == std::vector<std::int64_t>(4, 2049));
  const std::vector<std::int64_t> uneven = shards_of(127, 85);
  REQUIRE(uneven.size() == 16);
  const auto [least, most] = std::minmax_element(uneven.begin(), uneven.end());
  CHECK(*most - *least <= 85);
}

TEST_CASE("sequences of all lengths make even shards", "[batches]") {
  std::vector<int> lengths;
  for (int u = 0; u < 128; ++u) lengths.push_back(2 + u * u % 197);
  const auto data = counting(lengths);
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const RngKey key{seed, 0};
    const auto batch_of = [&](std::int64_t shard_tokens) {
      const TrainingBatches::Options options{.batch_size = 128, .window = 200, .shard_tokens = shard_tokens};
      return TrainingBatches({data.begin(), data.end()}, options, key).batch(0, 0);
    };
    const auto users_of = [](const TrainingBatch& batch) {
      std::vector<std::int32_t> users;
      for (const TrainingShard& shard : batch.shards) {
        const auto of_shard = shard.inputs.users.span<std::int32_t>();
        users.insert(users.end(), of_shard.begin(), of_shard.end());
      }
      return users;
    };
    const TrainingBatch batch = batch_of(2048);
    std::int64_t most = 0;
    for (const TrainingShard& shard : batch.shards) {
      most = std::max(most, shard.targets.numel());
      CHECK_FALSE(shard.wide);
    }
    CHECK(batch.shards.size() == 16);
    CHECK(most <= batch.rows / 16 * 106 / 100);  // 1.09 where they come in the order drawn
    const std::vector<std::int32_t> users = users_of(batch);
    CHECK(std::set<std::int32_t>(users.begin(), users.end()).size() == 128);
    // The order of rows, hence a row's random numbers, is the same whatever the budget.
    CHECK(users_of(batch_of(500)) == users);
    CHECK(users_of(batch_of(100'000)) == users);
  }
}

TEST_CASE("a window or a stride longer than any history takes all of it", "[batches]") {
  const auto data = counting({2, 40, 7, 12});
  for (const TrainingSamples samples :
       {TrainingSamples::shifted, TrainingSamples::prefix, TrainingSamples::window, TrainingSamples::pieces}) {
    const auto batch_of = [&](std::int64_t window) {
      const TrainingBatches::Options options{.batch_size = 100, .window = window, .samples = samples};
      return TrainingBatches({data.begin(), data.end()}, options, RngKey{3, 0}).batch(0, 0);
    };
    const TrainingBatch expected = batch_of(50);
    REQUIRE(expected.shards.size() == 1);
    for (const std::int64_t window : {std::int64_t{300'000'000}, std::int64_t{2'147'483'647}, std::int64_t{1} << 32,
                                      std::numeric_limits<std::int64_t>::max()}) {
      INFO(name_of(samples) << ", window " << window);
      const TrainingBatch batch = batch_of(window);
      REQUIRE(batch.shards.size() == 1);
      CHECK(identical(batch.shards[0].inputs.items, expected.shards[0].inputs.items));
      CHECK(identical(batch.shards[0].targets, expected.shards[0].targets));
    }
  }
}

TEST_CASE("a sequence above the budget is a shard of its own", "[batches]") {
  const auto data = counting({31, 4, 101, 5, 6});
  const TrainingBatches batches({data.begin(), data.end()}, {.batch_size = 5, .window = 200, .shard_tokens = 20},
                                RngKey{3, 0});
  const TrainingBatch batch = batches.batch(0, 0);
  CHECK(batch.rows == 30 + 3 + 100 + 4 + 5);
  for (const TrainingShard& shard : batch.shards) {
    CHECK(shard.wide == (shard.targets.numel() > 20));
    CHECK((!shard.wide || shard.inputs.count() == 1));
  }
}

}  // namespace batches_test
