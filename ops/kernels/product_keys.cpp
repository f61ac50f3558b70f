#include "tally/ops/kernels/product_keys.h"

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

constexpr std::int64_t kRowBlock = 64;  // rows whose scores with a table are one product

/// A sub-key with its score.
template <class T>
struct Ranked {
  T score;
  std::int64_t index;
};

/// A pair of ranks with the sum of their scores.
template <class T>
struct Pair {
  T score;
  std::int64_t a, b;
};

/// NaN, which sums of opposite infinities are, would leave no order: it is worst.
template <class T>
T ordered(T score) {
  return std::isnan(score) ? -std::numeric_limits<T>::infinity() : score;
}

/// The best of a table's sub-keys, best first.
template <class T>
void rank(const T* scores, std::int64_t keys, std::int64_t best, std::vector<Ranked<T>>& out) {
  out.resize(static_cast<std::size_t>(keys));
  for (std::int64_t i = 0; i < keys; ++i) out[static_cast<std::size_t>(i)] = {ordered(scores[i]), i};
  const auto better = [](const Ranked<T>& x, const Ranked<T>& y) {
    return x.score != y.score ? x.score > y.score : x.index < y.index;
  };
  std::partial_sort(out.begin(), out.begin() + best, out.end(), better);
}

}  // namespace

template <class T>
void choose_product_keys(const ProductKeyPlan& plan, const T* queries, const T* keys, T* scores, std::int64_t* slots) {
  const std::int64_t best = std::min(plan.chosen, plan.keys), table = plan.keys * plan.width;
  const std::int64_t columns = plan.heads * 2 * plan.width;
  parallel_for(plan.rows, kRowBlock, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t rows = end - begin;
    Scratch<T> products(2 * rows * plan.keys);
    std::vector<Ranked<T>> ranked[2];
    std::vector<Pair<T>> pairs;
    for (std::int64_t h = 0; h < plan.heads; ++h) {
      for (std::int64_t half = 0; half < 2; ++half) {
        blas::gemm(Transpose::no, Transpose::yes, rows, plan.keys, plan.width, T{1},
                   queries + begin * columns + (2 * h + half) * plan.width, columns, keys + (2 * h + half) * table,
                   plan.width, T{0}, products.data() + half * rows * plan.keys, plan.keys);
      }
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t half = 0; half < 2; ++half)
          rank(products.data() + (half * rows + r) * plan.keys, plan.keys, best, ranked[half]);
        // A pair with (a + 1) (b + 1) > k has k better ones: those of ranks up to its own.
        pairs.clear();
        for (std::int64_t a = 0; a < best; ++a) {
          for (std::int64_t b = 0; b < best && (a + 1) * (b + 1) <= plan.chosen; ++b) {
            pairs.push_back(
                {ordered(ranked[0][static_cast<std::size_t>(a)].score + ranked[1][static_cast<std::size_t>(b)].score),
                 a, b});
          }
        }
        const auto better = [](const Pair<T>& x, const Pair<T>& y) {
          if (x.score != y.score) return x.score > y.score;
          return x.a != y.a ? x.a < y.a : x.b < y.b;
        };
        std::partial_sort(pairs.begin(), pairs.begin() + plan.chosen, pairs.end(), better);
        const std::int64_t at = ((begin + r) * plan.heads + h) * plan.chosen;
        for (std::int64_t j = 0; j < plan.chosen; ++j) {
          const Pair<T>& pair = pairs[static_cast<std::size_t>(j)];
          scores[at + j] = pair.score;
          slots[at + j] = ranked[0][static_cast<std::size_t>(pair.a)].index * plan.keys +
                          ranked[1][static_cast<std::size_t>(pair.b)].index;
        }
      }
    }
  });
}

template <class T>
void product_keys_backward(const ProductKeyPlan& plan, const T* queries, const T* keys, const std::int64_t* slots,
                           const T* gradient_scores, T* gradient_queries, T* gradient_keys) {
  const std::int64_t columns = plan.heads * 2 * plan.width, table = plan.keys * plan.width;
  // Calls body(sub-key, gradient of its score) for the places of a row and table.
  const auto for_places = [&](std::int64_t row, std::int64_t h, std::int64_t half, auto&& body) {
    const std::int64_t at = (row * plan.heads + h) * plan.chosen;
    for (std::int64_t j = at; j < at + plan.chosen; ++j)
      body(half == 0 ? slots[j] / plan.keys : slots[j] % plan.keys, gradient_scores[j]);
  };
  if (gradient_queries != nullptr) {
    parallel_for(plan.rows, kRowBlock, [&](std::int64_t begin, std::int64_t end) {
      std::fill(gradient_queries + begin * columns, gradient_queries + end * columns, T{0});
      for (std::int64_t row = begin; row < end; ++row) {
        for (std::int64_t part = 0; part < 2 * plan.heads; ++part) {
          for_places(row, part / 2, part % 2, [&](std::int64_t key, T gradient) {
            axpy(gradient_queries + row * columns + part * plan.width, gradient, keys + part * table + key * plan.width,
                 plan.width);
          });
        }
      }
    });
  }
  if (gradient_keys == nullptr) return;
  parallel_for(2 * plan.heads, 1, [&](std::int64_t part, std::int64_t) {
    auto sums = Scratch<double>::zeros(table);  // over all rows
    for (std::int64_t row = 0; row < plan.rows; ++row) {
      const T* query = queries + row * columns + part * plan.width;
      for_places(row, part / 2, part % 2, [&](std::int64_t key, T gradient) {
        double* to = sums.data() + key * plan.width;
        for (std::int64_t i = 0; i < plan.width; ++i)
          to[i] += static_cast<double>(gradient) * static_cast<double>(query[i]);
      });
    }
    std::transform(sums.data(), sums.data() + table, gradient_keys + part * table,
                   [](double x) { return static_cast<T>(x); });
  });
}

template void choose_product_keys(const ProductKeyPlan&, const float*, const float*, float*, std::int64_t*);
template void choose_product_keys(const ProductKeyPlan&, const double*, const double*, double*, std::int64_t*);
template void product_keys_backward(const ProductKeyPlan&, const float*, const float*, const std::int64_t*,
                                    const float*, float*, float*);
template void product_keys_backward(const ProductKeyPlan&, const double*, const double*, const std::int64_t*,
                                    const double*, double*, double*);

}  // namespace tally::kernels
