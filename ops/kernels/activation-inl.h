// Activations of f32 vectors and their slopes. Included once per SIMD target: no ordinary include guard.
#if defined(TALLY_OPS_KERNELS_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TALLY_OPS_KERNELS_ACTIVATION_INL_H_
#undef TALLY_OPS_KERNELS_ACTIVATION_INL_H_
#else
#define TALLY_OPS_KERNELS_ACTIVATION_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// exp(x), 0 where that is below the smallest normal number; x below 88. NaN gives 0.
template <class D, class V>
HWY_INLINE V exp_or_zero(D d, V x) {
  const V lowest = hn::Set(d, -87.33f);
  return hn::IfThenElseZero(hn::Ge(x, lowest), hn::Exp(d, hn::Max(x, lowest)));
}

/// `y` where x is a number, NaN where it is not: the exponentials above lose it.
template <class V>
HWY_INLINE V keep_nan(V x, V y) {
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

template <class D, class V>
HWY_INLINE V relu(D d, V x) {
  return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x);
}

/// Through exp(-|x|), which neither overflows nor loses the small side.
template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V e = exp_or_zero(d, hn::Neg(hn::Abs(x)));
  const V small = hn::Div(e, hn::Add(one, e));
  return keep_nan(x, hn::IfThenElse(hn::Lt(x, hn::Zero(d)), small, hn::Sub(one, small)));
}

template <class D, class V>
HWY_INLINE V tanh(D d, V x) {
  const V limit = hn::Set(d, 16.0f);  // tanh is 1 in f32 from 9.02 on
  return keep_nan(x, hn::Tanh(d, hn::Max(hn::Min(x, limit), hn::Neg(limit))));
}

/// erfc(t) / 2 for t > 0.92 as exp of a polynomial, and erf(t) / 2 for t below as t times a polynomial of t^2
/// (coefficients by N. Juffa, public domain; below 1 ulp of erf).
template <class D, class V>
HWY_INLINE V half_erfc_far(D d, V t) {
  const V s = hn::Mul(t, t);
  const V low = hn::MulAdd(hn::Set(d, -3.88396438e-3f), t, hn::Set(d, 2.42546219e-2f));
  V r = hn::MulAdd(hn::Set(d, -1.72853470e-5f), t, hn::Set(d, 3.83197126e-4f));
  r = hn::MulAdd(r, s, low);
  r = hn::MulAdd(r, t, hn::Set(d, -1.06777877e-1f));
  r = hn::MulAdd(r, t, hn::Set(d, -6.34846687e-1f));
  r = hn::MulAdd(r, t, hn::Set(d, -1.28717512e-1f));
  r = hn::MulSub(r, t, t);
  return hn::Mul(hn::Set(d, 0.5f), exp_or_zero(d, r));
}
template <class D, class V>
HWY_INLINE V half_erf_near(D d, V t) {
  const V s = hn::Mul(t, t);
  V r = hn::MulAdd(hn::Set(d, -5.96761703e-4f), s, hn::Set(d, 4.99119423e-3f));
  r = hn::MulAdd(r, s, hn::Set(d, -2.67681349e-2f));
  r = hn::MulAdd(r, s, hn::Set(d, 1.12819925e-1f));
  r = hn::MulAdd(r, s, hn::Set(d, -3.76125336e-1f));
  r = hn::MulAdd(r, s, hn::Set(d, 1.28379166e-1f));
  return hn::Mul(hn::Set(d, 0.5f), hn::MulAdd(r, t, t));
}

/// Gauss error function.
template <class D, class V>
HWY_INLINE V erf(D d, V x) {
  const V t = hn::Min(hn::Abs(x), hn::Set(d, 8.0f));
  const V far = hn::NegMulAdd(hn::Set(d, 2.0f), half_erfc_far(d, t), hn::Set(d, 1.0f));
  const V near = hn::Mul(hn::Set(d, 2.0f), half_erf_near(d, t));
  return keep_nan(x, hn::CopySign(hn::IfThenElse(hn::Gt(t, hn::Set(d, 0.927734375f)), far, near), x));
}

/// Standard normal distribution function, without cancellation on the negative side. NaN is not kept.
template <class D, class V>
HWY_INLINE V normal_probability(D d, V x) {
  const V half = hn::Set(d, 0.5f);
  const V t = hn::Min(hn::Mul(hn::Abs(x), hn::Set(d, 0.707106781f)), hn::Set(d, 10.0f));
  const V far = half_erfc_far(d, t);
  const V near = hn::Sub(half, half_erf_near(d, t));
  const V below = hn::IfThenElse(hn::Gt(t, hn::Set(d, 0.927734375f)), far, near);
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), below, hn::Sub(hn::Set(d, 1.0f), below));
}

template <class D, class V>
HWY_INLINE V gelu(D d, V x) {
  return hn::Mul(x, normal_probability(d, x));
}
template <class D, class V>
HWY_INLINE V gelu_slope(D d, V x) {
  const V square = hn::Mul(hn::Mul(x, x), hn::Set(d, -0.5f));
  const V density = hn::Mul(hn::Set(d, 0.398942280f), exp_or_zero(d, square));
  return hn::MulAdd(x, density, normal_probability(d, x));
}

template <class D, class V>
HWY_INLINE V silu(D d, V x) {
  return hn::Mul(x, sigmoid(d, x));
}
template <class D, class V>
HWY_INLINE V silu_slope(D d, V x) {
  // s + x s (1 - s); the product vanishes far out, where x alone may be large.
  const V s = sigmoid(d, x);
  return hn::MulAdd(hn::Mul(x, s), hn::Sub(hn::Set(d, 1.0f), s), s);
}

/// From the output y.
template <class D, class V>
HWY_INLINE V tanh_slope(D d, V y) {
  return hn::NegMulAdd(y, y, hn::Set(d, 1.0f));
}
template <class D, class V>
HWY_INLINE V sigmoid_slope(D d, V y) {
  return hn::Mul(y, hn::Sub(hn::Set(d, 1.0f), y));
}

}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
