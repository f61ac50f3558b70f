#pragma once

#include <cstdint>
#include <limits>

// The elementwise families: one entry for all functions of one argument and one for derivatives, the same for two
// arguments, and one for comparisons. f32 is SIMD, dispatched at run time; f64 is plain std::. Pointers need no
// alignment; outputs may be the same array as an input. All run on the calling thread, and an element's value does not
// depend on where it stands.

namespace tally::kernels {

enum class UnaryOp {
  negate,
  absolute,
  exp,
  log,
  square,
  sqrt,
  tanh,
  sigmoid,
  relu,
  gelu,      ///< x Phi(x), Phi the normal distribution function
  silu,      ///< x sigmoid(x)
  softplus,  ///< log(1 + e^x)
  sign,      ///< -1, 0 or 1; NaN stays NaN
  sin,
  cos,
  erf,
  log1p,
  expm1,
  elu,    ///< x, or alpha (e^x - 1) for x <= 0
  power,  ///< x^exponent; std::pow, also in f32
  clamp,  ///< x brought into [low, high]
};

/// Constants of those functions that have any.
struct UnaryConstants {
  double alpha = 1;
  double exponent = 1;
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

/// What the derivative of a function is computed from.
enum class DerivativeOf { nothing, input, output };
DerivativeOf derivative_of(UnaryOp op);

/// y[i] = op(x[i])
void unary(UnaryOp op, const float* x, float* y, std::int64_t n, const UnaryConstants& constants = {});
void unary(UnaryOp op, const double* x, double* y, std::int64_t n, const UnaryConstants& constants = {});

/// gx[i] = gy[i] op'(.); `saved` holds the inputs or outputs of op as derivative_of(op) says (null for nothing).
void unary_backward(UnaryOp op, const float* gy, const float* saved, float* gx, std::int64_t n,
                    const UnaryConstants& constants = {});
void unary_backward(UnaryOp op, const double* gy, const double* saved, double* gx, std::int64_t n,
                    const UnaryConstants& constants = {});

enum class BinaryOp {
  add,
  subtract,
  multiply,
  divide,
  maximum,  ///< the larger one; NaN when either is
  minimum,
  power,  ///< a^b; std::pow in double, also in f32
};

/// An operand of rows: element (i, j) is at data[i * row_stride + j * step]; step is 0 (one value for a row) or 1.
template <class T>
struct RowOperand {
  const T* data;
  std::int64_t row_stride;
  std::int64_t step;
};

/// y[i n + j] = op(a(i, j), b(i, j)) for `rows` rows of n.
void binary_rows(BinaryOp op, const RowOperand<float>& a, const RowOperand<float>& b, float* y, std::int64_t rows,
                 std::int64_t n);
void binary_rows(BinaryOp op, const RowOperand<double>& a, const RowOperand<double>& b, double* y, std::int64_t rows,
                 std::int64_t n);

/// y[i n + j] = g[i n + j] times the derivative of op by its first operand, or by its second, at a(i, j) and b(i, j).
/// Of equals maximum and minimum give each half, and with a NaN both the whole. For maximum, minimum and power.
void binary_backward_rows(BinaryOp op, bool by_second, const float* g, const RowOperand<float>& a,
                          const RowOperand<float>& b, float* y, std::int64_t rows, std::int64_t n);
void binary_backward_rows(BinaryOp op, bool by_second, const double* g, const RowOperand<double>& a,
                          const RowOperand<double>& b, double* y, std::int64_t rows, std::int64_t n);

enum class CompareOp { equal, not_equal, less, less_equal };

/// y[i n + j] = 1 where op(a(i, j), b(i, j)) holds, else 0.
template <class T>
void compare_rows(CompareOp op, const RowOperand<T>& a, const RowOperand<T>& b, std::uint8_t* y, std::int64_t rows,
                  std::int64_t n) {
  const auto each = [&](auto&& holds) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const T *pa = a.data + i * a.row_stride, *pb = b.data + i * b.row_stride;
      for (std::int64_t j = 0; j < n; ++j) y[i * n + j] = holds(pa[j * a.step], pb[j * b.step]) ? 1 : 0;
    }
  };
  switch (op) {
    case CompareOp::equal:
      return each([](T left, T right) { return left == right; });
    case CompareOp::not_equal:
      return each([](T left, T right) { return left != right; });
    case CompareOp::less:
      return each([](T left, T right) { return left < right; });
    case CompareOp::less_equal:
      return each([](T left, T right) { return left <= right; });
  }
}

/// y[i n + j] = g[i n + j] quotient[i n + j] / b(i, j) for `rows` rows of n, in the order whose intermediate neither
/// overflows nor vanishes: with the sign changed, what a / b = quotient gives b.
void times_quotient(const float* g, const float* quotient, const RowOperand<float>& b, float* y, std::int64_t rows,
                    std::int64_t n);
void times_quotient(const double* g, const double* quotient, const RowOperand<double>& b, double* y, std::int64_t rows,
                    std::int64_t n);

/// y(i, j) = a(i, j) where the mask is not 0, else b(i, j).
template <class T>
void select_rows(const RowOperand<std::uint8_t>& mask, const RowOperand<T>& a, const RowOperand<T>& b, T* y,
                 std::int64_t rows, std::int64_t n) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::uint8_t* pm = mask.data + i * mask.row_stride;
    const T *pa = a.data + i * a.row_stride, *pb = b.data + i * b.row_stride;
    if (mask.step == 0) {
      const T* chosen = *pm != 0 ? pa : pb;
      const std::int64_t step = *pm != 0 ? a.step : b.step;
      for (std::int64_t j = 0; j < n; ++j) y[i * n + j] = chosen[j * step];
      continue;
    }
    for (std::int64_t j = 0; j < n; ++j) y[i * n + j] = pm[j * mask.step] != 0 ? pa[j * a.step] : pb[j * b.step];
  }
}

}  // namespace tally::kernels
