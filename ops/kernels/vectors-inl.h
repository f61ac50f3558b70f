// Loops over vectors with a part of one at the end. Included once per SIMD target: no ordinary include guard.
#if defined(TALLY_OPS_KERNELS_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TALLY_OPS_KERNELS_VECTORS_INL_H_
#undef TALLY_OPS_KERNELS_VECTORS_INL_H_
#else
#define TALLY_OPS_KERNELS_VECTORS_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The first `count` lanes from memory, zeros in the others. Reads nothing beyond them: by a mask where the target has
/// one, for a copy costs more than an exponential.
template <class D>
HWY_INLINE hn::Vec<D> load_lanes(D d, const hn::TFromD<D>* from, std::int64_t count) {
  if (count == static_cast<std::int64_t>(hn::Lanes(d))) return hn::LoadU(d, from);
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN hn::TFromD<D> part[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
  std::copy_n(from, count, part);
  return hn::Load(d, part);
#else
  return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(count)), d, from);
#endif
}

/// Stores the first `count` lanes.
template <class D>
HWY_INLINE void store_lanes(hn::Vec<D> v, D d, hn::TFromD<D>* to, std::int64_t count) {
  if (count == static_cast<std::int64_t>(hn::Lanes(d))) {
    hn::StoreU(v, d, to);
    return;
  }
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN hn::TFromD<D> part[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)];
  hn::Store(v, d, part);
  std::copy_n(part, count, to);
#else
  hn::BlendedStore(v, hn::FirstN(d, static_cast<std::size_t>(count)), d, to);
#endif
}

/// 0 in place of what is below the smallest normal number: denormals would slow down the product that follows.
template <class D>
HWY_INLINE hn::Vec<D> flushed(D d, hn::Vec<D> x) {
  return hn::IfThenElseZero(hn::Ge(hn::Abs(x), hn::Set(d, std::numeric_limits<hn::TFromD<D>>::min())), x);
}

/// Calls body(i, count) for [0, n) in steps of one vector; `count` is below the number of lanes at the end only, so an
/// element's value does not depend on where it stands.
template <class D, class Body>
HWY_INLINE void for_each_vector(D d, std::int64_t n, Body&& body) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, lanes);
  if (i < n) body(i, n - i);
}

}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
