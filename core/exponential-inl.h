// The exponential of softmaxes. Compiled once per SIMD target: include it inside a file that Highway re-includes, after
// <hwy/foreach_target.h>.
#if defined(TALLY_CORE_EXPONENTIAL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TALLY_CORE_EXPONENTIAL_INL_H_
#undef TALLY_CORE_EXPONENTIAL_INL_H_
#else
#define TALLY_CORE_EXPONENTIAL_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tally {
namespace HWY_NAMESPACE {
namespace simd {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;

/// exp of numbers up to kShortExpLimit, within 2 ulp (Cephes' polynomial). Results below the smallest normal number are
/// 0: denormals would slow down the product that follows. NaN stays NaN. For a softmax: shorter than one that also
/// serves larger numbers.
inline constexpr float kShortExpLimit = 88.0f;
template <class V>
HWY_INLINE V exp_of_difference(Floats d, V x) {
  const hn::RebindToSigned<Floats> di;
  const auto whole = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  const auto rest = hn::NegMulAdd(whole, hn::Set(d, -2.12194440e-4f),
                                  hn::NegMulAdd(whole, hn::Set(d, 0.693359375f), x));  // x - whole log 2, in two parts
  auto p = hn::MulAdd(hn::Set(d, 1.9875691500e-4f), rest, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, rest, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, rest, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, rest, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, rest, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(hn::Mul(rest, rest), p, rest), hn::Set(d, 1.0f));
  // 2^whole by its exponent bits; what wraps around is below the limit, and set to 0.
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, whole), hn::Set(di, 127)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.33f)), hn::Mul(p, hn::BitCast(d, exponent)));
}

}  // namespace simd
}  // namespace HWY_NAMESPACE
}  // namespace tally
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
