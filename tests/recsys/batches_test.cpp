#include "tally/recsys/training/batches.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <tuple>

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

/// A user's items are 0, 1, 2, ...: an item is its place in the history.
std::vector<std::vector<std::int32_t>> counting(std::initializer_list<int> lengths) {
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
