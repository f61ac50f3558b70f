#include "tally/ops/kernels/linformer_attention.h"

#include <algorithm>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/attention_block.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

constexpr std::int64_t kRows = 64;
/// Partial sums of the projections' gradients, at most: their number decides an order of sums, not the threads.
constexpr std::int64_t kPartials = 8;

/// One head of one sequence.
template <class T>
struct Head {
  const LinformerPlan<T>& plan;
  std::int64_t row, length, head;

  MatrixRows<const T> rows(MatrixRows<const T> x, std::int64_t begin, std::int64_t width) const {
    return {x.data + (row + begin) * x.stride + head * width, x.stride};
  }
  template <class U>
  MatrixRows<U> dense(U* x, std::int64_t begin, std::int64_t width) const {
    return {x == nullptr ? nullptr : x + (row + begin) * plan.heads * width + head * width, plan.heads * width};
  }
  /// out [projected, width] = projection x.
  void project(const T* projection, MatrixRows<const T> x, std::int64_t width, Scratch<T>& out) const {
    const MatrixRows<const T> from = rows(x, 0, width);
    out = Scratch<T>(plan.projected * width);
    blas::gemm(Transpose::no, Transpose::no, plan.projected, width, length, T{1}, projection, plan.columns, from.data,
               from.stride, T{0}, out.data(), width);
  }
};

/// Calls body(head) for [begin, end) of all heads of all sequences, leaving out empty ones.
template <class T, class Body>
void for_heads(const LinformerPlan<T>& plan, std::int64_t begin, std::int64_t end, Body&& body) {
  for (std::int64_t task = begin; task < end; ++task) {
    const auto sequence = static_cast<std::size_t>(task / plan.heads);
    const std::int64_t row = plan.bounds[sequence], length = plan.bounds[sequence + 1] - row;
    if (length > 0) body(Head<T>{plan, row, length, task % plan.heads});
  }
}

template <class T>
std::int64_t head_count(const LinformerPlan<T>& plan) {
  return (static_cast<std::int64_t>(plan.bounds.size()) - 1) * plan.heads;
}

/// Backward of one head; adds to the (partial) gradients of the projections, which may be null.
template <class T>
void backward(const Head<T>& at, const LinformerBackward<T>& data, const T* delta, T* key_projection,
              T* value_projection) {
  const LinformerPlan<T>& plan = at.plan;
  Scratch<T> keys, values;
  at.project(plan.key_projection, plan.k, plan.width, keys);
  at.project(plan.value_projection, plan.v, plan.value_width, values);
  const bool for_keys = data.gradient_k != nullptr || key_projection != nullptr;
  const bool for_values = data.gradient_v != nullptr || value_projection != nullptr;
  Scratch<T> gradient_keys, gradient_values;
  if (for_keys) gradient_keys = Scratch<T>::zeros(keys.size());
  if (for_values) gradient_values = Scratch<T>::zeros(values.size());
  const KeySet<T> set{{keys.data(), plan.width}, {values.data(), plan.value_width}, plan.projected};
  const KeySetGradient<T> to{{gradient_keys.data(), plan.width}, {gradient_values.data(), plan.value_width}};
  AttentionBlock<T> block(std::min(kRows, at.length), plan.projected, plan.width, plan.value_width, plan.scale);
  for (std::int64_t begin = 0; begin < at.length; begin += kRows) {
    const std::int64_t count = std::min(kRows, at.length - begin);
    const MatrixRows<T> gq = at.dense(data.gradient_q, begin, plan.width);
    for (std::int64_t r = 0; r < count && gq.data != nullptr; ++r)
      std::fill_n(gq.data + r * gq.stride, plan.width, T{0});
    const std::int64_t place = (at.row + begin) * plan.heads + at.head;
    block.backward(at.rows(plan.q, begin, plan.width), count, set,
                   at.dense(data.gradient_output, begin, plan.value_width), data.log_sum_exp + place, delta + place,
                   plan.heads, gq, to);
  }
  // To the rows, and to the projection itself.
  const auto unproject = [&](const T* projection, MatrixRows<const T> x, std::int64_t width, const T* gradient,
                             MatrixRows<T> gx, T* gradient_projection) {
    if (gx.data != nullptr) {
      blas::gemm(Transpose::yes, Transpose::no, at.length, width, plan.projected, T{1}, projection, plan.columns,
                 gradient, width, T{0}, gx.data, gx.stride);
    }
    if (gradient_projection != nullptr) {
      const MatrixRows<const T> from = at.rows(x, 0, width);
      blas::gemm(Transpose::no, Transpose::yes, plan.projected, at.length, width, T{1}, gradient, width, from.data,
                 from.stride, T{1}, gradient_projection, plan.columns);
    }
  };
  unproject(plan.key_projection, plan.k, plan.width, gradient_keys.data(), at.dense(data.gradient_k, 0, plan.width),
            key_projection);
  unproject(plan.value_projection, plan.v, plan.value_width, gradient_values.data(),
            at.dense(data.gradient_v, 0, plan.value_width), value_projection);
}

}  // namespace

template <class T>
void linformer_forward(const LinformerPlan<T>& plan, T* output, double* log_sum_exp) {
  parallel_for(head_count(plan), 1, [&](std::int64_t begin, std::int64_t end) {
    for_heads(plan, begin, end, [&](const Head<T>& at) {
      Scratch<T> keys, values;
      at.project(plan.key_projection, plan.k, plan.width, keys);
      at.project(plan.value_projection, plan.v, plan.value_width, values);
      const KeySet<T> set{{keys.data(), plan.width}, {values.data(), plan.value_width}, plan.projected};
      AttentionBlock<T> block(std::min(kRows, at.length), plan.projected, plan.width, plan.value_width, plan.scale);
      for (std::int64_t first = 0; first < at.length; first += kRows) {
        const std::int64_t count = std::min(kRows, at.length - first);
        const MatrixRows<T> out = at.dense(output, first, plan.value_width);
        block.start(count);
        block.add(at.rows(plan.q, first, plan.width), count, set, out);
        block.finish(count, out, log_sum_exp + (at.row + first) * plan.heads + at.head, plan.heads);
      }
    });
  });
}

template <class T>
void linformer_backward(const LinformerPlan<T>& plan, const LinformerBackward<T>& data) {
  const std::int64_t rows = plan.bounds.back(), tasks = head_count(plan), size = plan.projected * plan.columns;
  Scratch<T> delta(rows * plan.heads);
  head_products(data.output, data.gradient_output, rows, plan.heads, plan.value_width, delta.data());
  const std::int64_t grain = std::max<std::int64_t>((tasks + kPartials - 1) / kPartials, 1);
  const std::int64_t partials = block_count(tasks, grain);
  const auto room = [&](const T* wanted) {
    return wanted == nullptr ? Scratch<T>() : Scratch<T>::zeros(partials * size);
  };
  Scratch<T> for_keys = room(data.gradient_key_projection), for_values = room(data.gradient_value_projection);
  parallel_for(tasks, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin / grain * size;
    for_heads(plan, begin, end, [&](const Head<T>& head) {
      backward<T>(head, data, delta.data(), for_keys.absent() ? nullptr : for_keys.data() + at,
                  for_values.absent() ? nullptr : for_values.data() + at);
    });
  });
  const auto fold = [&](const Scratch<T>& parts, T* to) {
    if (to == nullptr) return;
    std::fill_n(to, size, T{0});
    for (std::int64_t i = 0; i < partials; ++i) add_into(to, parts.data() + i * size, size);
  };
  fold(for_keys, data.gradient_key_projection);
  fold(for_values, data.gradient_value_projection);
}

template void linformer_forward(const LinformerPlan<float>&, float*, double*);
template void linformer_forward(const LinformerPlan<double>&, double*, double*);
template void linformer_backward(const LinformerPlan<float>&, const LinformerBackward<float>&);
template void linformer_backward(const LinformerPlan<double>&, const LinformerBackward<double>&);

}  // namespace tally::kernels
