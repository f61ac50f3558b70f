// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/columns.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

void add_column_sums_f32(double* sums, const float* x, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  const hn::ScalableTag<float> d;
  HWY_ALIGN float run[HWY_MAX_BYTES / sizeof(float)];
  for (std::int64_t first = 0; first < rows; first += kRowRun) {
    const std::int64_t end = std::min(rows, first + kRowRun);
    for_each_vector(d, columns, [&](std::int64_t j, std::int64_t count) {
      auto total = hn::Zero(d);
      for (std::int64_t row = first; row < end; ++row)
        total = hn::Add(total, load_lanes(d, x + row * stride + j, count));
      hn::Store(total, d, run);
      for (std::int64_t lane = 0; lane < count; ++lane) sums[j + lane] += static_cast<double>(run[lane]);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {
HWY_EXPORT(add_column_sums_f32);

template <class T>
void fold(T* out, const double* sums, std::int64_t blocks, std::int64_t columns) {
  for (std::int64_t j = 0; j < columns; ++j) {
    double total = 0;
    for (std::int64_t block = 0; block < blocks; ++block) total += sums[block * columns + j];
    out[j] = static_cast<T>(total);
  }
}
}  // namespace

void add_column_sums(double* sums, const float* x, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  HWY_DYNAMIC_DISPATCH(add_column_sums_f32)(sums, x, rows, columns, stride);
}
void add_column_sums(double* sums, const double* x, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  for (std::int64_t first = 0; first < rows; first += kRowRun) {
    const std::int64_t end = std::min(rows, first + kRowRun);
    for (std::int64_t j = 0; j < columns; ++j) {
      double total = 0;
      for (std::int64_t row = first; row < end; ++row) total += x[row * stride + j];
      sums[j] += total;
    }
  }
}

void fold_blocks(float* out, const double* sums, std::int64_t blocks, std::int64_t columns) {
  fold(out, sums, blocks, columns);
}
void fold_blocks(double* out, const double* sums, std::int64_t blocks, std::int64_t columns) {
  fold(out, sums, blocks, columns);
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
