#include "tally/core/stable_order.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace tally {
namespace {

/// Most bits that a pass sorts by: its counts, 16 KB, stay in the first-level cache.
constexpr int kDigit = 11;

}  // namespace

std::vector<std::int64_t> stable_order(std::span<const std::int64_t> keys, std::int64_t bound) {
  std::vector<std::int64_t> order(keys.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const int bits = std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(bound, 1) - 1));
  const int passes = (bits + kDigit - 1) / kDigit;
  if (passes == 0 || keys.size() < 2) return order;
  const int digit = (bits + passes - 1) / passes;
  const std::uint64_t mask = (std::uint64_t{1} << digit) - 1;
  std::vector<std::int64_t> next(order.size()), places(mask + 2);
  for (int pass = 0; pass < passes; ++pass) {
    const auto digit_of = [&](std::int64_t place) {
      return static_cast<std::uint64_t>(keys[static_cast<std::size_t>(place)]) >> (pass * digit) & mask;
    };
    std::fill(places.begin(), places.end(), 0);
    for (std::size_t i = 0; i < keys.size(); ++i) ++places[digit_of(static_cast<std::int64_t>(i)) + 1];
    std::partial_sum(places.begin(), places.end(), places.begin());
    for (const std::int64_t place : order) next[static_cast<std::size_t>(places[digit_of(place)]++)] = place;
    order.swap(next);
  }
  return order;
}

}  // namespace tally
