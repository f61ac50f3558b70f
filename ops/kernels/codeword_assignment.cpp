// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/codeword_assignment.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "tally/core/kernels.h"
#include "tally/ops/kernels/codeword_assignment.h"
#include "tally/ops/kernels/simd_math-inl.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;

constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// Adds up vectors: short runs in f32 lanes, the runs in double.
class LaneSum {
 public:
  HWY_INLINE LaneSum() : partial_(hn::Zero(F())) {}
  HWY_INLINE void add(V v) {
    partial_ = hn::Add(partial_, v);
    if (++terms_ == 16) flush();
  }
  HWY_INLINE double total() {
    flush();
    return total_;
  }

 private:
  HWY_INLINE void flush() {
    total_ += static_cast<double>(hn::GetLane(hn::SumOfLanes(F(), partial_)));
    partial_ = hn::Zero(F());
    terms_ = 0;
  }
  V partial_;
  int terms_ = 0;
  double total_ = 0;
};

/// Writes e^(x - max x) and returns 1 / their sum.
HWY_INLINE float exponentials(const float* x, float* y, std::int64_t n) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  V largest = hn::Set(d, kLowest);
  for_each_vector(d, n, [&](std::int64_t j, std::int64_t count) {
    V v = load_lanes(d, x + j, count);
    if (count < lanes) v = hn::IfThenElse(hn::FirstN(d, static_cast<std::size_t>(count)), v, hn::Set(d, kLowest));
    largest = hn::Max(largest, v);
  });
  const V shift = hn::MaxOfLanes(d, largest);
  LaneSum sum;
  for_each_vector(d, n, [&](std::int64_t j, std::int64_t count) {
    V e = simd::exp_of_difference(d, hn::Sub(load_lanes(d, x + j, count), shift));
    if (count < lanes) e = hn::IfThenElseZero(hn::FirstN(d, static_cast<std::size_t>(count)), e);
    store_lanes(e, d, y + j, count);
    sum.add(e);
  });
  return static_cast<float>(1 / sum.total());
}

void softmax_f32(const float* logits, float* probabilities, std::int64_t rows, std::int64_t words,
                 std::int64_t stride) {
  const F d;
  for (std::int64_t row = 0; row < rows; ++row) {
    float* out = probabilities + row * stride;
    const V inverse = hn::Set(d, exponentials(logits + row * stride, out, words));
    for_each_vector(d, words, [&](std::int64_t j, std::int64_t count) {
      store_lanes(hn::Mul(load_lanes(d, out + j, count), inverse), d, out + j, count);
    });
  }
}

// Words of one book lie far apart from row to row, farther than the hardware looks ahead.
constexpr std::int64_t kAhead = 4;
HWY_INLINE void prefetch(const float* from, std::int64_t n) {
  constexpr std::int64_t kLine = 64 / sizeof(float);
  for (std::int64_t i = 0; i < n; i += kLine) hwy::Prefetch(from + i);
}

/// assignment_slope of kRows rows of kVectors whole vectors, which stay in registers. The rows go step by step: the
/// dependent steps of one then overlap with the next one's.
template <int kVectors, int kRows>
HWY_INLINE void slope_in_registers(const float* logits, const float* direct, std::int64_t in_stride, float* out,
                                   float* probabilities, std::int64_t stride, V factor) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  V p[kRows][kVectors], statistic[kRows];
  for (int r = 0; r < kRows; ++r) {
    V largest = hn::Set(d, kLowest);
    for (int k = 0; k < kVectors; ++k) {
      p[r][k] = hn::LoadU(d, logits + r * in_stride + k * lanes);
      largest = hn::Max(largest, p[r][k]);
    }
    statistic[r] = hn::MaxOfLanes(d, largest);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int k = 0; k < kVectors; ++k) p[r][k] = simd::exp_of_difference(d, hn::Sub(p[r][k], statistic[r]));
  }
  for (int r = 0; r < kRows; ++r) {
    V sum = p[r][0];
    for (int k = 1; k < kVectors; ++k) sum = hn::Add(sum, p[r][k]);
    statistic[r] = hn::Div(hn::Set(d, 1.0f), hn::SumOfLanes(d, sum));
  }
  for (int r = 0; r < kRows; ++r) {
    V product = hn::Zero(d);
    for (int k = 0; k < kVectors; ++k) {
      p[r][k] = hn::Mul(p[r][k], statistic[r]);
      if (probabilities != nullptr) hn::StoreU(p[r][k], d, probabilities + r * stride + k * lanes);
      product = hn::MulAdd(p[r][k], hn::LoadU(d, out + r * stride + k * lanes), product);
    }
    statistic[r] = hn::SumOfLanes(d, product);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int k = 0; k < kVectors; ++k) {
      float* y = out + r * stride + k * lanes;
      V v = hn::Mul(p[r][k], hn::Sub(hn::LoadU(d, y), statistic[r]));
      if (direct != nullptr) v = hn::Add(v, hn::LoadU(d, direct + r * in_stride + k * lanes));
      hn::StoreU(hn::Mul(v, factor), d, y);
    }
  }
}

template <int kVectors>
void slope_in_registers(const AssignmentRows<float>& in, float* out, float* probabilities, std::int64_t stride,
                        float scale) {
  constexpr std::int64_t kTogether = std::max(1, 4 / kVectors);
  const V factor = hn::Set(F(), scale);
  const auto at = [](auto* from, std::int64_t elements) { return from == nullptr ? nullptr : from + elements; };
  std::int64_t row = 0;
  for (; row + kTogether <= in.rows; row += kTogether) {
    for (std::int64_t next = row + kAhead; next < std::min(row + kAhead + kTogether, in.rows); ++next) {
      prefetch(in.logits + next * in.stride, in.words);
      if (in.direct != nullptr) prefetch(in.direct + next * in.stride, in.words);
    }
    slope_in_registers<kVectors, kTogether>(in.logits + row * in.stride, at(in.direct, row * in.stride), in.stride,
                                            out + row * stride, at(probabilities, row * stride), stride, factor);
  }
  for (; row < in.rows; ++row) {
    slope_in_registers<kVectors, 1>(in.logits + row * in.stride, at(in.direct, row * in.stride), in.stride,
                                    out + row * stride, at(probabilities, row * stride), stride, factor);
  }
}

/// assignment_slope for any number of words.
void slope_in_memory(const AssignmentRows<float>& in, float* out, float* probabilities, std::int64_t stride,
                     float scale) {
  const F d;
  const std::int64_t words = in.words;
  std::vector<float> scratch(probabilities == nullptr ? static_cast<std::size_t>(words) : 0);
  const V factor = hn::Set(d, scale);
  for (std::int64_t row = 0; row < in.rows; ++row) {
    float* p = probabilities == nullptr ? scratch.data() : probabilities + row * stride;
    float* y = out + row * stride;
    const float* more = in.direct == nullptr ? nullptr : in.direct + row * in.stride;
    if (row + kAhead < in.rows) {
      prefetch(in.logits + (row + kAhead) * in.stride, words);
      if (more != nullptr) prefetch(more + kAhead * in.stride, words);
    }
    const V inverse = hn::Set(d, exponentials(in.logits + row * in.stride, p, words));
    LaneSum product;
    for_each_vector(d, words, [&](std::int64_t j, std::int64_t count) {
      const V v = hn::Mul(load_lanes(d, p + j, count), inverse);
      store_lanes(v, d, p + j, count);
      product.add(hn::Mul(v, load_lanes(d, y + j, count)));
    });
    const V mean = hn::Set(d, static_cast<float>(product.total()));
    for_each_vector(d, words, [&](std::int64_t j, std::int64_t count) {
      V v = hn::Mul(load_lanes(d, p + j, count), hn::Sub(load_lanes(d, y + j, count), mean));
      if (more != nullptr) v = hn::Add(v, load_lanes(d, more + j, count));
      store_lanes(hn::Mul(v, factor), d, y + j, count);
    });
  }
}

void slope_f32(const AssignmentRows<float>& in, float* out, float* probabilities, std::int64_t stride, float scale) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F()));
  switch (in.words % lanes == 0 ? in.words / lanes : 0) {
    case 1:
      return slope_in_registers<1>(in, out, probabilities, stride, scale);
    case 2:
      return slope_in_registers<2>(in, out, probabilities, stride, scale);
    case 4:
      return slope_in_registers<4>(in, out, probabilities, stride, scale);
    case 8:
      return slope_in_registers<8>(in, out, probabilities, stride, scale);
    default:
      return slope_in_memory(in, out, probabilities, stride, scale);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(softmax_f32);
HWY_EXPORT(slope_f32);

void row_softmax(const double* x, double* y, std::int64_t n) {
  const double sum = exp_and_sum(y, x, 1, max_value(x, n), n);
  scale(y, 1 / sum, n);
}

}  // namespace

template <>
void softmax_of_words(const float* logits, float* probabilities, std::int64_t rows, std::int64_t words,
                      std::int64_t stride) {
  HWY_DYNAMIC_DISPATCH(softmax_f32)(logits, probabilities, rows, words, stride);
}
template <>
void softmax_of_words(const double* logits, double* probabilities, std::int64_t rows, std::int64_t words,
                      std::int64_t stride) {
  for (std::int64_t row = 0; row < rows; ++row) row_softmax(logits + row * stride, probabilities + row * stride, words);
}

template <>
void assignment_slope(const AssignmentRows<float>& in, float* out, float* probabilities, std::int64_t stride,
                      float scale) {
  HWY_DYNAMIC_DISPATCH(slope_f32)(in, out, probabilities, stride, scale);
}
template <>
void assignment_slope(const AssignmentRows<double>& in, double* out, double* probabilities, std::int64_t stride,
                      double scale) {
  std::vector<double> scratch(static_cast<std::size_t>(in.words));
  for (std::int64_t row = 0; row < in.rows; ++row) {
    double* p = probabilities == nullptr ? scratch.data() : probabilities + row * stride;
    double* y = out + row * stride;
    row_softmax(in.logits + row * in.stride, p, in.words);
    const double mean = dot(p, y, in.words);
    for (std::int64_t w = 0; w < in.words; ++w) {
      y[w] = scale * (p[w] * (y[w] - mean) + (in.direct == nullptr ? 0 : in.direct[row * in.stride + w]));
    }
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
