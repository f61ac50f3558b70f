#include "tally/ops/kernels/column_exponentials.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/core/on_each_target.h"

namespace tally::column_exponentials_test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Columns of numbers from -30 to 30, of row distance `stride`; 7 between the columns.
std::vector<float> drawn(std::int64_t n, std::int64_t columns, std::int64_t stride) {
  std::vector<float> e(static_cast<std::size_t>(n * stride), 7.0F);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < columns; ++c) {
      e[static_cast<std::size_t>(i * stride + c)] = static_cast<float>((i * 7919 + c * 104729) % 60011) / 1000 - 30;
    }
  }
  return e;
}

TEST_CASE("exponentials down columns follow double, wherever a column stands", "[column_exponentials]") {
  test::on_each_target([] {
    for (const std::int64_t n : {1, 15, 16, 17, 300}) {
      for (const std::int64_t columns : {1, 3, 16, 21, 64, 83}) {
        const std::int64_t stride = columns + 2;
        const std::vector<float> x = drawn(n, columns, stride);
        std::vector<float> e = x, largest(static_cast<std::size_t>(columns));
        std::vector<double> sums(largest.size(), -1);
        kernels::column_exponentials(e.data(), n, columns, stride, largest.data(), sums.data());
        for (std::int64_t c = 0; c < columns; ++c) {
          const auto at = [&](const std::vector<float>& of, std::int64_t i) {
            return of[static_cast<std::size_t>(i * stride + c)];
          };
          float most = -kInfinity;
          for (std::int64_t i = 0; i < n; ++i) most = std::max(most, at(x, i));
          REQUIRE(largest[static_cast<std::size_t>(c)] == most);
          double sum = 0;
          for (std::int64_t i = 0; i < n; ++i) {
            const double wanted = std::exp(static_cast<double>(at(x, i) - most));
            REQUIRE(static_cast<double>(at(e, i)) == Approx(wanted).epsilon(2.4e-7).margin(1e-37));
            sum += static_cast<double>(at(e, i));
          }
          REQUIRE(sums[static_cast<std::size_t>(c)] == Approx(sum).epsilon(5e-7));
        }
        for (std::int64_t i = 0; i < n; ++i) {
          REQUIRE(e[static_cast<std::size_t>(i * stride + columns)] == 7.0F);
        }
        // With maxima that are known, and a column alone: the same bits.
        std::vector<float> again = x;
        kernels::column_exponentials(again.data(), n, columns, stride, largest.data(), nullptr);
        REQUIRE(std::memcmp(again.data(), e.data(), e.size() * sizeof(float)) == 0);
        const std::int64_t last = columns - 1;
        std::vector<float> alone = x;
        float its_largest = 0;
        double its_sum = 0;
        kernels::column_exponentials(alone.data() + last, n, 1, stride, &its_largest, &its_sum);
        for (std::int64_t i = 0; i < n; ++i) {
          const auto place = static_cast<std::size_t>(i * stride + last);
          REQUIRE(alone[place] == e[place]);
        }
        REQUIRE(its_sum == sums.back());
      }
    }
  });
}

TEST_CASE("exponentials down columns of -infinity and of NaN", "[column_exponentials]") {
  const auto check = [](auto zero) {
    using T = decltype(zero);
    const T infinity = std::numeric_limits<T>::infinity();
    // Nothing possible; one item possible; one that is not a number; numbers far below the largest.
    std::vector<T> e{-infinity, -infinity, 1, 0, -infinity, 2, std::numeric_limits<T>::quiet_NaN(), -2000};
    std::vector<T> largest(4);
    std::vector<double> sums(4);
    kernels::column_exponentials(e.data(), 2, 4, 4, largest.data(), sums.data());
    CHECK((e[0] == 0 && e[4] == 0 && sums[0] == 0 && largest[0] == -infinity));
    CHECK((e[1] == 0 && e[5] == 1 && sums[1] == 1 && largest[1] == 2));
    CHECK(std::isnan(e[6]));
    CHECK(std::isnan(sums[2]));
    CHECK((e[3] == 1 && e[7] == 0 && sums[3] == 1 && largest[3] == 0));
  };
  test::on_each_target([&] { check(0.0F); });
  check(0.0);
}

TEST_CASE("what is upcoming changes no result and may end anywhere", "[column_exponentials]") {
  const std::vector<float> x = drawn(40, 70, 70), next(1000);
  std::vector<float> e = x, hinted = x, largest(70);
  std::vector<double> sums(70);
  kernels::column_exponentials(e.data(), 40, 70, 70, largest.data(), sums.data());
  const auto* from = reinterpret_cast<const char*>(next.data());
  kernels::column_exponentials(hinted.data(), 40, 70, 70, largest.data(), sums.data(),
                               {{{{from, 4000}, {from + 1, 3}, {nullptr, 0}}}});
  CHECK(hinted == e);
}

}  // namespace
}  // namespace tally::column_exponentials_test
