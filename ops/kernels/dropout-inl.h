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

/// Columns whose bits are drawn at a time: they stay in the first-level cache. A multiple of 4, the words of one draw.
inline constexpr std::int64_t kMaskRun = 1024;
/// Room for the bits of a run; whole vectors may be read from any place in it.
inline constexpr std::int64_t kMaskRoom = kMaskRun + HWY_MAX_BYTES / 4;

/// x * scale where the bits are at least the threshold, else 0.
template <class D>
HWY_INLINE hn::Vec<D> drop(D d, hn::Vec<D> x, const std::uint32_t* bits, const DropoutMask& mask) {
  using T = hn::TFromD<D>;
  const hn::RebindToSigned<D> di;
  const hn::Rebind<std::uint32_t, D> narrow;
  const auto drawn = hn::LoadU(narrow, bits);
  const auto kept = hn::Mul(x, hn::Set(d, static_cast<T>(mask.scale)));
  if constexpr (sizeof(T) == 4) {
    const auto dropped = hn::Lt(drawn, hn::Set(narrow, mask.threshold));
    return hn::IfThenZeroElse(hn::RebindMask(d, dropped), kept);
  } else {
    const auto wide = hn::BitCast(di, hn::PromoteTo(hn::RebindToUnsigned<D>(), drawn));
    return hn::IfThenZeroElse(hn::RebindMask(d, hn::Lt(wide, hn::Set(di, std::int64_t{mask.threshold}))), kept);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
