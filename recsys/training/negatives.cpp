#include "tally/recsys/training/negatives.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tally::recsys {
namespace {

// Draws of one negative before the rest of the catalogue is listed for it.
constexpr std::uint64_t kAttempts = 32;

/// Index in [0, n) of a random word; the bias is below n / 2^32.
std::size_t scaled(std::uint32_t word, std::size_t n) {
  return static_cast<std::size_t>(std::uint64_t{word} * n >> 32);
}

double uniform_of(std::uint32_t word) { return (word + 0.5) * 0x1p-32; }

}  // namespace

AliasTable::AliasTable(std::span<const double> weights) : threshold_(weights.size()), alias_(weights.size()) {
  double sum = 0;
  for (const double weight : weights) {
    check<ValueError>(std::isfinite(weight) && weight >= 0, "AliasTable",
                      "needs finite weights that are not negative; got ", weight);
    sum += weight;
  }
  check<ValueError>(sum > 0, "AliasTable", "needs a weight above 0");
  // Vose's construction: columns of less than average weight are filled up by one of more.
  std::vector<double> height(weights.size());
  std::vector<std::size_t> low, high;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    height[i] = weights[i] / sum * static_cast<double>(weights.size());
    (height[i] < 1 ? low : high).push_back(i);
  }
  constexpr double kWhole = 0x1p32;
  while (!low.empty() && !high.empty()) {
    const std::size_t column = low.back(), donor = high.back();
    low.pop_back();
    threshold_[column] = static_cast<std::uint64_t>(height[column] * kWhole);
    alias_[column] = static_cast<std::int32_t>(donor);
    height[donor] -= 1 - height[column];
    if (height[donor] < 1) {
      high.pop_back();
      low.push_back(donor);
    }
  }
  // What rounding left over is whole, but for weights of 0, which stand for nothing.
  const std::size_t heaviest =
      static_cast<std::size_t>(std::max_element(weights.begin(), weights.end()) - weights.begin());
  for (const auto* rest : {&low, &high}) {
    for (const std::size_t column : *rest) {
      threshold_[column] = weights[column] > 0 ? static_cast<std::uint64_t>(kWhole) : 0;
      alias_[column] = static_cast<std::int32_t>(heaviest);
    }
  }
}

NegativeSampler::NegativeSampler(const NegativeSampling& sampling, std::vector<std::span<const std::int32_t>> histories,
                                 std::int64_t items)
    : sampling_(sampling),
      histories_(std::move(histories)),
      items_(items),
      drawable_(items),
      log_probabilities_(Tensor::full({items}, -std::log(static_cast<double>(items)), DType::f64)) {
  using Scope = NegativeSampling::Scope;
  using Exclude = NegativeSampling::Exclude;
  check<ConfigError>(sampling.count >= 1, "negatives", "needs at least one negative; got ", sampling.count);
  check<ConfigError>(std::isfinite(sampling.alpha), "negatives", "needs a finite alpha; got ", sampling.alpha);
  check<ConfigError>(sampling.exclude != Exclude::target || sampling.scope == Scope::position, "negatives",
                     "needs negatives of each position to exclude its target");
  check<ConfigError>(sampling.exclude != Exclude::history || sampling.scope != Scope::batch, "negatives",
                     "needs negatives of each position or sequence to exclude the user's items; those of a batch "
                     "belong to many users");
  check<ConfigError>(sampling.replacement || sampling.scope != Scope::position, "negatives",
                     "needs shared negatives (of a sequence or batch) to draw without replacement");
  if (sampling.distribution == NegativeSampling::Distribution::popularity) {
    std::vector<double> counts(static_cast<std::size_t>(items));
    for (const auto history : histories_) {
      for (const std::int32_t item : history) ++counts[static_cast<std::size_t>(item)];
    }
    double sum = 0;
    for (double& count : counts) {
      if (count > 0) count = std::pow(count, sampling.alpha);
      sum += count;
    }
    weights_ = std::move(counts);
    alias_ = AliasTable(weights_);
    drawable_ = items - std::count(weights_.begin(), weights_.end(), 0.0);
    auto log_q = log_probabilities_.mutable_span<double>();
    for (std::size_t i = 0; i < log_q.size(); ++i) log_q[i] = std::log(weights_[i] / sum);
  }
  check<ConfigError>(sampling.replacement || sampling.count <= drawable_, "negatives", "needs at most the ", drawable_,
                     " items that can be drawn, without replacement; got ", sampling.count);
}

/// The draws of one shard: what is excluded for the sequence at hand, and scratch space.
class NegativeSampler::Draws {
 public:
  Draws(const NegativeSampler& sampler, RngKey key)
      : sampler_(sampler), key_(key.fold_in("negatives")), again_(key.fold_in("negatives again")) {
    if (sampler.sampling_.exclude == NegativeSampling::Exclude::history) {
      excluded_.resize(static_cast<std::size_t>(sampler.items_));
    }
  }

  /// From here on draws are for this user's sequence.
  void enter(std::int32_t user) {
    if (excluded_.empty()) return;
    for (const std::int32_t item : history_) excluded_[static_cast<std::size_t>(item)] = 0;
    user_ = user;
    history_ = sampler_.histories_[static_cast<std::size_t>(user)];
    for (const std::int32_t item : history_) excluded_[static_cast<std::size_t>(item)] = 1;
  }

  /// K draws for each of `rows` rows of the batch from `first_row`. `targets` are theirs, or null where none matters.
  void with_replacement(std::int64_t first_row, std::int64_t rows, const std::int32_t* targets, std::int32_t* out) {
    const std::int64_t count = rows * sampler_.sampling_.count;
    const std::uint64_t first = static_cast<std::uint64_t>(first_row * sampler_.sampling_.count);
    words_.resize(static_cast<std::size_t>(2 * count));
    random_bits(key_, 0, 2 * first, 2 * count, words_.data());
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int32_t target = targets == nullptr ? -1 : targets[i / sampler_.sampling_.count];
      const std::uint32_t* word = words_.data() + 2 * i;
      out[i] = item_of(word);
      if (is_excluded(out[i], target)) out[i] = again(first + static_cast<std::uint64_t>(i), target);
    }
  }

  /// K different items for a row; fewer when no more are left, -1 in the places behind them.
  void without_replacement(std::int64_t row, std::int32_t* out) {
    list_rest(-1);
    const auto wanted = std::min(static_cast<std::size_t>(sampler_.sampling_.count), rest_.size());
    words_.resize(sampler_.weights_.empty() ? wanted : static_cast<std::size_t>(sampler_.items_));
    random_bits(key_, static_cast<std::uint64_t>(row), 0, static_cast<std::int64_t>(words_.size()), words_.data());
    if (sampler_.weights_.empty()) {
      for (std::size_t i = 0; i < wanted; ++i) std::swap(rest_[i], rest_[i + scaled(words_[i], rest_.size() - i)]);
    } else {
      // Drawn one after the other by weight is the order of exponential waiting times (Efraimidis & Spirakis 2006).
      std::vector<std::pair<double, std::int32_t>> waits;
      for (const std::int32_t item : rest_) {
        waits.emplace_back(-std::log(uniform_of(words_[static_cast<std::size_t>(item)])) / sampler_.weight(item), item);
      }
      std::partial_sort(waits.begin(), waits.begin() + static_cast<std::ptrdiff_t>(wanted), waits.end());
      for (std::size_t i = 0; i < wanted; ++i) rest_[i] = waits[i].second;
    }
    std::copy_n(rest_.begin(), wanted, out);
    std::fill(out + wanted, out + sampler_.sampling_.count, -1);
  }

 private:
  std::int32_t item_of(const std::uint32_t* word) const {
    if (sampler_.alias_.empty()) {
      return static_cast<std::int32_t>(scaled(word[0], static_cast<std::size_t>(sampler_.items_)));
    }
    return sampler_.alias_.at(word[0], word[1]);
  }

  bool is_excluded(std::int32_t item, std::int32_t target) const {
    if (!excluded_.empty()) return excluded_[static_cast<std::size_t>(item)] != 0;
    return sampler_.sampling_.exclude == NegativeSampling::Exclude::target && item == target;
  }

  std::int32_t again(std::uint64_t draw, std::int32_t target) {
    std::uint32_t word[2];
    for (std::uint64_t attempt = 1; attempt <= kAttempts; ++attempt) {
      random_bits(again_, attempt, 2 * draw, 2, word);
      const std::int32_t item = item_of(word);
      if (!is_excluded(item, target)) return item;
    }
    // Nearly everything is excluded: draw from the rest, which is the same distribution.
    list_rest(target);
    double sum = 0;
    for (const std::int32_t item : rest_) sum += sampler_.weight(item);
    random_bits(again_, 0, 2 * draw, 1, word);
    double left = uniform_of(word[0]) * sum;
    for (const std::int32_t item : rest_) {
      left -= sampler_.weight(item);
      if (left < 0) return item;
    }
    return rest_.back();
  }

  /// The items that can be drawn.
  void list_rest(std::int32_t target) {
    rest_.clear();
    for (std::int32_t item = 0; item < sampler_.items_; ++item) {
      if (sampler_.weight(item) > 0 && !is_excluded(item, target)) rest_.push_back(item);
    }
    check<ValueError>(!rest_.empty(), "negatives", "finds no item to draw for user ", user_,
                      ", who has all that could be drawn");
  }

  const NegativeSampler& sampler_;
  RngKey key_, again_;
  std::int32_t user_ = 0;
  std::span<const std::int32_t> history_;
  std::vector<std::uint8_t> excluded_;  // by item; empty when no user's items are
  std::vector<std::uint32_t> words_;
  std::vector<std::int32_t> rest_;
};

Tensor NegativeSampler::draw(const TrainingShard& shard, RngKey key) const {
  using Scope = NegativeSampling::Scope;
  const std::int64_t count = sampling_.count, sequences = shard.inputs.count();
  const Offsets& offsets = shard.inputs.offsets;
  Draws draws(*this, key);
  const auto shared = [&](std::int64_t row, std::int32_t* out) {
    if (sampling_.replacement) {
      draws.with_replacement(row, 1, nullptr, out);
    } else {
      draws.without_replacement(row, out);
    }
  };
  if (sampling_.scope == Scope::batch) {
    Tensor negatives({count}, DType::i32);
    shared(0, negatives.mutable_data<std::int32_t>());
    return negatives;
  }
  const bool each = sampling_.scope == Scope::position;
  Tensor negatives = Tensor::zeros({each ? offsets.total() : sequences, count}, DType::i32);
  auto* out = negatives.mutable_data<std::int32_t>();
  const auto* targets = shard.targets.data<std::int32_t>();
  const auto* users = shard.inputs.users.data<std::int32_t>();
  for (std::int64_t s = 0; s < sequences; ++s) {
    draws.enter(users[s]);
    std::int64_t begin = offsets.at(s), end = offsets.at(s + 1);
    if (!each) {
      shared(shard.first_row + begin, out + s * count);
      continue;
    }
    while (begin < end && targets[begin] < 0) ++begin;
    while (begin < end && targets[end - 1] < 0) --end;
    draws.with_replacement(shard.first_row + begin, end - begin, targets + begin, out + begin * count);
  }
  return negatives;
}

}  // namespace tally::recsys
