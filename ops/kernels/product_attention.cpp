#include "tally/ops/kernels/product_attention.h"

#include <algorithm>

#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

constexpr std::int64_t kChunk = 64;

/// Rows of one head of one sequence, or of a dense gradient.
template <class T>
struct HeadRows {
  T* data = nullptr;
  std::int64_t stride = 0;
  HeadRows from(std::int64_t row) const { return {data + row * stride, stride}; }
};

/// One head of one sequence.
template <class T>
struct Walk {
  const ProductAttentionPlan<T>& plan;
  std::int64_t length;
  HeadRows<const T> q, k, v;
  T* sums;      ///< [width, value_width]
  T* products;  ///< [kChunk, kChunk]

  std::int64_t chunks() const { return block_count(length, kChunk); }
  std::int64_t rows(std::int64_t chunk) const { return std::min(kChunk, length - chunk * kChunk); }

  /// to = scale a sums, or scale a sums^T, for rows a.
  void read(std::int64_t count, HeadRows<const T> a, bool transposed, HeadRows<T> to) const {
    const std::int64_t in = transposed ? plan.value_width : plan.width,
                       out = transposed ? plan.width : plan.value_width;
    blas::gemm(Transpose::no, transposed ? Transpose::yes : Transpose::no, count, out, in, static_cast<T>(plan.scale),
               a.data, a.stride, sums, plan.value_width, T{0}, to.data, to.stride);
  }
  /// to += scale m d, with m = the lower triangle of b c^T [count, count], or its transpose.
  void read_within(std::int64_t count, HeadRows<const T> b, HeadRows<const T> c, std::int64_t inner, bool transposed,
                   HeadRows<const T> d, std::int64_t width, HeadRows<T> to) const {
    blas::gemm(Transpose::no, Transpose::yes, count, count, inner, T{1}, b.data, b.stride, c.data, c.stride, T{0},
               products, kChunk);
    for (std::int64_t i = 0; i < count; ++i) std::fill_n(products + i * kChunk + i + 1, count - i - 1, T{0});
    blas::gemm(transposed ? Transpose::yes : Transpose::no, Transpose::no, count, width, count,
               static_cast<T>(plan.scale), products, kChunk, d.data, d.stride, T{1}, to.data, to.stride);
  }
  /// sums += a^T b over these rows.
  void add(std::int64_t count, HeadRows<const T> a, HeadRows<const T> b) const {
    blas::gemm(Transpose::yes, Transpose::no, plan.width, plan.value_width, count, T{1}, a.data, a.stride, b.data,
               b.stride, T{1}, sums, plan.value_width);
  }
  void clear() const { std::fill_n(sums, plan.width * plan.value_width, T{0}); }
  void add_all(HeadRows<const T> a, HeadRows<const T> b) const {
    clear();
    for (std::int64_t c = 0; c < chunks(); ++c) add(rows(c), a.from(c * kChunk), b.from(c * kChunk));
  }

  void forward(HeadRows<T> y) const {
    if (plan.causal) {
      clear();
    } else {
      add_all(k, v);
    }
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
      const std::int64_t at = chunk * kChunk, count = rows(chunk);
      read(count, q.from(at), false, y.from(at));
      if (!plan.causal) continue;
      read_within(count, q.from(at), k.from(at), plan.width, false, v.from(at), plan.value_width, y.from(at));
      add(count, k.from(at), v.from(at));
    }
  }

  void backward(HeadRows<const T> gy, HeadRows<T> gq, HeadRows<T> gk, HeadRows<T> gv) const {
    if (gq.data != nullptr) backward_queries(gy, gq);
    if (gk.data == nullptr && gv.data == nullptr) return;
    if (plan.causal) {
      clear();
    } else {
      add_all(q, gy);
    }
    for (std::int64_t chunk = chunks() - 1; chunk >= 0; --chunk) {
      const std::int64_t at = chunk * kChunk, count = rows(chunk);
      if (gk.data != nullptr) {
        read(count, v.from(at), true, gk.from(at));
        if (plan.causal)
          read_within(count, gy.from(at), v.from(at), plan.value_width, true, q.from(at), plan.width, gk.from(at));
      }
      if (gv.data != nullptr) {
        read(count, k.from(at), false, gv.from(at));
        if (plan.causal)
          read_within(count, q.from(at), k.from(at), plan.width, true, gy.from(at), plan.value_width, gv.from(at));
      }
      if (plan.causal) add(count, q.from(at), gy.from(at));
    }
  }

 private:
  void backward_queries(HeadRows<const T> gy, HeadRows<T> gq) const {
    if (plan.causal) {
      clear();
    } else {
      add_all(k, v);
    }
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
      const std::int64_t at = chunk * kChunk, count = rows(chunk);
      read(count, gy.from(at), true, gq.from(at));
      if (!plan.causal) continue;
      read_within(count, gy.from(at), v.from(at), plan.value_width, false, k.from(at), plan.width, gq.from(at));
      add(count, k.from(at), v.from(at));
    }
  }
};

/// Calls body(walk, row, head) for every head of every sequence, in parallel.
template <class T, class Body>
void for_each_walk(const ProductAttentionPlan<T>& plan, Body&& body) {
  const auto count = static_cast<std::int64_t>(plan.bounds.size()) - 1;
  parallel_for(count * plan.heads, 1, [&](std::int64_t task, std::int64_t) {
    const auto sequence = static_cast<std::size_t>(task / plan.heads);
    const std::int64_t row = plan.bounds[sequence], length = plan.bounds[sequence + 1] - row, head = task % plan.heads;
    if (length == 0) return;
    Scratch<T> room(plan.width * plan.value_width + kChunk * kChunk);
    const auto rows = [&](MatrixRows<const T> x, std::int64_t width) {
      return HeadRows<const T>{x.data + row * x.stride + head * width, x.stride};
    };
    body(Walk<T>{plan, length, rows(plan.q, plan.width), rows(plan.k, plan.width), rows(plan.v, plan.value_width),
                 room.data(), room.data() + plan.width * plan.value_width},
         row, head);
  });
}

/// Those of a dense matrix [T, heads * width], null where there is none.
template <class T>
HeadRows<T> dense(T* x, std::int64_t heads, std::int64_t width, std::int64_t row, std::int64_t head) {
  if (x == nullptr) return {};
  return {x + row * heads * width + head * width, heads * width};
}

}  // namespace

template <class T>
void product_attention_forward(const ProductAttentionPlan<T>& plan, T* output) {
  for_each_walk(plan, [&](const Walk<T>& walk, std::int64_t row, std::int64_t head) {
    walk.forward(dense(output, plan.heads, plan.value_width, row, head));
  });
}

template <class T>
void product_attention_backward(const ProductAttentionPlan<T>& plan, const T* gradient_output, T* gradient_q,
                                T* gradient_k, T* gradient_v) {
  for_each_walk(plan, [&](const Walk<T>& walk, std::int64_t row, std::int64_t head) {
    const auto of = [&](auto* x, std::int64_t width) { return dense(x, plan.heads, width, row, head); };
    walk.backward(of(gradient_output, plan.value_width), of(gradient_q, plan.width), of(gradient_k, plan.width),
                  of(gradient_v, plan.value_width));
  });
}

template void product_attention_forward(const ProductAttentionPlan<float>&, float*);
template void product_attention_forward(const ProductAttentionPlan<double>&, double*);
template void product_attention_backward(const ProductAttentionPlan<float>&, const float*, float*, float*, float*);
template void product_attention_backward(const ProductAttentionPlan<double>&, const double*, double*, double*, double*);

}  // namespace tally::kernels
