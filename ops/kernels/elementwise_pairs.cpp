// The families of two arguments. Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/elementwise_pairs.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "tally/ops/kernels/elementwise.h"
#include "tally/ops/kernels/map-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

/// g quotient / b of one row, from a function that gives the divisors of a vector.
template <class Divisors>
HWY_INLINE void times_quotient_row(const float* g, const float* quotient, float* y, std::int64_t n,
                                   Divisors&& divisors) {
  const Floats d;
  const V smallest = hn::Set(d, std::numeric_limits<float>::min()),
          largest = hn::Set(d, std::numeric_limits<float>::max()), zero = hn::Zero(d);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
    const V left = load_lanes(d, g + i, count), right = load_lanes(d, quotient + i, count);
    const V divisor = divisors(i, count), product = hn::Mul(left, right), size = hn::Abs(product);
    const auto in_range = hn::And(hn::Ge(size, smallest), hn::Le(size, largest));
    const auto first = hn::Or(in_range, hn::Or(hn::Eq(left, zero), hn::Eq(right, zero)));
    V result = hn::Div(product, divisor);
    if (!hn::AllTrue(d, first)) result = hn::IfThenElse(first, result, hn::Mul(hn::Div(left, divisor), right));
    store_lanes(result, d, y + i, count);
  });
}

void times_quotient_f32(const float* g, const float* quotient, const RowOperand<float>& b, float* y, std::int64_t rows,
                        std::int64_t n) {
  const Floats d;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* divisor = b.data + r * b.row_stride;
    const auto row = [&](auto&& divisors)
                         HWY_ATTR { times_quotient_row(g + r * n, quotient + r * n, y + r * n, n, divisors); };
    if (b.step == 0) {
      const V same = hn::Set(d, *divisor);
      row([&](std::int64_t, std::int64_t) HWY_ATTR { return same; });
    } else {
      row([&](std::int64_t i, std::int64_t count) HWY_ATTR { return load_lanes(d, divisor + i, count); });
    }
  }
}

template <class Function>
HWY_INLINE void rows_f32(const RowOperand<float>& a, const RowOperand<float>& b, float* y, std::int64_t rows,
                         std::int64_t n, Function&& f) {
  const Floats d;
  for (std::int64_t i = 0; i < rows; ++i) {
    const float *pa = a.data + i * a.row_stride, *pb = b.data + i * b.row_stride;
    if (a.step != 0 && b.step != 0) {
      map(pa, pb, y + i * n, n, f);
    } else if (a.step != 0) {
      const V right = hn::Set(d, *pb);
      map(pa, y + i * n, n, [&](V left) HWY_ATTR { return f(left, right); });
    } else {
      const V left = hn::Set(d, *pa);
      if (b.step != 0) {
        map(pb, y + i * n, n, [&](V right) HWY_ATTR { return f(left, right); });
      } else {
        const float value = hn::GetLane(f(left, hn::Set(d, *pb)));
        for (std::int64_t j = 0; j < n; ++j) y[i * n + j] = value;
      }
    }
  }
}

void binary_f32(BinaryOp op, const RowOperand<float>& a, const RowOperand<float>& b, float* y, std::int64_t rows,
                std::int64_t n) {
  switch (op) {
    case BinaryOp::add:
      return rows_f32(a, b, y, rows, n, [](V left, V right) HWY_ATTR { return hn::Add(left, right); });
    case BinaryOp::subtract:
      return rows_f32(a, b, y, rows, n, [](V left, V right) HWY_ATTR { return hn::Sub(left, right); });
    case BinaryOp::multiply:
      return rows_f32(a, b, y, rows, n, [](V left, V right) HWY_ATTR { return hn::Mul(left, right); });
    case BinaryOp::divide:
      return rows_f32(a, b, y, rows, n, [](V left, V right) HWY_ATTR { return hn::Div(left, right); });
    case BinaryOp::maximum:
      return rows_f32(a, b, y, rows, n, [](V left, V right) HWY_ATTR {
        return hn::IfThenElse(hn::Or(hn::Ge(left, right), hn::IsNaN(left)), left, right);
      });
    case BinaryOp::minimum:
      return rows_f32(a, b, y, rows, n, [](V left, V right) HWY_ATTR {
        return hn::IfThenElse(hn::Or(hn::Le(left, right), hn::IsNaN(left)), left, right);
      });
    case BinaryOp::power:
      return;  // no vectors: see binary_rows()
  }
}

/// The vector of an operand's row, from element i on.
HWY_INLINE V lanes_of(const RowOperand<float>& operand, std::int64_t row, std::int64_t i, std::int64_t count) {
  const Floats d;
  const float* from = operand.data + row * operand.row_stride;
  return operand.step == 0 ? hn::Set(d, *from) : load_lanes(d, from + i, count);
}

/// What maximum gives to a: g where a > b, half of it where they are equal, nothing below.
void share_f32(const float* g, const RowOperand<float>& a, const RowOperand<float>& b, float* y, std::int64_t rows,
               std::int64_t n) {
  const Floats d;
  const V half = hn::Set(d, 0.5f);
  for (std::int64_t r = 0; r < rows; ++r) {
    for_each_vector(d, n, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
      const V whole = load_lanes(d, g + r * n + i, count);
      const V left = lanes_of(a, r, i, count), right = lanes_of(b, r, i, count);
      const V shared = hn::IfThenElse(hn::Eq(left, right), hn::Mul(whole, half), whole);
      store_lanes(hn::IfThenZeroElse(hn::Lt(left, right), shared), d, y + r * n + i, count);
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

HWY_EXPORT(times_quotient_f32);
HWY_EXPORT(binary_f32);
HWY_EXPORT(share_f32);

double evaluate(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::add:
      return a + b;
    case BinaryOp::subtract:
      return a - b;
    case BinaryOp::multiply:
      return a * b;
    case BinaryOp::divide:
      return a / b;
    case BinaryOp::maximum:
      return a >= b || std::isnan(a) ? a : b;
    case BinaryOp::minimum:
      return a <= b || std::isnan(a) ? a : b;
    case BinaryOp::power:
      return std::pow(a, b);
  }
  return 0;
}

/// body(i n + j, a(i, j), b(i, j)) for `rows` rows of n, in double.
template <class T, class Body>
void plain(const RowOperand<T>& a, const RowOperand<T>& b, std::int64_t rows, std::int64_t n, Body&& body) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      body(i * n + j, static_cast<double>(a.data[i * a.row_stride + j * a.step]),
           static_cast<double>(b.data[i * b.row_stride + j * b.step]));
    }
  }
}

template <class T>
void plain_rows(BinaryOp op, const RowOperand<T>& a, const RowOperand<T>& b, T* y, std::int64_t rows, std::int64_t n) {
  plain(a, b, rows, n,
        [&](std::int64_t at, double left, double right) { y[at] = static_cast<T>(evaluate(op, left, right)); });
}

/// Derivative of a^b by a, or by b: 0 where b is 0, or a is 0 and b above it.
double power_derivative(bool by_second, double a, double b) {
  if (!by_second) return b == 0 ? 0 : b * std::pow(a, b - 1);
  return a == 0 && b >= 0 ? 0 : std::pow(a, b) * std::log(a);
}

template <class T>
void share(const T* g, const RowOperand<T>& a, const RowOperand<T>& b, T* y, std::int64_t rows, std::int64_t n) {
  plain(a, b, rows, n, [&](std::int64_t at, double left, double right) {
    y[at] = left < right ? T{0} : left == right ? g[at] / 2 : g[at];
  });
}
void share(const float* g, const RowOperand<float>& a, const RowOperand<float>& b, float* y, std::int64_t rows,
           std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(share_f32)(g, a, b, y, rows, n);
}

template <class T>
void backward_rows(BinaryOp op, bool by_second, const T* g, const RowOperand<T>& a, const RowOperand<T>& b, T* y,
                   std::int64_t rows, std::int64_t n) {
  if (op != BinaryOp::power) {
    const bool exchanged = by_second != (op == BinaryOp::minimum);  // a is the smaller one where b is the larger
    return exchanged ? share(g, b, a, y, rows, n) : share(g, a, b, y, rows, n);
  }
  plain(a, b, rows, n, [&](std::int64_t at, double left, double right) {
    y[at] = static_cast<T>(static_cast<double>(g[at]) * power_derivative(by_second, left, right));
  });
}

}  // namespace

void times_quotient(const float* g, const float* quotient, const RowOperand<float>& b, float* y, std::int64_t rows,
                    std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(times_quotient_f32)(g, quotient, b, y, rows, n);
}
void times_quotient(const double* g, const double* quotient, const RowOperand<double>& b, double* y, std::int64_t rows,
                    std::int64_t n) {
  for (std::int64_t i = 0; i < rows * n; ++i) {
    const double divisor = b.data[i / n * b.row_stride + i % n * b.step], product = g[i] * quotient[i];
    const bool first = g[i] == 0 || quotient[i] == 0 || std::isnormal(product);
    y[i] = first ? product / divisor : g[i] / divisor * quotient[i];
  }
}

void binary_rows(BinaryOp op, const RowOperand<float>& a, const RowOperand<float>& b, float* y, std::int64_t rows,
                 std::int64_t n) {
  if (op == BinaryOp::power) return plain_rows(op, a, b, y, rows, n);
  HWY_DYNAMIC_DISPATCH(binary_f32)(op, a, b, y, rows, n);
}
void binary_rows(BinaryOp op, const RowOperand<double>& a, const RowOperand<double>& b, double* y, std::int64_t rows,
                 std::int64_t n) {
  plain_rows(op, a, b, y, rows, n);
}

void binary_backward_rows(BinaryOp op, bool by_second, const float* g, const RowOperand<float>& a,
                          const RowOperand<float>& b, float* y, std::int64_t rows, std::int64_t n) {
  backward_rows(op, by_second, g, a, b, y, rows, n);
}
void binary_backward_rows(BinaryOp op, bool by_second, const double* g, const RowOperand<double>& a,
                          const RowOperand<double>& b, double* y, std::int64_t rows, std::int64_t n) {
  backward_rows(op, by_second, g, a, b, y, rows, n);
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
