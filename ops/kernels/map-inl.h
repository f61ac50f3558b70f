// Functions of vectors over arrays of f32. Included once per SIMD target: no ordinary include guard.
#if defined(TALLY_OPS_KERNELS_MAP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TALLY_OPS_KERNELS_MAP_INL_H_
#undef TALLY_OPS_KERNELS_MAP_INL_H_
#else
#define TALLY_OPS_KERNELS_MAP_INL_H_
#endif

#include "tally/ops/kernels/simd_math-inl.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

using simd::Floats;
using V = hn::Vec<Floats>;

/// y[i] = f(x[i])
template <class Function>
HWY_INLINE void map(const float* x, float* y, std::int64_t n, Function&& f) {
  const Floats d;
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
    store_lanes(f(load_lanes(d, x + i, count)), d, y + i, count);
  });
}

/// z[i] = f(x[i], y[i])
template <class Function>
HWY_INLINE void map(const float* x, const float* y, float* z, std::int64_t n, Function&& f) {
  const Floats d;
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
    store_lanes(f(load_lanes(d, x + i, count), load_lanes(d, y + i, count)), d, z + i, count);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
