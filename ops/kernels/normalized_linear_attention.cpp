#include "tally/ops/kernels/normalized_linear_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/feature_map.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

// Rows of a chunk: constants of the widths, never of the machine, as they decide the order of sums. A chunk's products
// with itself cost as much as those with the state when it has as many rows as there are features.
constexpr std::int64_t kChunk = 64;
constexpr std::int64_t kLongChunk = 128;
// A row whose reference lies this far above the chunk's first one takes its weights one by one.
constexpr double kSafeRange = 40;

template <class T>
constexpr T lowest = -std::numeric_limits<T>::infinity();

/// exp(a - b) for a <= b; 0 for a of -infinity, whatever b.
template <class T>
T relative(T a, T b) {
  return a == lowest<T> ? T{0} : std::exp(a - b);
}

/// A chunk of rows of one head of one sequence: its matrices and the weights that relate them.
template <class T>
struct Chunk {
  Chunk(const NormalizedLinearAttentionPlan<T>& plan, std::int64_t longest)
      : rows_limit(std::min(longest, plan.features <= 96 ? kChunk : kLongChunk)),
        features(plan.features),
        columns(plan.value_width + 1),
        room(rows_limit * (3 * features + 3 * columns + 2 * rows_limit + 5) + features * columns) {
    T* at = room.data();
    const auto take = [&](std::int64_t count) {
      T* taken = at;
      at += count;
      return taken;
    };
    queries = take(rows_limit * features), keys = take(rows_limit * features), change = take(rows_limit * features);
    values = take(rows_limit * columns), sums = take(rows_limit * columns), more = take(rows_limit * columns);
    products = take(rows_limit * rows_limit), gradients = take(rows_limit * rows_limit);
    weight = take(rows_limit), reference = take(rows_limit), row_factor = take(rows_limit);
    key_factor = take(rows_limit), unused = take(rows_limit);
    state = take(features * columns);
  }

  std::int64_t rows_limit, features, columns;
  T *queries, *keys, *change;  ///< [rows, features]
  T *values, *sums, *more;     ///< [rows, columns], the last column for the denominator
  T *products, *gradients;     ///< [rows, rows_limit]
  T *weight, *reference;       ///< [rows]: log weight of each key, the largest so far
  T *row_factor, *key_factor;  ///< [rows]
  T* unused;                   ///< log weights of queries, which cancel
  T* state;                    ///< [features, columns]
  T before = lowest<T>;        ///< the reference of the state
  bool plain = true;           ///< all weights of the chunk and the state are 1

 private:
  Scratch<T> room;
};

/// One head of one sequence, in all passes.
template <class T>
struct Walk {
  const NormalizedLinearAttentionPlan<T>& plan;
  const NormalizedLinearAttentionBackward<T>& data;  ///< forward uses its inputs only
  Chunk<T>& c;
  std::int64_t row, length, head;

  std::int64_t chunks() const { return block_count(length, c.rows_limit); }
  std::int64_t first(std::int64_t chunk) const { return chunk * c.rows_limit; }
  std::int64_t rows(std::int64_t chunk) const { return std::min(c.rows_limit, length - first(chunk)); }

  const T* at(MatrixRows<const T> x, std::int64_t begin, std::int64_t width) const {
    return x.data + (row + begin) * x.stride + head * width;
  }
  T* dense(T* x, std::int64_t begin, std::int64_t width) const {
    return x + (row + begin) * plan.heads * width + head * width;
  }
  const T* dense(const T* x, std::int64_t begin, std::int64_t width) const {
    return x + (row + begin) * plan.heads * width + head * width;
  }

  void load_queries(std::int64_t begin, std::int64_t count) const {
    map_features(plan, false, at(data.q, begin, plan.width), data.q.stride, count, c.queries, c.unused);
  }
  /// Keys, values with a column of ones, and the references of rows, from that of the row before.
  void load_keys(std::int64_t begin, std::int64_t count, T before) const {
    map_features(plan, true, at(data.k, begin, plan.width), data.k.stride, count, c.keys, c.weight);
    const T* v = at(data.v, begin, plan.value_width);
    T largest = before;
    c.plain = before == T{0} || before == lowest<T>;
    for (std::int64_t r = 0; r < count; ++r) {
      std::copy_n(v + r * data.v.stride, plan.value_width, c.values + r * c.columns);
      c.values[r * c.columns + plan.value_width] = 1;
      c.reference[r] = largest = std::max(largest, c.weight[r]);
      c.plain = c.plain && c.weight[r] == T{0};
    }
    c.before = before;
  }
  /// Gradients of the sums: [g / denominator, -(g . output) / denominator].
  void load_gradients(std::int64_t begin, std::int64_t count, T* to) const {
    const T *g = dense(data.gradient_output, begin, plan.value_width), *y = dense(data.output, begin, plan.value_width);
    const std::int64_t stride = plan.heads * plan.value_width;
    for (std::int64_t r = 0; r < count; ++r) {
      const T denominator = data.denominators[(row + begin + r) * plan.heads + head];
      const T inverse = denominator == T{0} ? T{0} : 1 / denominator;
      T* out = to + r * c.columns;
      for (std::int64_t i = 0; i < plan.value_width; ++i) out[i] = g[r * stride + i] * inverse;
      out[plan.value_width] = -dot(g + r * stride, y + r * stride, plan.value_width) * inverse;
    }
  }

  /// matrix[i, j] *= exp(weight[j] - reference[i]) for j <= i, else 0. What is above row i has no part in it.
  void weigh(T* matrix, std::int64_t count) const {
    for (std::int64_t i = 0; i < count; ++i) std::fill_n(matrix + i * c.rows_limit + i + 1, count - i - 1, T{0});
    if (c.plain) return;
    const T start = c.reference[0];
    for (std::int64_t j = 0; j < count; ++j) c.key_factor[j] = relative(c.weight[j], start);
    for (std::int64_t i = 0; i < count; ++i) {
      T* to = matrix + i * c.rows_limit;
      if (c.reference[i] - start < T{kSafeRange}) {
        const T factor = std::exp(start - c.reference[i]);
        for (std::int64_t j = 0; j <= i; ++j) to[j] *= factor * c.key_factor[j];
      } else {
        for (std::int64_t j = 0; j <= i; ++j) to[j] *= relative(c.weight[j], c.reference[i]);
      }
    }
  }

  /// x[r] *= exp(reference_before - reference[r]): what a state before the chunk counts for its rows.
  void scale_by_distance(T* x, std::int64_t count, std::int64_t width) const {
    if (c.plain) return;
    for (std::int64_t r = 0; r < count; ++r) scale(x + r * width, relative(c.before, c.reference[r]), width);
  }
  /// x[r] *= exp(weight[r] - reference) of a key against a reference at or above it.
  void scale_by_weight(T* x, std::int64_t count, std::int64_t width, T reference) const {
    if (c.plain && reference == T{0}) return;
    for (std::int64_t r = 0; r < count; ++r) scale(x + r * width, relative(c.weight[r], reference), width);
  }

  void multiply(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, const T* a,
                std::int64_t lda, const T* b, std::int64_t ldb, bool add, T* out, std::int64_t ldc) const {
    blas::gemm(ta, tb, m, n, k, T{1}, a, lda, b, ldb, add ? T{1} : T{0}, out, ldc);
  }

  /// state = exp(before - after) state + keys^T values, keys weighted against `after`. Overwrites the keys.
  void advance(std::int64_t count, T after) const {
    const bool fresh = c.before == lowest<T>;
    scale_by_weight(c.keys, count, c.features, after);
    if (!fresh && c.before != after) scale(c.state, relative(c.before, after), c.features * c.columns);
    multiply(Transpose::yes, Transpose::no, c.features, c.columns, count, c.keys, c.features, c.values, c.columns,
             !fresh, c.state, c.columns);
  }

  /// The state of the whole sequence; returns its reference.
  T whole_state() const {
    T reference = lowest<T>;
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
      load_keys(first(chunk), rows(chunk), reference);
      const T after = c.reference[rows(chunk) - 1];
      advance(rows(chunk), after);
      reference = after;
    }
    return reference;
  }

  void divide(std::int64_t begin, std::int64_t count, T* output, T* denominators) const {
    for (std::int64_t r = 0; r < count; ++r) {
      const T* sums = c.sums + r * c.columns;
      T denominator = sums[plan.value_width];
      if (denominator < kSmallestDenominator<T>) denominator = 0;
      denominators[(row + begin + r) * plan.heads + head] = denominator;
      const T inverse = denominator == T{0} ? T{0} : 1 / denominator;
      T* out = dense(output, begin, plan.value_width) + r * plan.heads * plan.value_width;
      for (std::int64_t i = 0; i < plan.value_width; ++i) out[i] = denominator == T{0} ? T{0} : sums[i] * inverse;
    }
  }

  void forward(T* output, T* denominators) const {
    T reference = plan.causal ? lowest<T> : whole_state();
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
      const std::int64_t begin = first(chunk), count = rows(chunk);
      load_queries(begin, count);
      if (plan.causal) {
        load_keys(begin, count, reference);
        multiply(Transpose::no, Transpose::yes, count, count, c.features, c.queries, c.features, c.keys, c.features,
                 false, c.products, c.rows_limit);
        weigh(c.products, count);
        if (chunk > 0) {
          multiply(Transpose::no, Transpose::no, count, c.columns, c.features, c.queries, c.features, c.state,
                   c.columns, false, c.sums, c.columns);
          scale_by_distance(c.sums, count, c.columns);
        }
        multiply(Transpose::no, Transpose::no, count, c.columns, count, c.products, c.rows_limit, c.values, c.columns,
                 chunk > 0, c.sums, c.columns);
        const T after = c.reference[count - 1];
        if (chunk + 1 < chunks()) advance(count, after);
        reference = after;
      } else {
        multiply(Transpose::no, Transpose::no, count, c.columns, c.features, c.queries, c.features, c.state, c.columns,
                 false, c.sums, c.columns);
      }
      divide(begin, count, output, denominators);
    }
  }

  /// Features' gradients (in `change`) to the input's.
  void give(T* gradient, MatrixRows<const T> x, bool key, std::int64_t begin, std::int64_t count) const {
    const T* input = at(x, begin, plan.width);
    T* to = dense(gradient, begin, plan.width);
    const T* features = key ? c.keys : c.queries;
    if (plan.directions == nullptr) {
      elu_features_backward(input, x.stride, count, plan.width, features, c.change, to, plan.heads * plan.width);
    } else {
      const PositiveRandomMap<T> map{plan.directions, plan.features, plan.width, static_cast<T>(plan.root), key};
      map.backward(input, x.stride, count, features, c.change, to, plan.heads * plan.width);
    }
  }

  void backward() const {
    if (plan.causal) {
      backward_causal();
    } else {
      backward_bidirectional();
    }
  }

  void backward_causal() const {
    std::vector<T> references;  // before each chunk
    references.reserve(static_cast<std::size_t>(chunks()));
    T reference = lowest<T>;
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
      const std::int64_t begin = first(chunk), count = rows(chunk);
      references.push_back(reference);
      load_keys(begin, count, reference);
      const T after = c.reference[count - 1];
      if (data.gradient_q != nullptr) {
        load_queries(begin, count);
        load_gradients(begin, count, c.sums);
        if (chunk > 0) {
          multiply(Transpose::no, Transpose::yes, count, c.features, c.columns, c.sums, c.columns, c.state, c.columns,
                   false, c.change, c.features);
          scale_by_distance(c.change, count, c.features);
        }
        multiply(Transpose::no, Transpose::yes, count, count, c.columns, c.sums, c.columns, c.values, c.columns, false,
                 c.gradients, c.rows_limit);
        weigh(c.gradients, count);
        multiply(Transpose::no, Transpose::no, count, c.features, count, c.gradients, c.rows_limit, c.keys, c.features,
                 chunk > 0, c.change, c.features);
        give(data.gradient_q, data.q, false, begin, count);
        if (chunk + 1 < chunks()) advance(count, after);
      }
      reference = after;
    }
    if (data.gradient_k == nullptr && data.gradient_v == nullptr) return;
    for (std::int64_t chunk = chunks() - 1; chunk >= 0; --chunk) {
      const std::int64_t begin = first(chunk), count = rows(chunk);
      const bool last = chunk + 1 == chunks();
      load_queries(begin, count);
      load_keys(begin, count, references[static_cast<std::size_t>(chunk)]);
      load_gradients(begin, count, c.sums);
      const T after = c.reference[count - 1];
      if (data.gradient_v != nullptr) {
        multiply(Transpose::no, Transpose::yes, count, count, c.features, c.queries, c.features, c.keys, c.features,
                 false, c.products, c.rows_limit);
        weigh(c.products, count);
        if (!last) {
          multiply(Transpose::no, Transpose::no, count, c.columns, c.features, c.keys, c.features, c.state, c.columns,
                   false, c.more, c.columns);
          scale_by_weight(c.more, count, c.columns, after);
        }
        multiply(Transpose::yes, Transpose::no, count, c.columns, count, c.products, c.rows_limit, c.sums, c.columns,
                 !last, c.more, c.columns);
        give_values(begin, count);
      }
      if (data.gradient_k != nullptr) {
        multiply(Transpose::no, Transpose::yes, count, count, c.columns, c.sums, c.columns, c.values, c.columns, false,
                 c.gradients, c.rows_limit);
        weigh(c.gradients, count);
        if (!last) {
          multiply(Transpose::no, Transpose::yes, count, c.features, c.columns, c.values, c.columns, c.state, c.columns,
                   false, c.change, c.features);
          scale_by_weight(c.change, count, c.features, after);
        }
        multiply(Transpose::yes, Transpose::no, count, c.features, count, c.gradients, c.rows_limit, c.queries,
                 c.features, !last, c.change, c.features);
        give(data.gradient_k, data.k, true, begin, count);
      }
      if (chunk == 0) break;
      // The state of what comes after, relative to the reference before this chunk.
      if (!last && c.before != after) scale(c.state, relative(c.before, after), c.features * c.columns);
      scale_by_distance(c.queries, count, c.features);
      multiply(Transpose::yes, Transpose::no, c.features, c.columns, count, c.queries, c.features, c.sums, c.columns,
               !last, c.state, c.columns);
    }
  }

  void backward_bidirectional() const {
    const T reference = whole_state();
    Scratch<T> after(c.features * c.columns);
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
      const std::int64_t begin = first(chunk), count = rows(chunk);
      load_queries(begin, count);
      load_gradients(begin, count, c.sums);
      multiply(Transpose::yes, Transpose::no, c.features, c.columns, count, c.queries, c.features, c.sums, c.columns,
               chunk > 0, after.data(), c.columns);
      if (data.gradient_q == nullptr) continue;
      multiply(Transpose::no, Transpose::yes, count, c.features, c.columns, c.sums, c.columns, c.state, c.columns,
               false, c.change, c.features);
      give(data.gradient_q, data.q, false, begin, count);
    }
    if (data.gradient_k == nullptr && data.gradient_v == nullptr) return;
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
      const std::int64_t begin = first(chunk), count = rows(chunk);
      load_keys(begin, count, reference);
      if (data.gradient_v != nullptr) {
        multiply(Transpose::no, Transpose::no, count, c.columns, c.features, c.keys, c.features, after.data(),
                 c.columns, false, c.more, c.columns);
        scale_by_weight(c.more, count, c.columns, reference);
        give_values(begin, count);
      }
      if (data.gradient_k != nullptr) {
        multiply(Transpose::no, Transpose::yes, count, c.features, c.columns, c.values, c.columns, after.data(),
                 c.columns, false, c.change, c.features);
        scale_by_weight(c.change, count, c.features, reference);
        give(data.gradient_k, data.k, true, begin, count);
      }
    }
  }

  void give_values(std::int64_t begin, std::int64_t count) const {
    T* to = dense(data.gradient_v, begin, plan.value_width);
    for (std::int64_t r = 0; r < count; ++r)
      std::copy_n(c.more + r * c.columns, plan.value_width, to + r * plan.heads * plan.value_width);
  }
};

/// Calls body(walk) for every head of every sequence, in parallel.
template <class T, class Body>
void for_each_walk(const NormalizedLinearAttentionPlan<T>& plan, const NormalizedLinearAttentionBackward<T>& data,
                   Body&& body) {
  const auto count = static_cast<std::int64_t>(plan.bounds.size()) - 1;
  parallel_for(count * plan.heads, 1, [&](std::int64_t task, std::int64_t) {
    const auto sequence = static_cast<std::size_t>(task / plan.heads);
    const std::int64_t row = plan.bounds[sequence], length = plan.bounds[sequence + 1] - row;
    if (length == 0) return;
    Chunk<T> chunk(plan, length);
    body(Walk<T>{plan, data, chunk, row, length, task % plan.heads});
  });
}

}  // namespace

template <class T>
void map_features(const NormalizedLinearAttentionPlan<T>& plan, bool key, const T* x, std::int64_t stride,
                  std::int64_t rows, T* features, T* log_weight) {
  if (plan.directions == nullptr) {
    elu_features(x, stride, rows, plan.width, features, log_weight);
  } else {
    const PositiveRandomMap<T> map{plan.directions, plan.features, plan.width, static_cast<T>(plan.root), key};
    map.forward(x, stride, rows, features, log_weight);
  }
}

template <class T>
void normalized_linear_attention_forward(const NormalizedLinearAttentionPlan<T>& plan, MatrixRows<const T> q,
                                         MatrixRows<const T> k, MatrixRows<const T> v, T* output, T* denominators) {
  NormalizedLinearAttentionBackward<T> inputs;
  inputs.q = q, inputs.k = k, inputs.v = v;
  for_each_walk(plan, inputs, [&](const Walk<T>& walk) { walk.forward(output, denominators); });
}

template <class T>
void normalized_linear_attention_backward(const NormalizedLinearAttentionPlan<T>& plan,
                                          const NormalizedLinearAttentionBackward<T>& data) {
  for_each_walk(plan, data, [](const Walk<T>& walk) { walk.backward(); });
}

void normalized_linear_attention_step(const float* query, const float* key, float log_weight, const float* value,
                                      std::int64_t features, std::int64_t columns, double* state, double& reference,
                                      double* sums) {
  const double given = log_weight, after = std::max(reference, given);
  const double keep = relative(reference, after), weight = relative(given, after);
  std::fill_n(sums, columns, 0.0);
  for (std::int64_t f = 0; f < features; ++f) {
    double* const row = state + f * columns;
    const double of_key = weight * static_cast<double>(key[f]), of_query = query[f];
    for (std::int64_t c = 0; c < columns; ++c) {
      row[c] = row[c] * keep + of_key * static_cast<double>(value[c]);
      sums[c] += of_query * row[c];
    }
  }
  reference = after;
}

template void map_features(const NormalizedLinearAttentionPlan<float>&, bool, const float*, std::int64_t, std::int64_t,
                           float*, float*);
template void map_features(const NormalizedLinearAttentionPlan<double>&, bool, const double*, std::int64_t,
                           std::int64_t, double*, double*);
template void normalized_linear_attention_forward(const NormalizedLinearAttentionPlan<float>&, MatrixRows<const float>,
                                                  MatrixRows<const float>, MatrixRows<const float>, float*, float*);
template void normalized_linear_attention_forward(const NormalizedLinearAttentionPlan<double>&,
                                                  MatrixRows<const double>, MatrixRows<const double>,
                                                  MatrixRows<const double>, double*, double*);
template void normalized_linear_attention_backward(const NormalizedLinearAttentionPlan<float>&,
                                                   const NormalizedLinearAttentionBackward<float>&);
template void normalized_linear_attention_backward(const NormalizedLinearAttentionPlan<double>&,
                                                   const NormalizedLinearAttentionBackward<double>&);

}  // namespace tally::kernels
