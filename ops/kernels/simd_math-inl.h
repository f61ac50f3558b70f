// Vector functions on f32 that the kernels of ops share. Compiled once per SIMD target: include it inside a file that
// Highway re-includes, after <hwy/foreach_target.h>. Every function accepts any float: infinities and NaN as std::
// would.
#if defined(TALLY_OPS_KERNELS_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TALLY_OPS_KERNELS_SIMD_MATH_INL_H_
#undef TALLY_OPS_KERNELS_SIMD_MATH_INL_H_
#else
#define TALLY_OPS_KERNELS_SIMD_MATH_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "tally/core/exponential-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace simd {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using tally::HWY_NAMESPACE::simd::exp_of_difference;

/// e^x, below 1.5 ulp where the result is normal. 0 below -104, infinity above 88.73.
template <class V>
HWY_INLINE V exp(Floats d, V x) {
  // Highway's Exp builds 2^q from bits and wraps for q far outside the exponent's range; 89 overflows already.
  const V bounded = hn::Max(hn::Min(x, hn::Set(d, 89.0f)), hn::Set(d, -105.0f));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, bounded));
}

/// e^x - 1, accurate near 0.
template <class V>
HWY_INLINE V expm1(Floats d, V x) {
  const V bounded = hn::Max(hn::Min(x, hn::Set(d, 89.0f)), hn::Set(d, -105.0f));
  // The polynomial near 0 would turn -0 into 0.
  return hn::IfThenElse(hn::Or(hn::IsNaN(x), hn::Eq(x, hn::Zero(d))), x, hn::Expm1(d, bounded));
}

/// Natural logarithm: -infinity at 0, NaN below.
template <class V>
HWY_INLINE V log(Floats d, V x) {
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  const V usual = hn::Log(d, x);
  const V special = hn::IfThenElse(hn::Eq(x, hn::Zero(d)), hn::Neg(infinity), hn::Sub(x, x));  // NaN for negative x
  const V negative =
      hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Set(d, std::numeric_limits<float>::quiet_NaN()), special);
  const auto ordinary = hn::And(hn::Gt(x, hn::Zero(d)), hn::Lt(x, infinity));
  return hn::IfThenElse(ordinary, usual, hn::IfThenElse(hn::Eq(x, infinity), infinity, negative));
}

/// log(1 + x), accurate near 0: -infinity at -1, NaN below.
template <class V>
HWY_INLINE V log1p(Floats d, V x) {
  const V infinity = hn::Set(d, std::numeric_limits<float>::infinity()), minus_one = hn::Set(d, -1.0f);
  const V pole =
      hn::IfThenElse(hn::Eq(x, minus_one), hn::Neg(infinity), hn::Set(d, std::numeric_limits<float>::quiet_NaN()));
  const V usual = hn::IfThenElse(hn::Lt(x, infinity), hn::Log1p(d, x), x);  // infinity and NaN as they are
  return hn::IfThenElse(hn::Le(x, minus_one), pole, usual);
}

/// `usual`, but where x is of a magnitude beyond `largest`, or not finite, a function of doubles.
template <class V, class Function>
HWY_INLINE V beyond(Floats d, V x, float largest, V usual, Function&& function) {
  const auto within = hn::Le(hn::Abs(x), hn::Set(d, largest));
  if (HWY_LIKELY(hn::AllTrue(d, within))) return usual;
  HWY_ALIGN float from[HWY_MAX_BYTES / sizeof(float)], to[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(x, d, from);
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) to[i] = static_cast<float>(function(static_cast<double>(from[i])));
  return hn::IfThenElse(within, usual, hn::Load(d, to));
}

/// Sine and cosine. Highway's reduction holds up to 39,000.
template <class V>
HWY_INLINE V sin(Floats d, V x) {
  const V usual = hn::IfThenElse(hn::Eq(x, hn::Zero(d)), x, hn::Sin(d, x));  // -0 stays
  return beyond(d, x, 39000.0f, usual, [](double v) { return std::sin(v); });
}
template <class V>
HWY_INLINE V cos(Floats d, V x) {
  return beyond(d, x, 39000.0f, hn::Cos(d, x), [](double v) { return std::cos(v); });
}

template <class V>
HWY_INLINE V tanh(Floats d, V x) {
  const V bounded = hn::Max(hn::Min(x, hn::Set(d, 20.0f)), hn::Set(d, -20.0f));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Tanh(d, bounded));
}

/// 1 / (1 + e^-x).
template <class V>
HWY_INLINE V sigmoid(Floats d, V x) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp(d, hn::Neg(x))));
}

/// log(1 + e^x) = max(x, 0) + log1p(e^-|x|).
template <class V>
HWY_INLINE V softplus(Floats d, V x) {
  const V rest = hn::Log1p(d, exp(d, hn::Neg(hn::Abs(x))));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Add(hn::Max(x, hn::Zero(d)), rest));
}

/// The standard normal distribution function and its density.
template <class V>
struct Normal {
  V distribution;  ///< P(X <= x), relative error below 4 ulp also in the lower tail
  V density;       ///< e^(-x^2/2) / sqrt(2 pi)
  V beyond_half;   ///< P(X <= x) - 1/2, which keeps its digits near 0
};

/// Both at once, as they share e^(-x^2/2). Below -13.2 the distribution is 0 (it would be denormal). For x below -1
/// both may be had times 2^kScale, so that what multiplies them has all their digits also where they are denormal.
///
/// |x| < 1: 1/2 + x P(x^2). Beyond: the tail is e^(-x^2/2) t Q(t) with t = 1 / (1 + |x| / 4). P and Q interpolate
/// (Phi(x) - 1/2) / x and e^(x^2/2) (1 - Phi(x)) / t at Chebyshev nodes; relative errors 7.5e-10 on [0, 1] and 1.1e-8
/// on [0.95, 13.3] before their coefficients are rounded.
template <int kScale = 0, class V>
HWY_INLINE Normal<V> normal(Floats d, V x) {
  const hn::RebindToUnsigned<Floats> bits;
  const hn::RebindToSigned<Floats> signs;
  const V one = hn::Set(d, 1.0f);
  const V z = hn::Min(hn::Abs(x), hn::Set(d, 20.0f));
  const V square = hn::Mul(z, z);
  // What rounding took from z^2: the upper half of z has an exact square, with or without FMA.
  const V upper = hn::BitCast(d, hn::And(hn::BitCast(bits, z), hn::Set(bits, 0xFFFFF000u)));
  const V lower = hn::Sub(z, upper);
  const V lost = hn::Add(hn::Add(hn::Sub(hn::Mul(upper, upper), square), hn::Mul(hn::Add(upper, upper), lower)),
                         hn::Mul(lower, lower));
  const V half = hn::Mul(square, hn::Set(d, 0.5f));

  // e^(-z^2/2) = 2^whole (head + rest), as exp_of_difference() but with what every step rounds away.
  const V whole = hn::Round(hn::Mul(half, hn::Set(d, -1.44269504088896341f)));
  const V coarse = hn::NegMulAdd(whole, hn::Set(d, 0.693145751953125f), hn::Neg(half));  // exact: 16 bits of log 2
  const V fine = hn::Neg(hn::MulAdd(whole, hn::Set(d, 1.428606765330187e-6f), hn::Mul(lost, hn::Set(d, 0.5f))));
  const V argument = hn::Add(coarse, fine);
  V e = hn::Set(d, 1.9875691500e-4f);
  for (const float coefficient :
       {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
    e = hn::MulAdd(e, argument, hn::Set(d, coefficient));
  }
  const V beyond_one =
      hn::Add(argument, hn::MulAdd(hn::Mul(argument, argument), e, hn::Add(hn::Sub(coarse, argument), fine)));
  const V head = hn::Add(one, beyond_one), rest = hn::Add(hn::Sub(one, head), beyond_one);
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(signs, whole), hn::Set(signs, 127 + kScale)));
  const V gauss =
      hn::IfThenElseZero(hn::Lt(half, hn::Set(d, 87.33f + 0.69f * kScale)), hn::Mul(head, hn::BitCast(d, exponent)));

  // tail = gauss Q(t) / w with w = 1 + z / 4. `correction` is what rounding took from the last sum of Q, from w and
  // from the exponential; Q(t) t goes with about the 1.6th power of t.
  const V quarter = hn::Mul(z, hn::Set(d, 0.25f)), w = hn::Add(quarter, one), t = hn::Div(one, w);
  const V w_less_one = hn::Sub(w, one);
  const V lost_of_w = hn::Add(hn::Sub(one, hn::Sub(w, w_less_one)), hn::Sub(quarter, w_less_one));
  V q = hn::Set(d, 0.0129987644f);
  for (const float coefficient :
       {-0.099407509f, 0.200618327f, -0.11090859f, 0.144605562f, 0.0542703234f, 0.0989284664f, 0.0991175696f}) {
    q = hn::MulAdd(q, t, hn::Set(d, coefficient));
  }
  const V constant = hn::Set(d, 0.0997658223f), linear = hn::Mul(q, t), sum = hn::Add(constant, linear);
  const V larger = hn::Max(constant, linear), smaller = hn::Min(constant, linear);
  const V correction = hn::MulAdd(sum, hn::Sub(rest, hn::Mul(hn::Mul(hn::Set(d, 1.6f), t), lost_of_w)),
                                  hn::Add(hn::Sub(larger, sum), smaller));
  const V tail = hn::Div(hn::MulAdd(sum, gauss, hn::Mul(correction, gauss)), w);

  V p = hn::Set(d, -7.66053836e-06f);
  for (const float coefficient : {0.000113502298f, -0.00118634396f, 0.00997332856f, -0.0664903596f, 0.398942292f}) {
    p = hn::MulAdd(p, square, hn::Set(d, coefficient));
  }
  const V centre = hn::MulAdd(x, p, hn::Set(d, 0.5f));
  const V outer = hn::IfThenElse(hn::Gt(x, hn::Zero(d)), hn::Sub(one, tail), tail);
  const V distribution = hn::IfThenElse(hn::Lt(z, one), centre, outer);
  const V beyond_half = hn::IfThenElse(hn::Lt(z, one), hn::Mul(x, p), hn::CopySign(hn::Sub(hn::Set(d, 0.5f), tail), x));
  return {hn::IfThenElse(hn::IsNaN(x), x, distribution), hn::Mul(gauss, hn::Set(d, 0.398942280f)),
          hn::IfThenElse(hn::IsNaN(x), x, beyond_half)};
}

/// The error function: twice what the normal distribution function of sqrt(2) x is beyond 1/2.
template <class V>
HWY_INLINE V erf(Floats d, V x) {
  const V half = normal(d, hn::Mul(x, hn::Set(d, 1.41421356237309505f))).beyond_half;
  return hn::Add(half, half);
}

/// x, or the lowest finite number for -infinity: products with a factor that tends to 0 then have their limit, not NaN.
template <class V>
HWY_INLINE V above_infinity(Floats d, V x) {
  const V infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::Eq(x, hn::Neg(infinity)), hn::Set(d, std::numeric_limits<float>::lowest()), x);
}

}  // namespace simd
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#endif
