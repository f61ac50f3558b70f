// The exponential of softmaxes. Compiled once per SIMD target: include it inside a file that Highway re-includes, after
// <hwy/foreach_target.h>.
#if defined(TALLY_CORE_EXPONENTIAL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TALLY_CORE_EXPONENTIAL_INL_H_
#undef TALLY_CORE_EXPONENTIAL_INL_H_
#else
#define TALLY_CORE_EXPONENTIAL_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace tally {
namespace HWY_NAMESPACE {
namespace simd {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;

/// exp of numbers up to kShortExpLimit, within 2 ulp, with AVX-512 within 1. Results below the smallest normal number
/// are 0: denormals would slow down the product that follows. NaN stays NaN. For a softmax: shorter than one that also
/// serves larger numbers.
inline constexpr float kShortExpLimit = 88.0f;
template <class V>
HWY_INLINE V exp_of_difference(Floats d, V x) {
  const hn::RebindToSigned<Floats> di;
#if HWY_TARGET <= HWY_AVX3
  // x = n log(2) / 16 + rest. 2^(n / 16) for the last four bits of n is in a table of one register, less these bits
  // where the exponent is then added; rest is so small that a cubic serves. What the table rounded away is added to
  // rest.
  HWY_ALIGN static constexpr std::int32_t kPowers[16] = {
      0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
      0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
  HWY_ALIGN static constexpr float kRounded[16] = {
      0.0f,        4.62855e-8f,  -1.19922e-8f, 4.72978e-8f, 3.19342e-8f,  3.62106e-8f, -3.09907e-8f, -7.47521e-9f,
      1.71143e-8f, -3.04768e-8f, 5.23333e-9f,  6.10759e-9f, -1.47196e-8f, -5.2588e-9f, -6.12826e-9f, 5.14061e-9f};
  const auto shift = hn::Set(d, 12582912.0f);  // 1.5 2^23: what is added to it is rounded, and stands in the last bits
  const auto shifted = hn::MulAdd(x, hn::Set(d, 23.0831206542234142f), shift);
  const auto n = hn::Sub(shifted, shift);
  const auto rest = hn::NegMulAdd(n, hn::Set(d, -1.326215275e-5f),
                                  hn::NegMulAdd(n, hn::Set(d, 0.0433349609375f), x));  // the factor in two parts
  const auto bits = hn::BitCast(di, shifted);
  const auto last = hn::And(bits, hn::Set(di, 15));
  const auto power =
      hn::Add(hn::TableLookupLanes(hn::Load(di, kPowers), hn::IndicesFromVec(di, last)), hn::ShiftLeft<19>(bits));
  const auto head = hn::Add(rest, hn::TableLookupLanes(hn::Load(d, kRounded), hn::IndicesFromVec(d, last)));
  const auto tail = hn::MulAdd(hn::Set(d, 1.66666667e-1f), rest, hn::Set(d, 5.00012e-1f));
  const auto factor = hn::BitCast(d, power);
  const auto e = hn::MulAdd(factor, hn::MulAdd(tail, hn::Mul(rest, rest), head), factor);
#else
  // Cephes' polynomial.
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
  const auto e = hn::Mul(p, hn::BitCast(d, exponent));
#endif
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.33f)), e);
}

}  // namespace simd
}  // namespace HWY_NAMESPACE
}  // namespace tally
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
