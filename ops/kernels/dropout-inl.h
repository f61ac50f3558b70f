// The dropout mask of a run of elements. Included once per SIMD target: no ordinary include guard.
#if defined(TALLY_OPS_KERNELS_DROPOUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TALLY_OPS_KERNELS_DROPOUT_INL_H_
#undef TALLY_OPS_KERNELS_DROPOUT_INL_H_
#else
#define TALLY_OPS_KERNELS_DROPOUT_INL_H_
#endif

#include <hwy/highway.h>

#include "tally/ops/kernels/dropout.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {

/// Where the bits of as many places as D has lanes are below the threshold.
template <class D>
HWY_INLINE hn::Mask<D> dropped(D d, const MaskBits* bits, MaskBits threshold) {
  const hn::RebindToSigned<D> di;
  const hn::Rebind<std::int32_t, D> words;
  auto drawn = hn::PromoteTo(words, hn::LoadU(hn::Rebind<MaskBits, D>(), bits));
  if constexpr (sizeof(hn::TFromD<D>) == 4) {
    return hn::RebindMask(d, hn::Lt(drawn, hn::Set(di, threshold)));
  } else {
    return hn::RebindMask(d, hn::Lt(hn::PromoteTo(di, drawn), hn::Set(di, threshold)));
  }
}

/// x * scale where the bits are at least the threshold, else 0.
template <class D>
HWY_INLINE hn::Vec<D> drop(D d, hn::Vec<D> x, const MaskBits* bits, const DropoutMask& mask) {
  const auto kept = hn::Mul(x, hn::Set(d, static_cast<hn::TFromD<D>>(mask.scale)));
  return hn::IfThenZeroElse(dropped(d, bits, mask.threshold), kept);
}

}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
