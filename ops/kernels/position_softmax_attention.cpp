#include "tally/ops/kernels/position_softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/elementwise.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

// Rows of a chunk, at most: a constant, never of the machine, as it decides the order of sums.
constexpr std::int64_t kChunk = 64;
// The weights of a causal chunk are exp(key - reference), with the largest key up to the chunk's first row as the
// reference of a feature: a row's numbers then depend on nothing that follows it. A key that lies further than this
// above begins another chunk.
constexpr double kSafeRange = 40;

/// Rows of one head, from a row on; null where there are none.
template <class T>
MatrixRows<T> part(MatrixRows<T> x, std::int64_t row, std::int64_t column = 0) {
  return {x.data == nullptr ? nullptr : x.data + row * x.stride + column, x.stride};
}

/// The rows of one head of keys, and of the query heads that read it, in one sequence.
template <class T>
struct Walk {
  Walk(const PositionSoftmaxPlan<T>& plan, std::int64_t row, std::int64_t rows, std::int64_t key_head)
      : length(rows),
        d(plan.width),
        e(plan.value_width),
        group(plan.heads / plan.key_heads),
        q(part(plan.q, row, key_head * group * d)),
        k(part(plan.k, row, key_head * d)),
        v(part(plan.v, row, key_head * e)),
        room(kChunk * (3 * d + kChunk) + 2 * d * e + 2 * d),
        totals(2 * d) {
    T* at = room.data();
    const auto take = [&](std::int64_t count) {
      T* taken = at;
      at += count;
      return taken;
    };
    weights = take(kChunk * d), scaled = take(kChunk * d), more = take(kChunk * d);
    products = take(kChunk * kChunk), sums = take(d * e), later = take(d * e), reference = take(d), before = take(d);
    total = totals.data(), other = total + d;
    std::fill_n(sums, 2 * d * e, T{0});
    std::fill_n(reference, d, -std::numeric_limits<T>::infinity());
    std::fill_n(total, 2 * d, 0.0);
  }

  std::int64_t length, d, e, group;
  MatrixRows<const T> q, k, v;
  T *weights, *scaled, *more;  ///< [kChunk, d]
  T* products;                 ///< [kChunk, kChunk]
  T *sums, *later;             ///< [d, e] of keys and values; of queries and gradients; relative to the reference
  T *reference, *before;       ///< [d]
  double *total, *other;       ///< [d] sums of weights, relative to the reference; what goes with `later`

  MatrixRows<const T> matrix(const T* x, std::int64_t columns) const { return {x, columns}; }
  MatrixRows<const T> keys(std::int64_t begin) const { return part(k, begin); }
  MatrixRows<const T> values(std::int64_t begin) const { return part(v, begin); }

  void multiply(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t inner, MatrixRows<const T> a,
                MatrixRows<const T> b, bool add, MatrixRows<T> to) const {
    blas::gemm(ta, tb, m, n, inner, T{1}, a.data, a.stride, b.data, b.stride, add ? T{1} : T{0}, to.data, to.stride);
  }
  /// products = the lower triangle of a b^T.
  void lower(std::int64_t count, MatrixRows<const T> a, MatrixRows<const T> b, std::int64_t inner) const {
    multiply(Transpose::no, Transpose::yes, count, count, inner, a, b, false, {products, kChunk});
    for (std::int64_t i = 0; i < count; ++i) std::fill_n(products + i * kChunk + i + 1, count - i - 1, T{0});
  }
  /// to = x by, element by element, for rows of one head.
  void times(std::int64_t count, MatrixRows<const T> x, const T* by, MatrixRows<T> to) const {
    for (std::int64_t r = 0; r < count; ++r) {
      for (std::int64_t c = 0; c < d; ++c) to.data[r * to.stride + c] = x.data[r * x.stride + c] * by[r * d + c];
    }
  }
  /// weights = exp(keys - reference)
  void weigh(std::int64_t begin, std::int64_t count) const {
    const MatrixRows<const T> x = keys(begin);
    for (std::int64_t r = 0; r < count; ++r) {
      for (std::int64_t c = 0; c < d; ++c) weights[r * d + c] = x.data[r * x.stride + c] - reference[c];
    }
    unary(UnaryOp::exp, weights, weights, count * d);
  }
  void add_values(std::int64_t begin, std::int64_t count) const {
    multiply(Transpose::yes, Transpose::no, d, e, count, matrix(weights, d), values(begin), true, {sums, e});
  }
  /// Brings what is relative to `before` to the reference.
  void rescale(T* matrix_of, double* numbers) const {
    for (std::int64_t c = 0; c < d; ++c) {
      if (before[c] == reference[c]) continue;
      const T factor = std::exp(-std::abs(reference[c] - before[c]));
      scale(matrix_of + c * e, factor, e);
      numbers[c] *= static_cast<double>(factor);
    }
  }

 private:
  Scratch<T> room;
  Scratch<double> totals;
};

// ---- Bidirectional: all rows of a sequence see the same sums.

/// sums = the means of the values by each feature's weights.
template <class T>
void read_whole(const Walk<T>& w) {
  for (std::int64_t r = 0; r < w.length; ++r) {
    const T* key = w.keys(r).data;
    for (std::int64_t c = 0; c < w.d; ++c) w.reference[c] = std::max(w.reference[c], key[c]);
  }
  for (std::int64_t begin = 0; begin < w.length; begin += kChunk) {
    const std::int64_t count = std::min(kChunk, w.length - begin);
    w.weigh(begin, count);
    w.add_values(begin, count);
    for (std::int64_t r = 0; r < count; ++r) {
      for (std::int64_t c = 0; c < w.d; ++c) w.total[c] += static_cast<double>(w.weights[r * w.d + c]);
    }
  }
  for (std::int64_t c = 0; c < w.d; ++c) scale(w.sums + c * w.e, static_cast<T>(1 / w.total[c]), w.e);
}

template <class T>
void forward_whole(const Walk<T>& w, MatrixRows<T> y) {
  read_whole(w);
  for (std::int64_t g = 0; g < w.group; ++g) {
    w.multiply(Transpose::no, Transpose::no, w.length, w.e, w.d, part(w.q, 0, g * w.d), w.matrix(w.sums, w.e), false,
               part(y, 0, g * w.e));
  }
}

template <class T>
void backward_whole(const Walk<T>& w, MatrixRows<const T> gy, MatrixRows<T> gq, MatrixRows<T> gk, MatrixRows<T> gv) {
  const std::int64_t d = w.d, e = w.e;
  read_whole(w);
  for (std::int64_t g = 0; g < w.group; ++g) {
    const MatrixRows<const T> gradient = part(gy, 0, g * e);
    if (gq.data != nullptr) {
      w.multiply(Transpose::no, Transpose::yes, w.length, d, e, gradient, w.matrix(w.sums, e), false,
                 part(gq, 0, g * d));
    }
    w.multiply(Transpose::yes, Transpose::no, d, e, w.length, part(w.q, 0, g * d), gradient, true, {w.later, e});
  }
  for (std::int64_t c = 0; c < d; ++c) w.other[c] = static_cast<double>(dot(w.sums + c * e, w.later + c * e, e));
  for (std::int64_t begin = 0; begin < w.length; begin += kChunk) {
    const std::int64_t count = std::min(kChunk, w.length - begin);
    w.weigh(begin, count);
    for (std::int64_t r = 0; r < count; ++r) {
      for (std::int64_t c = 0; c < d; ++c) w.weights[r * d + c] /= static_cast<T>(w.total[c]);
    }
    if (gv.data != nullptr) {
      w.multiply(Transpose::no, Transpose::no, count, e, d, w.matrix(w.weights, d), w.matrix(w.later, e), false,
                 part(gv, begin));
    }
    if (gk.data == nullptr) continue;
    w.multiply(Transpose::no, Transpose::yes, count, d, e, w.values(begin), w.matrix(w.later, e), false, {w.more, d});
    for (std::int64_t r = 0; r < count; ++r) {
      for (std::int64_t c = 0; c < d; ++c) w.more[r * d + c] -= static_cast<T>(w.other[c]);
    }
    w.times(count, w.matrix(w.more, d), w.weights, part(gk, begin));
  }
}

// ---- Causal: chunks meet their own rows by matrix products, and what came before by sums.

/// Where chunks begin and end, and the references of each.
template <class T>
struct Chunks {
  std::vector<std::int64_t> bounds{0};
  std::vector<T> references;  ///< [chunks, d]
};

/// Moves the reference to the largest keys up to row `begin`; returns the rows of the chunk from there, whose largest
/// keys go into `largest`.
template <class T>
std::int64_t enter(const Walk<T>& w, std::int64_t begin, std::vector<T>& largest) {
  const auto d = static_cast<std::size_t>(w.d);
  const auto see = [&](std::int64_t row) {
    const T* key = w.keys(row).data;
    for (std::size_t c = 0; c < d; ++c) largest[c] = std::max(largest[c], key[c]);
  };
  const auto is_near = [&](std::int64_t row) {
    const T* key = w.keys(row).data;
    bool near = true;
    for (std::size_t c = 0; c < d; ++c) near = near && !(key[c] - w.reference[c] > T{kSafeRange});
    return near;
  };
  see(begin);
  std::copy_n(w.reference, d, w.before);
  std::copy_n(largest.data(), d, w.reference);
  w.rescale(w.sums, w.total);
  std::int64_t count = 1;
  while (count < kChunk && begin + count < w.length && is_near(begin + count)) see(begin + count++);
  return count;
}

/// Calls body(begin, count) for chunk by chunk, with its weights and the sums and totals of what came before it.
template <class T, class Body>
void over_chunks(const Walk<T>& w, Body&& body) {
  std::vector<T> largest(static_cast<std::size_t>(w.d), -std::numeric_limits<T>::infinity());
  for (std::int64_t begin = 0, count; begin < w.length; begin += count) {
    count = enter(w, begin, largest);
    w.weigh(begin, count);
    body(begin, count);
    w.add_values(begin, count);
  }
}

/// Adds the weights of a chunk to the totals, row by row: inverse [count, d] of what they are up to each row.
template <class T>
void invert_totals(const Walk<T>& w, std::int64_t count, T* inverse) {
  for (std::int64_t r = 0; r < count; ++r) {
    for (std::int64_t c = 0; c < w.d; ++c) {
      w.total[c] += static_cast<double>(w.weights[r * w.d + c]);
      inverse[r * w.d + c] = static_cast<T>(1 / w.total[c]);
    }
  }
}

template <class T>
void forward_causal(const Walk<T>& w, MatrixRows<T> y) {
  const std::int64_t d = w.d, e = w.e;
  over_chunks(w, [&](std::int64_t begin, std::int64_t count) {
    invert_totals(w, count, w.more);
    for (std::int64_t g = 0; g < w.group; ++g) {
      const MatrixRows<T> out = part(y, begin, g * e);
      w.times(count, part(w.q, begin, g * d), w.more, {w.scaled, d});
      w.multiply(Transpose::no, Transpose::no, count, e, d, w.matrix(w.scaled, d), w.matrix(w.sums, e), false, out);
      w.lower(count, w.matrix(w.scaled, d), w.matrix(w.weights, d), d);
      w.multiply(Transpose::no, Transpose::no, count, e, count, w.matrix(w.products, kChunk), w.values(begin), true,
                 out);
    }
  });
}

/// With P the weights of a row, gq = sum_j P_j (v_j . gy), by feature.
template <class T>
Chunks<T> backward_queries(const Walk<T>& w, MatrixRows<const T> gy, T* inverse, MatrixRows<T> gq) {
  const std::int64_t d = w.d, e = w.e;
  Chunks<T> chunks;
  over_chunks(w, [&](std::int64_t begin, std::int64_t count) {
    chunks.bounds.push_back(begin + count);
    chunks.references.insert(chunks.references.end(), w.reference, w.reference + d);
    invert_totals(w, count, inverse + begin * d);
    for (std::int64_t g = 0; g < w.group; ++g) {
      const MatrixRows<const T> gradient = part(gy, begin, g * e);
      w.multiply(Transpose::no, Transpose::yes, count, d, e, gradient, w.matrix(w.sums, e), false, {w.scaled, d});
      w.lower(count, gradient, w.values(begin), e);
      w.multiply(Transpose::no, Transpose::no, count, d, count, w.matrix(w.products, kChunk), w.matrix(w.weights, d),
                 true, {w.scaled, d});
      w.times(count, w.matrix(w.scaled, d), inverse + begin * d, part(gq, begin, g * d));
    }
  });
  return chunks;
}

/// gv_j = sum_(t >= j) sum_c P_tjc q_tc gy_t and gk_jc = sum_(t >= j) P_tjc q_tc (v_j . gy_t - gq_tc), where P_tjc is
/// exp(k_jc) over the total up to t: `later` sums q gy / total of later rows, `other` q gq / total.
template <class T>
void backward_keys(const Walk<T>& w, const Chunks<T>& chunks, MatrixRows<const T> gy, const T* inverse,
                   MatrixRows<const T> gq, MatrixRows<T> gk, MatrixRows<T> gv) {
  const std::int64_t d = w.d, e = w.e;
  for (auto chunk = static_cast<std::int64_t>(chunks.bounds.size()) - 2; chunk >= 0; --chunk) {
    const std::int64_t begin = chunks.bounds[static_cast<std::size_t>(chunk)],
                       count = chunks.bounds[static_cast<std::size_t>(chunk + 1)] - begin;
    std::copy_n(w.reference, d, w.before);
    std::copy_n(chunks.references.data() + chunk * d, d, w.reference);
    w.rescale(w.later, w.other);
    w.weigh(begin, count);
    const MatrixRows<T> found{w.more, d};
    if (gv.data != nullptr) {
      w.multiply(Transpose::no, Transpose::no, count, e, d, w.matrix(w.weights, d), w.matrix(w.later, e), false,
                 part(gv, begin));
    }
    if (gk.data != nullptr) {
      w.multiply(Transpose::no, Transpose::yes, count, d, e, w.values(begin), w.matrix(w.later, e), false, found);
    }
    for (std::int64_t g = 0; g < w.group; ++g) {
      const MatrixRows<const T> gradient = part(gy, begin, g * e);
      w.times(count, part(w.q, begin, g * d), inverse + begin * d, {w.scaled, d});
      if (gv.data != nullptr) {
        w.lower(count, w.matrix(w.scaled, d), w.matrix(w.weights, d), d);
        w.multiply(Transpose::yes, Transpose::no, count, e, count, w.matrix(w.products, kChunk), gradient, true,
                   part(gv, begin));
      }
      if (gk.data != nullptr) {
        w.lower(count, gradient, w.values(begin), e);
        w.multiply(Transpose::yes, Transpose::no, count, d, count, w.matrix(w.products, kChunk), w.matrix(w.scaled, d),
                   true, found);
      }
      w.multiply(Transpose::yes, Transpose::no, d, e, count, w.matrix(w.scaled, d), gradient, true, {w.later, e});
    }
    for (std::int64_t r = count - 1; r >= 0 && gk.data != nullptr; --r) {
      for (std::int64_t c = 0; c < d; ++c) {
        double products = 0;
        for (std::int64_t g = 0; g < w.group; ++g) {
          products += static_cast<double>(w.q.data[(begin + r) * w.q.stride + g * d + c]) *
                      static_cast<double>(gq.data[(begin + r) * gq.stride + g * d + c]);
        }
        w.other[c] += products * static_cast<double>(inverse[(begin + r) * d + c]);
        found.data[r * d + c] -= static_cast<T>(w.other[c]);
      }
    }
    if (gk.data != nullptr) w.times(count, w.matrix(w.more, d), w.weights, part(gk, begin));
  }
}

template <class T>
void backward_causal(const Walk<T>& w, MatrixRows<const T> gy, MatrixRows<T> gq, MatrixRows<T> gk, MatrixRows<T> gv) {
  Scratch<T> inverse(w.length * w.d), own;
  if (gq.data == nullptr) {
    own = Scratch<T>(w.length * w.group * w.d);
    gq = {own.data(), w.group * w.d};
  }
  const Chunks<T> chunks = backward_queries(w, gy, inverse.data(), gq);
  if (gk.data == nullptr && gv.data == nullptr) return;
  backward_keys(w, chunks, gy, inverse.data(), MatrixRows<const T>{gq.data, gq.stride}, gk, gv);
}

/// Calls body(walk, row, key head) for every head of keys of every sequence, in parallel.
template <class T, class Body>
void for_each_walk(const PositionSoftmaxPlan<T>& plan, Body&& body) {
  const auto count = static_cast<std::int64_t>(plan.bounds.size()) - 1;
  parallel_for(count * plan.key_heads, 1, [&](std::int64_t task, std::int64_t) {
    const auto sequence = static_cast<std::size_t>(task / plan.key_heads);
    const std::int64_t row = plan.bounds[sequence], length = plan.bounds[sequence + 1] - row;
    if (length > 0) body(Walk<T>(plan, row, length, task % plan.key_heads), row, task % plan.key_heads);
  });
}

}  // namespace

template <class T>
void position_softmax_forward(const PositionSoftmaxPlan<T>& plan, T* output) {
  for_each_walk(plan, [&](const Walk<T>& walk, std::int64_t row, std::int64_t head) {
    const std::int64_t columns = plan.heads * plan.value_width;
    const MatrixRows<T> y = part(MatrixRows<T>{output, columns}, row, head * walk.group * plan.value_width);
    if (plan.causal) {
      forward_causal(walk, y);
    } else {
      forward_whole(walk, y);
    }
  });
}

template <class T>
void position_softmax_backward(const PositionSoftmaxPlan<T>& plan, const T* gradient_output, T* gradient_q,
                               T* gradient_k, T* gradient_v) {
  for_each_walk(plan, [&](const Walk<T>& walk, std::int64_t row, std::int64_t head) {
    const auto of = [&]<class U>(U* x, std::int64_t heads, std::int64_t width) {
      return part(MatrixRows<U>{x, heads * width}, row, head * heads / plan.key_heads * width);
    };
    const MatrixRows<const T> gy = of(gradient_output, plan.heads, plan.value_width);
    const MatrixRows<T> gq = of(gradient_q, plan.heads, plan.width), gk = of(gradient_k, plan.key_heads, plan.width),
                        gv = of(gradient_v, plan.key_heads, plan.value_width);
    if (plan.causal) {
      backward_causal(walk, gy, gq, gk, gv);
    } else {
      backward_whole(walk, gy, gq, gk, gv);
    }
  });
}

template void position_softmax_forward(const PositionSoftmaxPlan<float>&, float*);
template void position_softmax_forward(const PositionSoftmaxPlan<double>&, double*);
template void position_softmax_backward(const PositionSoftmaxPlan<float>&, const float*, float*, float*, float*);
template void position_softmax_backward(const PositionSoftmaxPlan<double>&, const double*, double*, double*, double*);

}  // namespace tally::kernels
