#include "tally/core/stable_order.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>

#include "tally/core/random.h"

namespace stable_order_test {

using namespace tally;

TEST_CASE("a stable order is what std::stable_sort gives", "[stable_order]") {
  for (const std::int64_t bound :
       {std::int64_t{1}, std::int64_t{2}, std::int64_t{3}, std::int64_t{2048}, std::int64_t{2049}, std::int64_t{54542},
        std::int64_t{1} << 22, (std::int64_t{1} << 22) + 1, std::int64_t{1} << 40, std::int64_t{1} << 62}) {
    for (const std::int64_t count : {0, 1, 2, 3, 100, 5000}) {
      INFO("bound " << bound << ", " << count << " keys");
      std::vector<std::int64_t> keys;
      for (std::int64_t i = 0; i < count; ++i) {
        // Half of them at the upper end, with ties.
        const auto draw = static_cast<std::int64_t>(
            uniform_below(RngKey{7}, 0, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(bound)));
        keys.push_back(i % 2 == 0 ? draw : bound - 1 - draw % std::min<std::int64_t>(bound, 5));
      }
      std::vector<std::int64_t> expected(keys.size());
      std::iota(expected.begin(), expected.end(), std::int64_t{0});
      std::stable_sort(expected.begin(), expected.end(), [&](std::int64_t a, std::int64_t b) {
        return keys[static_cast<std::size_t>(a)] < keys[static_cast<std::size_t>(b)];
      });
      REQUIRE(stable_order(keys, bound) == expected);
    }
  }
}

}  // namespace stable_order_test
