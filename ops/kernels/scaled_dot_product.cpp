#include "tally/ops/kernels/scaled_dot_product.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

/// Queries whose scores are in memory at once, for one head.
constexpr std::int64_t kScoreRows = 64;
/// Tiles that one task goes through.
constexpr std::int64_t kScoreTiles = 8;

std::int64_t length_at(std::span<const std::int64_t> bounds, std::int64_t i) {
  return bounds[static_cast<std::size_t>(i) + 1] - bounds[static_cast<std::size_t>(i)];
}

std::int64_t longest_of(std::span<const std::int64_t> bounds) {
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i + 1 < static_cast<std::int64_t>(bounds.size()); ++i)
    longest = std::max(longest, length_at(bounds, i));
  return longest;
}

/// Queries [first, first + rows) of a pair.
struct QueryTile {
  std::int64_t pair, first, rows;
};

std::vector<QueryTile> query_tiles(std::span<const std::int64_t> bounds, std::int64_t begin, std::int64_t end) {
  std::vector<QueryTile> tiles;
  for (std::int64_t pair = begin; pair < end; ++pair) {
    const std::int64_t length = length_at(bounds, pair);
    for (std::int64_t first = 0; first < length; first += kScoreRows)
      tiles.push_back({pair, first, std::min(kScoreRows, length - first)});
  }
  return tiles;
}

/// The first key and the one behind the last that a query's place lets it see.
struct SeenKeys {
  std::int64_t begin, end;
};

template <class T>
SeenKeys seen_keys(const ScaledDotProductPlan<T>& plan, std::int64_t pair, std::int64_t query) {
  const std::int64_t keys = length_at(plan.key_bounds, pair);
  const std::int64_t place = query + (plan.starts == nullptr ? 0 : plan.starts[pair]);
  return {plan.left < 0 ? 0 : std::clamp<std::int64_t>(place - plan.left, 0, keys),
          plan.right < 0 ? keys : std::clamp<std::int64_t>(place + plan.right + 1, 0, keys)};
}

/// The softmax of a row of scores, in place; zeros where all are -infinity.
template <class T>
void normalize_scores(T* row, std::int64_t n) {
  const T largest = max_value(row, n);
  if (largest == -std::numeric_limits<T>::infinity()) {
    std::replace_if(
        row, row + n, [](T score) { return !std::isnan(score); }, T{0});
    return;
  }
  scale(row, static_cast<T>(1 / exp_and_sum(row, row, T{1}, largest, n)), n);
}

/// One head of a tile of queries and the keys [begin, end) of its pair.
template <class T>
struct ScoreTile {
  const ScaledDotProductPlan<T>& plan;
  QueryTile tile;
  std::int64_t head, begin, end;

  /// With the keys that one of its queries sees.
  static ScoreTile seen(const ScaledDotProductPlan<T>& plan, const QueryTile& tile, std::int64_t head) {
    const std::int64_t begin = seen_keys(plan, tile.pair, tile.first).begin,
                       end = seen_keys(plan, tile.pair, tile.first + tile.rows - 1).end;
    return {plan, tile, head, begin, std::max(begin, end)};
  }

  std::int64_t keys() const { return end - begin; }
  std::int64_t key_head() const { return head / (plan.heads / plan.key_heads); }
  std::int64_t row() const { return plan.bounds[static_cast<std::size_t>(tile.pair)] + tile.first; }
  std::int64_t key_row() const { return plan.key_bounds[static_cast<std::size_t>(tile.pair)] + begin; }
  const T* q() const { return plan.q.data + row() * plan.q.stride + head * plan.width; }
  const T* k() const { return plan.k.data + key_row() * plan.k.stride + key_head() * plan.width; }
  const T* v() const { return plan.v.data + key_row() * plan.v.stride + key_head() * plan.value_width; }
  /// Of a matrix like the output, like q, like k or like v, dense.
  std::int64_t output_at() const { return (row() * plan.heads + head) * plan.value_width; }
  std::int64_t q_at() const { return (row() * plan.heads + head) * plan.width; }
  std::int64_t k_at() const { return (key_row() * plan.key_heads + key_head()) * plan.width; }
  std::int64_t v_at() const { return (key_row() * plan.key_heads + key_head()) * plan.value_width; }

  void products(T* scores) const {
    blas::gemm(Transpose::no, Transpose::yes, tile.rows, keys(), plan.width, static_cast<T>(plan.scale), q(),
               plan.q.stride, k(), plan.k.stride, T{0}, scores, keys());
  }
  void cap(T* scores) const {
    if (plan.soft_cap <= 0) return;
    const auto most = static_cast<T>(plan.soft_cap);
    for (std::int64_t i = 0; i < tile.rows * keys(); ++i) scores[i] = most * std::tanh(scores[i] / most);
  }
  void add_bias(T* scores) const {
    constexpr T kUnseen = -std::numeric_limits<T>::infinity();
    for (std::int64_t i = 0; i < tile.rows; ++i, scores += keys()) {
      const std::int64_t query = tile.first + i;
      const SeenKeys seen = seen_keys(plan, tile.pair, query);
      const std::int64_t first = std::clamp(seen.begin, begin, end), last = std::clamp(seen.end, first, end);
      std::fill(scores, scores + (first - begin), kUnseen);
      std::fill(scores + (last - begin), scores + keys(), kUnseen);
      if (plan.bias.data != nullptr) {
        const T* const bias = plan.bias.data + plan.bias.row(tile.pair, head, query);
        for (std::int64_t j = first; j < last; ++j) {
          const T added = bias[j * plan.bias.steps[3]];
          // A choice, not a sum: a score that is no number is hidden, too.
          scores[j - begin] = added == kUnseen ? kUnseen : scores[j - begin] + added;
        }
      }
      if (plan.visible.data != nullptr) {
        const std::uint8_t* const visible = plan.visible.data + plan.visible.row(tile.pair, head, query);
        for (std::int64_t j = first; j < last; ++j) {
          if (visible[j * plan.visible.steps[3]] == 0) scores[j - begin] = kUnseen;
        }
      }
    }
  }
  void normalize(T* scores) const {
    for (std::int64_t i = 0; i < tile.rows; ++i) normalize_scores(scores + i * keys(), keys());
  }
};

/// What a task of the backward pass holds of a tile: probabilities, gradients of scores, and slopes of the cap.
template <class T>
struct BackwardTile {
  Scratch<T> probabilities, gradients, slopes;

  BackwardTile(const ScaledDotProductPlan<T>& plan, std::int64_t size)
      : probabilities(size), gradients(size), slopes(plan.soft_cap > 0 ? size : 0) {}

  void scores_of(const ScoreTile<T>& at) {
    T* const p = probabilities.data();
    at.products(p);
    at.cap(p);
    if (at.plan.soft_cap > 0) {
      for (std::int64_t i = 0; i < at.tile.rows * at.keys(); ++i) {
        const T share = p[i] / static_cast<T>(at.plan.soft_cap);
        slopes.data()[i] = 1 - share * share;
      }
    }
    at.add_bias(p);
    at.normalize(p);
  }

  /// The gradients of biased scores, from those of probabilities.
  void through_softmax(std::int64_t rows, std::int64_t keys) {
    const T* p = probabilities.data();
    T* g = gradients.data();
    for (std::int64_t i = 0; i < rows; ++i, p += keys, g += keys) {
      double mean = 0;
      for (std::int64_t j = 0; j < keys; ++j) mean += double{p[j]} * double{g[j]};
      for (std::int64_t j = 0; j < keys; ++j) g[j] = static_cast<T>(double{p[j]} * (double{g[j]} - mean));
    }
  }

  void add_to_bias(const ScoreTile<T>& at, double* bias) const {
    const PairTable<T>& table = at.plan.bias;
    const T* g = gradients.data();
    for (std::int64_t i = 0; i < at.tile.rows; ++i, g += at.keys()) {
      double* const to = bias + table.row(at.tile.pair, at.head, at.tile.first + i);
      for (std::int64_t j = at.begin; j < at.end; ++j) to[j * table.steps[3]] += double{g[j - at.begin]};
    }
  }

  void through_cap(std::int64_t size) {
    for (std::int64_t i = 0; i < slopes.size() && i < size; ++i) gradients.data()[i] *= slopes.data()[i];
  }
};

template <class T>
void tile_backward(const ScoreTile<T>& at, const T* gradient_output, const ScaledDotProductGradients<T>& gradients,
                   BackwardTile<T>& held) {
  const ScaledDotProductPlan<T>& plan = at.plan;
  const std::int64_t rows = at.tile.rows, keys = at.keys(), output_stride = plan.heads * plan.value_width,
                     q_stride = plan.heads * plan.width, k_stride = plan.key_heads * plan.width,
                     v_stride = plan.key_heads * plan.value_width;
  const T* const gy = gradient_output + at.output_at();
  held.scores_of(at);
  if (gradients.v != nullptr) {
    blas::gemm(Transpose::yes, Transpose::no, keys, plan.value_width, rows, T{1}, held.probabilities.data(), keys, gy,
               output_stride, T{1}, gradients.v + at.v_at(), v_stride);
  }
  if (gradients.q == nullptr && gradients.k == nullptr && gradients.bias == nullptr) return;
  T* const g = held.gradients.data();
  blas::gemm(Transpose::no, Transpose::yes, rows, keys, plan.value_width, T{1}, gy, output_stride, at.v(),
             plan.v.stride, T{0}, g, keys);
  held.through_softmax(rows, keys);
  if (gradients.bias != nullptr) held.add_to_bias(at, gradients.bias);
  held.through_cap(rows * keys);
  const auto scale = static_cast<T>(plan.scale);
  if (gradients.q != nullptr) {
    blas::gemm(Transpose::no, Transpose::no, rows, plan.width, keys, scale, g, keys, at.k(), plan.k.stride, T{0},
               gradients.q + at.q_at(), q_stride);
  }
  if (gradients.k != nullptr) {
    blas::gemm(Transpose::yes, Transpose::no, keys, plan.width, rows, scale, g, keys, at.q(), plan.q.stride, T{1},
               gradients.k + at.k_at(), k_stride);
  }
}

template <class T>
std::int64_t tile_size(const ScaledDotProductPlan<T>& plan) {
  return std::min(kScoreRows, longest_of(plan.bounds)) * longest_of(plan.key_bounds);
}

std::int64_t pairs_of(std::span<const std::int64_t> bounds) { return static_cast<std::int64_t>(bounds.size()) - 1; }

}  // namespace

template <class T>
void scaled_dot_product_forward(const ScaledDotProductPlan<T>& plan, T* output) {
  const std::vector<QueryTile> tiles = query_tiles(plan.bounds, 0, pairs_of(plan.bounds));
  parallel_for(
      static_cast<std::int64_t>(tiles.size()) * plan.heads, kScoreTiles, [&](std::int64_t begin, std::int64_t end) {
        Scratch<T> scores(tile_size(plan));
        for (std::int64_t i = begin; i < end; ++i) {
          const QueryTile& tile = tiles[static_cast<std::size_t>(i / plan.heads)];
          const auto at = ScoreTile<T>::seen(plan, tile, i % plan.heads);
          at.products(scores.data());
          at.cap(scores.data());
          at.add_bias(scores.data());
          at.normalize(scores.data());
          blas::gemm(Transpose::no, Transpose::no, tile.rows, plan.value_width, at.keys(), T{1}, scores.data(),
                     at.keys(), at.v(), plan.v.stride, T{0}, output + at.output_at(), plan.heads * plan.value_width);
        }
      });
}

template <class T>
void scaled_dot_product_scores(const ScaledDotProductPlan<T>& plan, int steps, T* scores) {
  for (std::int64_t pair = 0; pair < pairs_of(plan.bounds); ++pair) {
    const std::int64_t queries = length_at(plan.bounds, pair), keys = length_at(plan.key_bounds, pair);
    for (std::int64_t head = 0; head < plan.heads; ++head, scores += queries * keys) {
      const ScoreTile<T> at{plan, {pair, 0, queries}, head, 0, keys};
      at.products(scores);
      if (steps > 0) at.cap(scores);
      if (steps > 1) at.add_bias(scores);
      if (steps > 2) at.normalize(scores);
    }
  }
}

template <class T>
void scaled_dot_product_backward(const ScaledDotProductPlan<T>& plan, const T* gradient_output,
                                 const ScaledDotProductGradients<T>& gradients) {
  const std::int64_t pairs = pairs_of(plan.bounds), keys = plan.key_bounds.back(), group = plan.heads / plan.key_heads;
  if (gradients.k != nullptr) std::fill_n(gradients.k, keys * plan.key_heads * plan.width, T{0});
  if (gradients.v != nullptr) std::fill_n(gradients.v, keys * plan.key_heads * plan.value_width, T{0});
  // Those that add to one place of the bias's gradient are one task's, in order.
  const bool pairs_share = gradients.bias != nullptr && plan.bias.steps[0] == 0,
             heads_share = gradients.bias != nullptr && plan.bias.steps[1] == 0;
  const std::int64_t pairs_each = pairs_share ? std::max<std::int64_t>(pairs, 1) : 1,
                     heads_each = heads_share ? plan.key_heads : 1;
  const std::int64_t head_tasks = plan.key_heads / heads_each;
  parallel_for(block_count(pairs, pairs_each) * head_tasks, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t first_pair = task / head_tasks * pairs_each, first_head = task % head_tasks * heads_each * group;
    BackwardTile<T> held(plan, tile_size(plan));
    for (const QueryTile& tile : query_tiles(plan.bounds, first_pair, std::min(pairs, first_pair + pairs_each))) {
      for (std::int64_t head = first_head; head < first_head + heads_each * group; ++head)
        tile_backward(ScoreTile<T>::seen(plan, tile, head), gradient_output, gradients, held);
    }
  });
}

#define TALLY_INSTANTIATE(T)                                                             \
  template void scaled_dot_product_forward<T>(const ScaledDotProductPlan<T>&, T*);       \
  template void scaled_dot_product_scores<T>(const ScaledDotProductPlan<T>&, int, T*);   \
  template void scaled_dot_product_backward<T>(const ScaledDotProductPlan<T>&, const T*, \
                                               const ScaledDotProductGradients<T>&);
TALLY_INSTANTIATE(float)
TALLY_INSTANTIATE(double)
#undef TALLY_INSTANTIATE

}  // namespace tally::kernels
