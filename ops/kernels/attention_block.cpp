#include "tally/ops/kernels/attention_block.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

constexpr std::int64_t round_up(std::int64_t n) { return (n + kTileAlignment - 1) / kTileAlignment * kTileAlignment; }

}  // namespace

template <class T>
AttentionBlock<T>::AttentionBlock(std::int64_t rows, std::int64_t keys, std::int64_t width, std::int64_t value_width,
                                  double scale)
    : maximum(static_cast<std::size_t>(round_up(rows))),
      sum(static_cast<std::size_t>(round_up(rows))),
      stride_(round_up(keys)),
      width_(width),
      value_width_(value_width),
      scale_(static_cast<T>(scale)),
      tiles_(Shape{2, rows, stride_}, dtype_of<T>),
      scores_(tiles_.template mutable_data<T>()),
      products_(scores_ + rows * stride_),
      factor_(static_cast<std::size_t>(round_up(rows))) {}

template <class T>
void AttentionBlock<T>::start(std::int64_t rows, bool resumed) {
  std::fill_n(maximum.begin(), round_up(rows), -std::numeric_limits<T>::infinity());
  std::fill_n(sum.begin(), round_up(rows), 0.0);
  first_ = !resumed;
}

template <class T>
void AttentionBlock<T>::score(MatrixRows<const T> queries, std::int64_t rows, const KeySet<T>& set) {
  blas::gemm(Transpose::no, Transpose::yes, rows, set.count, width_, scale_, queries.data, queries.stride,
             set.keys.data, set.keys.stride, T{0}, scores_, stride_);
  hide(rows, set, -std::numeric_limits<T>::infinity(), scores_);
  if (set.self < 0) return;
  for (std::int64_t r = 0; r < rows; ++r) scores_[r * stride_ + set.self + r] = static_cast<T>(kSelfScore);
}

template <class T>
void AttentionBlock<T>::hide(std::int64_t rows, const KeySet<T>& set, T value, T* tile) const {
  if (set.visible == nullptr) return;
  for (std::int64_t r = 0; r < rows; ++r)
    std::fill(tile + r * stride_ + set.visible[r], tile + r * stride_ + set.count, value);
}

template <class T>
void AttentionBlock<T>::add(MatrixRows<const T> queries, std::int64_t rows, const KeySet<T>& set, MatrixRows<T> out) {
  score(queries, rows, set);
  const bool rescale =
      softmax_tile(scores_, stride_, rows, set.count, set.band, {}, maximum.data(), sum.data(), factor_.data());
  if (!first_ && rescale) scale_rows(out.data, out.stride, rows, value_width_, factor_.data());
  blas::gemm(Transpose::no, Transpose::no, rows, value_width_, set.count, T{1}, scores_, stride_, set.values.data,
             set.values.stride, first_ ? T{0} : T{1}, out.data, out.stride);
  first_ = false;
}

template <class T>
void AttentionBlock<T>::finish(std::int64_t rows, MatrixRows<T> out, double* log_sum_exp, std::int64_t distance) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto i = static_cast<std::size_t>(r);
    factor_[i] = static_cast<T>(1 / sum[i]);
    log_sum_exp[r * distance] = static_cast<double>(maximum[i]) + std::log(sum[i]);
  }
  scale_rows(out.data, out.stride, rows, value_width_, factor_.data());
}

template <class T>
void AttentionBlock<T>::backward(MatrixRows<const T> queries, std::int64_t rows, const KeySet<T>& set,
                                 MatrixRows<const T> gradient, const double* log_sum_exp, const T* delta,
                                 std::int64_t distance, MatrixRows<T> gradient_queries, const KeySetGradient<T>& to) {
  score(queries, rows, set);
  const bool scored = gradient_queries.data != nullptr || to.keys.data != nullptr;
  if (scored) {
    blas::gemm(Transpose::no, Transpose::yes, rows, set.count, value_width_, T{1}, gradient.data, gradient.stride,
               set.values.data, set.values.stride, T{0}, products_, stride_);
  }
  softmax_tile_backward(scores_, scored ? products_ : nullptr, stride_, rows, set.count, set.band, {}, log_sum_exp,
                        delta, distance, scale_);
  if (to.values.data != nullptr) {
    blas::gemm(Transpose::yes, Transpose::no, set.count, value_width_, rows, T{1}, scores_, stride_, gradient.data,
               gradient.stride, T{1}, to.values.data, to.values.stride);
  }
  if (!scored) return;
  // Their probabilities are 0 already, and 0 times infinity is not.
  hide(rows, set, T{0}, products_);
  if (set.self >= 0) {
    for (std::int64_t r = 0; r < rows; ++r) products_[r * stride_ + set.self + r] = 0;
  }
  if (gradient_queries.data != nullptr) {
    blas::gemm(Transpose::no, Transpose::no, rows, width_, set.count, T{1}, products_, stride_, set.keys.data,
               set.keys.stride, T{1}, gradient_queries.data, gradient_queries.stride);
  }
  if (to.keys.data != nullptr) {
    blas::gemm(Transpose::yes, Transpose::no, set.count, width_, rows, T{1}, products_, stride_, queries.data,
               queries.stride, T{1}, to.keys.data, to.keys.stride);
  }
}

template <class T>
void head_products(const T* output, const T* gradient, std::int64_t rows, std::int64_t heads, std::int64_t width,
                   T* delta) {
  // The row of an output's head is one stretch of memory, and so are those of its gradient.
  parallel_for(rows * heads, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) delta[i] = dot(output + i * width, gradient + i * width, width);
  });
}

template class AttentionBlock<float>;
template class AttentionBlock<double>;
template void head_products(const float*, const float*, std::int64_t, std::int64_t, std::int64_t, float*);
template void head_products(const double*, const double*, std::int64_t, std::int64_t, std::int64_t, double*);

}  // namespace tally::kernels
