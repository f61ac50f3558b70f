#pragma once

#include <limits>

#include "tally/autograd/var.h"

// Elementwise functions. f32 runs in SIMD to a few units in the last place, f64 is std::. Infinities and NaN follow
// IEEE 754 and std:: unless a function says otherwise; what is said "at 0" is the convention where no derivative
// exists. All throw DTypeError unless their floating inputs are all f32 or all f64.

namespace tally::ops {

// ---- Arithmetic. Shapes broadcast as in NumPy: aligned at the last dimension, sizes equal or 1. The gradient of a
// repeated operand is the sum over its repetitions. Throws ShapeError when the shapes do not fit.

/// a + b. Keeps nothing.
Var add(const Var& a, const Var& b);
/// a - b. Keeps nothing.
Var subtract(const Var& a, const Var& b);
/// a b. Keeps each operand when the other is tracked.
Var multiply(const Var& a, const Var& b);
/// a / b: ga = gy / b, gb = -ga y. Keeps b, and the quotient when b is tracked.
Var divide(const Var& a, const Var& b);

/// The larger of a and b; NaN when either is (torch.maximum, numpy.maximum). The gradient goes to the larger one, half
/// and half to equals, and whole to both when one is NaN, as PyTorch's does. Keeps a and b.
Var maximum(const Var& a, const Var& b);
/// The smaller of a and b; otherwise like maximum.
Var minimum(const Var& a, const Var& b);
/// base^exponent as std::pow in double (also in f32), NaN for a negative base unless the exponent is an integer, 0^0 =
/// 1. Gradients as PyTorch's: exponent base^(exponent - 1), 0 for exponent 0; and base^exponent log(base), 0 for base 0
/// and an exponent of at least 0, NaN for a negative base. Keeps both.
Var power(const Var& base, const Var& exponent);

// ---- Functions of one argument, of any shape. Each keeps its input or its output when tracked, as said.

/// -x. Keeps nothing.
Var negate(const Var& x);
/// |x|; derivative 0 at 0. Keeps x.
Var abs(const Var& x);
/// e^x. Keeps the output.
Var exp(const Var& x);
/// Natural logarithm: -infinity at 0, NaN below; derivative 1 / x. Keeps x.
Var log(const Var& x);
/// x^2. Keeps x.
Var square(const Var& x);
/// Square root: NaN below 0; derivative infinity at 0 (and 0 / 0 = NaN when the cotangent is 0 there). Keeps the
/// output.
Var sqrt(const Var& x);
/// -1, 0 or 1; 0 at both zeros, NaN stays NaN, as NumPy's. Derivative 0 everywhere. Keeps nothing.
Var sign(const Var& x);
/// Sine of radians; NaN at infinities. Keeps x.
Var sin(const Var& x);
/// Cosine of radians; NaN at infinities. Keeps x.
Var cos(const Var& x);
/// The error function, 2 / sqrt(pi) times the integral of e^-t^2 from 0 to x. Keeps x.
Var erf(const Var& x);
/// log(1 + x), accurate near 0: -infinity at -1, NaN below. Keeps x.
Var log1p(const Var& x);
/// e^x - 1, accurate near 0. Keeps x.
Var expm1(const Var& x);
/// Hyperbolic tangent. Keeps the output.
Var tanh(const Var& x);
/// 1 / (1 + e^-x). Keeps the output.
Var sigmoid(const Var& x);
/// max(x, 0); derivative 0 at 0; NaN stays NaN. Keeps the output.
Var relu(const Var& x);
/// Gaussian error linear unit (Hendrycks & Gimpel, arXiv 1606.08415): x Phi(x) = x (1 + erf(x / sqrt 2)) / 2, not the
/// tanh approximation; -0 at -infinity. Keeps x.
Var gelu(const Var& x);
/// x sigmoid(x), also called swish (arXiv 1702.03118); -0 at -infinity. Keeps x.
Var silu(const Var& x);
/// log(1 + e^x), computed as max(x, 0) + log1p(e^-|x|): neither overflows nor loses digits. Keeps x.
Var softplus(const Var& x);

struct EluOptions {
  double alpha = 1;
};
/// Exponential linear unit (Clevert et al., arXiv 1511.07289): x for x > 0, else alpha (e^x - 1); derivative alpha at
/// 0. Keeps x.
Var elu(const Var& x, const EluOptions& options = {});

/// x^exponent as std::pow: NaN for a negative x unless the exponent is an integer, 0^0 = 1. Derivative exponent
/// x^(exponent - 1): infinity at 0 for exponents below 1, and 0 everywhere for exponent 0. Keeps x.
Var power(const Var& x, double exponent);

struct ClampOptions {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};
/// x brought into [low, high]. The gradient passes where low <= x <= high, the bounds included, and is 0 outside; NaN
/// stays NaN. Keeps x. Throws ValueError unless low <= high.
Var clamp(const Var& x, const ClampOptions& options);

// ---- Comparisons: u8 masks as `where` takes them, 1 where it holds and 0 elsewhere. Shapes broadcast; a and b are of
// one type, whichever. Of NaN only not_equal holds. Constants: nothing is recorded. Throw ShapeError, DTypeError.

/// a = b; 0 equals -0.
Tensor equal(const Var& a, const Var& b);
/// Not a = b.
Tensor not_equal(const Var& a, const Var& b);
/// a < b.
Tensor less(const Var& a, const Var& b);
/// a <= b.
Tensor less_equal(const Var& a, const Var& b);
/// a > b.
Tensor greater(const Var& a, const Var& b);
/// a >= b.
Tensor greater_equal(const Var& a, const Var& b);

// ---- Choice.

/// a where the mask is not 0, else b. `mask` is u8, a and b of one type; all three shapes broadcast. Integers are
/// constants. The gradient goes to the chosen
/// operand, the other gets 0 whatever it holds. (What computed the other may still turn that 0 into NaN, as log does at
/// 0: choose its argument instead.) Keeps the mask. Throws ShapeError, DTypeError.
Var where(const Tensor& mask, const Var& a, const Var& b);

}  // namespace tally::ops

namespace tally {

// Operators stand beside Var, where argument-dependent look-up finds them.

Var operator+(const Var& a, const Var& b);
Var operator-(const Var& a, const Var& b);
Var operator*(const Var& a, const Var& b);
Var operator/(const Var& a, const Var& b);
Var operator-(const Var& x);
/// a = a + b, in a new tensor: who holds the old one keeps it.
Var& operator+=(Var& a, const Var& b);
// The number is rounded to the other operand's type.
Var operator+(const Var& a, double b);
Var operator+(double a, const Var& b);
Var operator-(const Var& a, double b);
Var operator-(double a, const Var& b);
Var operator*(const Var& a, double b);
Var operator*(double a, const Var& b);
Var operator/(const Var& a, double b);
Var operator/(double a, const Var& b);
Var& operator+=(Var& a, double b);

}  // namespace tally
