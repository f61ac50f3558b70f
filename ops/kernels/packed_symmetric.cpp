// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/packed_symmetric.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>

#include "tally/ops/kernels/packed_symmetric.h"
#include "tally/ops/kernels/scratch.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

constexpr std::int64_t kSmall = 512;  // elements of vectors whose copies need no memory of their own

/// Rows that are read together, so that x and out are loaded once for them. Floating-point numbers come from memory at
/// its own rate when they are read strictly in order, one row after the other; bytes are fewer than the work on them.
template <class E>
constexpr int kRows = sizeof(E) == 1 ? 2 : 1;

/// A whole vector of elements, as numbers of the type of D.
template <class D>
HWY_INLINE hn::Vec<D> load_elements(D d, const hn::TFromD<D>* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load_elements(D d, const std::int8_t* from) {
  const hn::Rebind<std::int8_t, D> bytes;
  const hn::Rebind<std::int32_t, D> integers;
  return hn::ConvertTo(d, hn::PromoteTo(integers, hn::LoadU(bytes, from)));
}

/// The same of the first `count`, zeros in the other lanes. Reads nothing beyond `end`.
template <class D, class E>
HWY_INLINE hn::Vec<D> load_elements(D d, const E* from, std::int64_t count, const E* end) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  if (end - from >= lanes) {
    return hn::IfThenElseZero(hn::FirstN(d, static_cast<std::size_t>(count)), load_elements(d, from));
  }
  HWY_ALIGN E part[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
  std::copy_n(from, count, part);
  return load_elements(d, static_cast<const E*>(part));
}

/// Rows [first, first + R) against the columns before `first`: adds x's part to the sums of those rows, and, for a
/// product, the rows' part to `out` of the columns. Whole vectors of x and out are read, and of out written.
template <int R, bool kProduct, class E, class T>
HWY_INLINE void walk_rows(const E* packed, const E* end, std::int64_t first, const T* x, T* out, T (&totals)[R]) {
  const hn::ScalableTag<T> d;
  const E* rows[R];
  hn::Vec<decltype(d)> sums[R], factors[R];
  for (int r = 0; r < R; ++r) {
    rows[r] = packed + packed_symmetric_size(first + r);
    sums[r] = hn::Zero(d);
    factors[r] = hn::Set(d, x[first + r]);
  }
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t j = 0;
  for (; j + lanes <= first; j += lanes) {
    const auto xs = hn::LoadU(d, x + j);
    auto ys = kProduct ? hn::LoadU(d, out + j) : hn::Zero(d);
    for (int r = 0; r < R; ++r) {
      const auto elements = load_elements(d, rows[r] + j);
      sums[r] = hn::MulAdd(elements, xs, sums[r]);
      if constexpr (kProduct) ys = hn::MulAdd(elements, factors[r], ys);
    }
    if constexpr (kProduct) hn::StoreU(ys, d, out + j);
  }
  if (j < first) {
    const auto xs = hn::LoadU(d, x + j);
    auto ys = kProduct ? hn::LoadU(d, out + j) : hn::Zero(d);
    for (int r = 0; r < R; ++r) {
      const auto elements = load_elements(d, rows[r] + j, first - j, end);
      sums[r] = hn::MulAdd(elements, xs, sums[r]);
      if constexpr (kProduct) ys = hn::MulAdd(elements, factors[r], ys);
    }
    if constexpr (kProduct) hn::StoreU(ys, d, out + j);
  }
  for (int r = 0; r < R; ++r) totals[r] = hn::GetLane(hn::SumOfLanes(d, sums[r]));
}

/// The triangle of rows and columns [first, first + R).
template <int R, bool kProduct, class E, class T>
HWY_INLINE T close_rows(const E* packed, std::int64_t first, const T* x, T* out, const T (&totals)[R]) {
  T form = 0;
  for (int r = 0; r < R; ++r) {
    const E* row = packed + packed_symmetric_size(first + r) + first;
    T total = totals[r];
    for (int c = 0; c < r; ++c) {
      total += static_cast<T>(row[c]) * x[first + c];
      if constexpr (kProduct) out[first + c] += static_cast<T>(row[c]) * x[first + r];
    }
    const T diagonal = static_cast<T>(row[r]) * x[first + r];
    if constexpr (kProduct) {
      out[first + r] = total + diagonal;
    } else {
      form += x[first + r] * (2 * total + diagonal);
    }
  }
  return form;
}

template <bool kProduct, class E, class T>
HWY_INLINE T walk(const E* packed, const T* query, std::int64_t width, T* product) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const std::int64_t room = (width + lanes - 1) / lanes * lanes;  // copies may be read in whole vectors
  HWY_ALIGN T small[2 * kSmall];
  Scratch<T> large;
  if (room > kSmall) large = Scratch<T>(2 * room);
  T *x = room > kSmall ? large.data() : small, *out = x + room;
  std::fill_n(x, 2 * room, T{0});
  std::copy_n(query, width, x);
  const E* end = packed + packed_symmetric_size(width);
  T form = 0;
  std::int64_t first = 0;
  for (; first + kRows<E> <= width; first += kRows<E>) {
    T totals[kRows<E>];
    walk_rows<kRows<E>, kProduct>(packed, end, first, x, out, totals);
    form += close_rows<kRows<E>, kProduct>(packed, first, x, out, totals);
  }
  for (; first < width; ++first) {
    T totals[1];
    walk_rows<1, kProduct>(packed, end, first, x, out, totals);
    form += close_rows<1, kProduct>(packed, first, x, out, totals);
  }
  if constexpr (kProduct) std::copy_n(out, width, product);
  return form;
}

void product_f32(const float* packed, const float* x, std::int64_t width, float* out) {
  walk<true>(packed, x, width, out);
}
void product_f64(const double* packed, const double* x, std::int64_t width, double* out) {
  walk<true>(packed, x, width, out);
}
void product_i8(const std::int8_t* packed, const float* x, std::int64_t width, float* out) {
  walk<true>(packed, x, width, out);
}
float form_f32(const float* packed, const float* x, std::int64_t width) {
  return walk<false>(packed, x, width, static_cast<float*>(nullptr));
}
double form_f64(const double* packed, const double* x, std::int64_t width) {
  return walk<false>(packed, x, width, static_cast<double*>(nullptr));
}
float form_i8(const std::int8_t* packed, const float* x, std::int64_t width) {
  return walk<false>(packed, x, width, static_cast<float*>(nullptr));
}

void update_f64(double* packed, double decay, double gain, const double* x, std::int64_t width) {
  const hn::ScalableTag<double> d;
  const auto decays = hn::Set(d, decay);
  for (std::int64_t i = 0; i < width; ++i) {
    double* row = packed + packed_symmetric_size(i);
    const auto factor = hn::Set(d, gain * x[i]);
    for_each_vector(d, i + 1, [&](std::int64_t j, std::int64_t count) {
      const auto kept = hn::Mul(decays, load_lanes(d, row + j, count));
      store_lanes(hn::MulAdd(factor, load_lanes(d, x + j, count), kept), d, row + j, count);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {

HWY_EXPORT(product_f32);
HWY_EXPORT(product_f64);
HWY_EXPORT(product_i8);
HWY_EXPORT(form_f32);
HWY_EXPORT(form_f64);
HWY_EXPORT(form_i8);
HWY_EXPORT(update_f64);

void packed_symmetric_product(const float* packed, const float* x, std::int64_t width, float* out) {
  HWY_DYNAMIC_DISPATCH(product_f32)(packed, x, width, out);
}
void packed_symmetric_product(const double* packed, const double* x, std::int64_t width, double* out) {
  HWY_DYNAMIC_DISPATCH(product_f64)(packed, x, width, out);
}
void packed_symmetric_product(const std::int8_t* packed, const float* x, std::int64_t width, float* out) {
  HWY_DYNAMIC_DISPATCH(product_i8)(packed, x, width, out);
}
float packed_symmetric_form(const float* packed, const float* x, std::int64_t width) {
  return HWY_DYNAMIC_DISPATCH(form_f32)(packed, x, width);
}
double packed_symmetric_form(const double* packed, const double* x, std::int64_t width) {
  return HWY_DYNAMIC_DISPATCH(form_f64)(packed, x, width);
}
float packed_symmetric_form(const std::int8_t* packed, const float* x, std::int64_t width) {
  return HWY_DYNAMIC_DISPATCH(form_i8)(packed, x, width);
}
void packed_symmetric_update(double* packed, double decay, double gain, const double* x, std::int64_t width) {
  HWY_DYNAMIC_DISPATCH(update_f64)(packed, decay, gain, x, width);
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
