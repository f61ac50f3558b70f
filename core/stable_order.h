#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tally {

/// The places of `keys` in the order of their keys, equal ones in the order of their places: a radix sort, in time
/// linear in the keys. Keys are in [0, bound), which the caller has checked.
std::vector<std::int64_t> stable_order(std::span<const std::int64_t> keys, std::int64_t bound);

}  // namespace tally
