#include "tally/recsys/training/batches.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <set>

#include "tally/core/parallel.h"

namespace tally::recsys {

const char* name_of(TrainingSamples samples) { return word_of(samples).data(); }

TrainingBatches::TrainingBatches(std::vector<std::span<const std::int32_t>> histories, const Options& options,
                                 RngKey key, std::vector<std::span<const double>> times)
    : histories_(std::move(histories)), times_(std::move(times)), options_(options), key_(key) {
  check<ShapeError>(times_.empty() || times_.size() == histories_.size(), "batches", "needs times of all ",
                    histories_.size(), " users or of none; got ", times_.size());
  for (std::size_t user = 0; user < times_.size(); ++user) {
    check<ShapeError>(times_[user].size() == histories_[user].size(), "batches", "needs a time for each of the ",
                      histories_[user].size(), " items of user ", user, "; got ", times_[user].size());
  }
  check<ConfigError>(options.batch_size >= 1 && options.window >= 1 && options.shard_tokens >= 1, "batches",
                     "needs a batch size, window and shard budget of at least 1; got ", options.batch_size, ", ",
                     options.window, " and ", options.shard_tokens);
  check<ConfigError>(options.prefixes_per_user >= 0 && options.events_before >= 0, "batches",
                     "needs no negative number of prefixes, or of events before a sample; got ",
                     options.prefixes_per_user, " and ", options.events_before);
  // Samples count in int32; no history is longer.
  options_.window = std::min<std::int64_t>(options.window, std::numeric_limits<std::int32_t>::max());
  const bool pieces = options.samples == TrainingSamples::pieces;
  const std::int64_t largest = pieces ? longest_piece(options_.window) : options_.window;
  if (options_.stride == 0) options_.stride = largest;
  check<ConfigError>(options_.stride >= (pieces ? 2 : 1) && options_.stride <= largest, "batches", "needs a stride of ",
                     pieces ? "2 to " : "1 to ", largest, " with a window of ", options.window,
                     ", so that every event is trained; got ", options_.stride);
  for (std::size_t user = 0; user < histories_.size(); ++user) {
    const auto items = static_cast<std::int64_t>(histories_[user].size());
    if (items < 2) continue;
    ++users_;
    if (draws_prefixes()) {
      samples_per_epoch_ += std::min(options_.prefixes_per_user, items - 1);
    } else {
      add_samples(static_cast<std::int32_t>(user), static_cast<std::int32_t>(items));
    }
  }
  if (!draws_prefixes()) samples_per_epoch_ = static_cast<std::int64_t>(samples_.size());
  if (options_.samples == TrainingSamples::prefix) {
    targets_per_epoch_ = samples_per_epoch_;
  } else {
    for (const Sample& sample : samples_) targets_per_epoch_ += sample.end - sample.begin;
  }
}

void TrainingBatches::add_samples(std::int32_t user, std::int32_t items) {
  const auto window = static_cast<std::int32_t>(options_.window), stride = static_cast<std::int32_t>(options_.stride);
  const std::int32_t inputs = items - 1;
  switch (options_.samples) {
    case TrainingSamples::shifted:
      samples_.push_back({user, std::max(0, inputs - window), inputs});
      break;
    case TrainingSamples::prefix:
      for (std::int32_t end = 1; end <= inputs; ++end) samples_.push_back({user, std::max(0, end - window), end});
      break;
    case TrainingSamples::window:
      for (std::int32_t end = inputs; end > 0; end -= stride) {
        samples_.push_back({user, std::max(0, end - window), end});
        if (end <= window) break;  // this one begins with the first item
      }
      break;
    case TrainingSamples::pieces:
      for (std::int32_t end = items; end >= 2;) {
        const bool last = std::int64_t{10} * end <= std::int64_t{11} * stride;
        const std::int32_t begin = last ? 0 : end - stride;
        samples_.push_back({user, begin, end - 1});
        end = begin;
      }
      break;
  }
}

std::int64_t TrainingBatches::batches_per_epoch() const { return block_count(samples_per_epoch_, options_.batch_size); }

std::vector<TrainingBatches::Sample> TrainingBatches::drawn_prefixes(std::int64_t epoch) const {
  std::vector<Sample> drawn;
  drawn.reserve(static_cast<std::size_t>(samples_per_epoch_));
  const RngKey key = key_.fold_in("prefixes").fold_in(static_cast<std::uint64_t>(epoch));
  for (std::size_t user = 0; user < histories_.size(); ++user) {
    const auto inputs = static_cast<std::int64_t>(histories_[user].size()) - 1;
    // A uniform subset of the ends 1 ... inputs (Floyd's algorithm, CACM 30 (9), 1987).
    std::set<std::int64_t> ends;
    for (std::int64_t j = inputs - std::min(options_.prefixes_per_user, inputs) + 1; j <= inputs; ++j) {
      const auto end = 1 + static_cast<std::int64_t>(
                               uniform_below(key, user, static_cast<std::uint64_t>(j), static_cast<std::uint64_t>(j)));
      if (!ends.insert(end).second) ends.insert(j);
    }
    for (const std::int64_t end : ends) {
      drawn.push_back({static_cast<std::int32_t>(user),
                       static_cast<std::int32_t>(std::max<std::int64_t>(0, end - options_.window)),
                       static_cast<std::int32_t>(end)});
    }
  }
  return drawn;
}

void TrainingBatches::begin_epoch(std::int64_t epoch) const {
  if (epoch_ == epoch) return;
  std::vector<Sample> samples = draws_prefixes() ? drawn_prefixes(epoch) : std::vector<Sample>();
  order_ = random_permutation(key_.fold_in(static_cast<std::uint64_t>(epoch)), samples_per_epoch_);
  if (draws_prefixes()) samples_ = std::move(samples);
  epoch_ = epoch;
}

std::int64_t TrainingBatches::shards_of(std::int64_t rows) const {
  // One shard runs alone, and its ops are parallel inside.
  if (rows <= options_.shard_tokens) return 1;
  const std::int64_t least = block_count(rows, options_.shard_tokens);
  const std::int64_t whole_rounds = block_count(least, kShardsOfARound) * kShardsOfARound;
  // Each shard makes a gradient of the whole item table: many small ones would cost more than they gain.
  return std::clamp(rows / kShortestShard, least, whole_rounds);
}

std::vector<TrainingBatches::Sample> TrainingBatches::spread(std::vector<Sample> samples) {
  std::stable_sort(samples.begin(), samples.end(),
                   [](const Sample& a, const Sample& b) { return a.rows() < b.rows(); });
  // The place among the lengths with its bits reversed: of 2^k neighbours, each comes from another 2^k-th of the
  // lengths.
  const std::size_t places = std::bit_ceil(samples.size());
  std::vector<Sample> order;
  order.reserve(samples.size());
  std::size_t reversed = 0;
  for (std::size_t place = 0; place < places; ++place) {
    if (reversed < samples.size()) order.push_back(samples[reversed]);
    std::size_t bit = places / 2;
    for (; (reversed & bit) != 0; bit /= 2) reversed ^= bit;
    reversed |= bit;
  }
  return order;
}

std::vector<std::vector<TrainingBatches::Sample>> TrainingBatches::cut(const std::vector<Sample>& samples) const {
  const auto into = [&](std::int64_t budget) {
    std::vector<std::vector<Sample>> shards;
    std::int64_t rows = 0;
    for (const Sample& sample : samples) {
      if (shards.empty() || rows + sample.rows() > budget) {
        shards.emplace_back();
        rows = 0;
      }
      shards.back().push_back(sample);
      rows += sample.rows();
    }
    return shards;
  };
  std::int64_t rows = 0;
  for (const Sample& sample : samples) rows += sample.rows();
  // The smallest budget that makes no more shards than wanted, or as few as the largest makes: then the longest of them
  // is as short as can be.
  const auto wanted = static_cast<std::size_t>(shards_of(rows));
  std::int64_t least = rows / static_cast<std::int64_t>(wanted), most = options_.shard_tokens;
  while (least < most) {
    const std::int64_t budget = std::midpoint(least, most);
    if (into(budget).size() <= wanted) {
      most = budget;
    } else {
      least = budget + 1;
    }
  }
  return into(most);
}

TrainingShard TrainingBatches::shard_of(const std::vector<Sample>& samples, std::int64_t first_row) const {
  std::vector<std::span<const std::int32_t>> inputs, targets, before;
  std::vector<std::span<const double>> times;
  std::vector<std::int32_t> users;
  for (const Sample& sample : samples) {
    const auto history = histories_[static_cast<std::size_t>(sample.user)];
    const auto first = static_cast<std::size_t>(sample.begin), length = static_cast<std::size_t>(sample.rows());
    inputs.push_back(history.subspan(first, length));
    targets.push_back(history.subspan(first + 1, length));
    before.push_back(history.first(first));
    if (!times_.empty()) times.push_back(times_[static_cast<std::size_t>(sample.user)].subspan(first, length));
    users.push_back(sample.user);
  }
  TrainingShard shard{pack(inputs, times), pack(targets).items, first_row, false};
  shard.wide = shard.targets.numel() > options_.shard_tokens;
  if (options_.events_before > 0) {
    Sequences older = pack(before, {}, options_.events_before);
    shard.inputs.before = {std::move(older.items), std::move(older.offsets)};
  }
  shard.inputs.users = Tensor::from(users, {static_cast<std::int64_t>(users.size())});
  if (options_.samples == TrainingSamples::prefix) {
    auto* target = shard.targets.mutable_data<std::int32_t>();
    for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
      std::fill(target + shard.inputs.offsets.at(s), target + shard.inputs.offsets.at(s + 1) - 1, -1);
    }
  }
  return shard;
}

TrainingBatch TrainingBatches::batch(std::int64_t epoch, std::int64_t index) const {
  begin_epoch(epoch);
  const std::int64_t begin = index * options_.batch_size;
  const std::int64_t end = begin + std::min(options_.batch_size, samples_per_epoch_ - begin);
  std::vector<Sample> samples;
  for (std::int64_t i = begin; i < end; ++i) {
    samples.push_back(samples_[static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])]);
  }
  TrainingBatch batch;
  for (const std::vector<Sample>& together : cut(spread(std::move(samples)))) {
    TrainingShard shard = shard_of(together, batch.rows);
    const std::int64_t rows = shard.targets.numel();
    batch.targets += options_.samples == TrainingSamples::prefix ? shard.inputs.count() : rows;
    batch.rows += rows;
    batch.shards.push_back(std::move(shard));
  }
  return batch;
}

}  // namespace tally::recsys
