#include "tally/ops/kernels/softmax_lookup.h"

#include <algorithm>
#include <array>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/attention_block.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

// Sizes are constants of lengths and widths, never of the machine: they decide the order of sums.
constexpr std::int64_t kQueries = 64;  // of a block, at most
constexpr std::int64_t kMaxKeys = 256;
// A product up to this many multiplications goes through BLAS without packing, faster than a larger one.
constexpr std::int64_t kProductLimit = 1000000;
// A document is parallel inside when its scores are more than this share of all.
constexpr std::int64_t kLargeShare = 64;

template <class T>
struct Pass {
  const SoftmaxLookupPlan<T>& plan;
  const SoftmaxLookupBackward<T>& data;
  const T* delta;  ///< [M], inner products of an output's and its gradient's rows; null when not needed

  std::int64_t tile_keys(std::int64_t seen) const {
    const std::int64_t width = std::max(plan.width, plan.value_width);
    return std::min(seen, std::clamp(kProductLimit / (kQueries * width) / 16 * 16, kQueries, kMaxKeys));
  }
  /// Rows of a document up to that of the last lookup before position `end`.
  std::int64_t seen(const LookedUp& at, std::int64_t end) const { return plan.order.place(end - 1) + 1 - at.row; }

  AttentionBlock<T> block(std::int64_t rows, std::int64_t keys) const {
    return {rows, keys, plan.width, plan.value_width, plan.scale};
  }

  /// Keys [key, key + count) of a document for the lookups from position `first` on. `visible` has room for them.
  KeySet<T> key_set(const LookedUp& at, std::int64_t first, std::int64_t rows, std::int64_t key, std::int64_t count,
                    std::int64_t* visible) const {
    const std::int64_t row = at.row + key;
    KeySet<T> set{{plan.keys.data + row * plan.keys.stride, plan.keys.stride},
                  {plan.values.data + row * plan.values.stride, plan.values.stride},
                  count};
    if (plan.order.place(first) + 1 >= row + count) return set;
    for (std::int64_t r = 0; r < rows; ++r)
      visible[r] = std::clamp<std::int64_t>(plan.order.place(first + r) + 1 - row, 0, count);
    set.visible = visible;
    return set;
  }

  void load(std::int64_t first, std::int64_t rows, T* queries) const {
    gather_lookups(plan.queries.data, plan.queries.stride, plan.order.lookups_from(first), rows, plan.width, queries);
  }

  void forward(const LookedUp& at, std::int64_t first, std::int64_t rows, T* output, double* log_sum_exp) const {
    const std::int64_t last = seen(at, first + rows), keys = tile_keys(last);
    const std::int64_t* lookups = plan.order.lookups_from(first);
    Scratch<T> room(rows * (plan.width + plan.value_width));
    T *queries = room.data(), *results = queries + rows * plan.width;
    std::array<std::int64_t, kQueries> visible;
    std::array<double, kQueries> sums;
    load(first, rows, queries);
    AttentionBlock<T> tile = block(rows, keys);
    tile.start(rows);
    for (std::int64_t key = 0; key < last; key += keys) {
      tile.add({queries, plan.width}, rows, key_set(at, first, rows, key, std::min(keys, last - key), visible.data()),
               {results, plan.value_width});
    }
    tile.finish(rows, {results, plan.value_width}, sums.data(), 1);
    scatter_lookups(results, lookups, rows, plan.value_width, false, output);
    scatter_lookups(sums.data(), lookups, rows, 1, false, log_sum_exp);
  }

  /// Lookups from position `first` on against keys [key, key + count).
  void backward(const LookedUp& at, std::int64_t first, std::int64_t rows, std::int64_t key, std::int64_t count) const {
    const std::int64_t width = plan.width, value_width = plan.value_width, row = at.row + key;
    const std::int64_t* lookups = plan.order.lookups_from(first);
    Scratch<T> room(rows * (2 * width + value_width));
    T *queries = room.data(), *change = queries + rows * width, *gradient = change + rows * width;
    std::array<std::int64_t, kQueries> visible;
    std::array<double, kQueries> sums;
    std::array<T, kQueries> means;
    load(first, rows, queries);
    gather_lookups(data.gradient_output, value_width, lookups, rows, value_width, gradient);
    gather_lookups(data.log_sum_exp, 1, lookups, rows, 1, sums.data());
    if (delta != nullptr) gather_lookups(delta, 1, lookups, rows, 1, means.data());
    MatrixRows<T> gradient_queries;
    if (data.gradient_queries != nullptr) {
      std::fill_n(change, rows * width, T{0});
      gradient_queries = {change, width};
    }
    KeySetGradient<T> to;
    if (data.gradient_keys != nullptr) to.keys = {data.gradient_keys + row * width, width};
    if (data.gradient_values != nullptr) to.values = {data.gradient_values + row * value_width, value_width};
    block(rows, count)
        .backward({queries, width}, rows, key_set(at, first, rows, key, count, visible.data()), {gradient, value_width},
                  sums.data(), means.data(), 1, gradient_queries, to);
    if (data.gradient_queries != nullptr) scatter_lookups(change, lookups, rows, width, true, data.gradient_queries);
  }

  /// Step s pairs tile i of the keys with block i + s of the queries, modulo the larger number of the two.
  void backward(const LookedUp& at) const {
    const std::int64_t last = seen(at, at.end), keys = tile_keys(last);
    const std::int64_t tiles = block_count(last, keys), blocks = block_count(at.end - at.first, kQueries),
                       count = std::max(tiles, blocks);
    for (std::int64_t step = 0; step < count; ++step) {
      parallel_for(tiles, 1, [&](std::int64_t tile, std::int64_t) {
        const std::int64_t first = at.first + (tile + step) % count * kQueries, key = tile * keys;
        if (first >= at.end) return;
        const std::int64_t rows = std::min(kQueries, at.end - first), end = seen(at, first + rows);
        if (key < end) backward(at, first, rows, key, std::min(keys, end - key));
      });
    }
  }
};

}  // namespace

template <class T>
void softmax_lookup_forward(const SoftmaxLookupPlan<T>& plan, T* output, double* log_sum_exp) {
  struct Task {
    LookedUp at;
    std::int64_t first;
  };
  std::vector<Task> tasks;
  for (const LookedUp& at : looked_up(plan.order)) {
    for (std::int64_t first = at.first; first < at.end; first += kQueries) tasks.push_back({at, first});
  }
  const SoftmaxLookupBackward<T> none;
  const Pass<T> pass{plan, none, nullptr};
  parallel_for(static_cast<std::int64_t>(tasks.size()), 1, [&](std::int64_t i, std::int64_t) {
    const Task& task = tasks[static_cast<std::size_t>(i)];
    pass.forward(task.at, task.first, std::min(kQueries, task.at.end - task.first), output, log_sum_exp);
  });
}

template <class T>
void softmax_lookup_backward(const SoftmaxLookupPlan<T>& plan, const SoftmaxLookupBackward<T>& data) {
  const auto count = static_cast<std::int64_t>(plan.order.places.size());
  Scratch<T> delta;
  if (data.gradient_queries != nullptr || data.gradient_keys != nullptr) {
    delta = Scratch<T>(count);
    head_products(data.output, data.gradient_output, count, 1, plan.value_width, delta.data());
  }
  const Pass<T> pass{plan, data, delta.data()};
  const auto scores = [&](const LookedUp& at) {
    return static_cast<double>(at.end - at.first) * static_cast<double>(pass.seen(at, at.end));
  };
  double all = 0;
  const std::vector<LookedUp> documents = looked_up(plan.order);
  for (const LookedUp& at : documents) all += scores(at);
  std::vector<LookedUp> small, large;
  for (const LookedUp& at : documents) (scores(at) * kLargeShare > all ? large : small).push_back(at);
  parallel_for(static_cast<std::int64_t>(small.size()), 1,
               [&](std::int64_t i, std::int64_t) { pass.backward(small[static_cast<std::size_t>(i)]); });
  for (const LookedUp& at : large) pass.backward(at);
}

template void softmax_lookup_forward(const SoftmaxLookupPlan<float>&, float*, double*);
template void softmax_lookup_forward(const SoftmaxLookupPlan<double>&, double*, double*);
template void softmax_lookup_backward(const SoftmaxLookupPlan<float>&, const SoftmaxLookupBackward<float>&);
template void softmax_lookup_backward(const SoftmaxLookupPlan<double>&, const SoftmaxLookupBackward<double>&);

}  // namespace tally::kernels
