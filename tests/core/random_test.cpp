#include "tally/core/random.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "tally/core/simd.h"

namespace random_test {

using namespace tally;

TEST_CASE("philox4x32-10 gives the published known answers", "[random]") {
  // Random123's kat_vectors.
  using Words = std::array<std::uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random bits depend on row and column only, on every SIMD target", "[random]") {
  const RngKey key{123456789012345, 987654321};
  std::vector<std::uint32_t> reference(1000);
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const auto words = philox4x32({static_cast<std::uint32_t>(i / 4), 77, static_cast<std::uint32_t>(key.stream),
                                   static_cast<std::uint32_t>(key.stream >> 32)},
                                  {static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)});
    reference[i] = words[i % 4];
  }
  for (const std::string& target : simd_targets()) {
    set_simd_target(target);
    for (const std::int64_t first : {0, 1, 2, 3, 4, 5, 63, 130}) {
      for (const std::int64_t n : {0, 1, 2, 3, 4, 7, 64, 65, 333, 800}) {
        std::vector<std::uint32_t> bits(static_cast<std::size_t>(n), 0);
        random_bits(key, 77, static_cast<std::uint64_t>(first), n, bits.data());
        CHECK(std::equal(bits.begin(), bits.end(), reference.begin() + first));
        std::vector<std::uint16_t> halves(static_cast<std::size_t>(n), 0);
        random_bits(key, 77, static_cast<std::uint64_t>(first), n, halves.data());
        for (std::int64_t i = 0; i < n; ++i) {
          const auto place = static_cast<std::size_t>(first + i);
          REQUIRE(halves[static_cast<std::size_t>(i)] == (reference[place / 2] >> (place % 2 * 16) & 0xFFFF));
        }
        if (first % 8 != 0) continue;
        for (const std::int64_t rows : {1, 2, 3, 4}) {
          const std::int64_t stride = (n + 7) / 8 * 8 + 1;
          std::vector<std::uint16_t> several(static_cast<std::size_t>(rows * stride), 7);
          random_bits(key, 78 - static_cast<std::uint64_t>(rows), rows, static_cast<std::uint64_t>(first), n,
                      several.data(), stride);
          CHECK(std::equal(halves.begin(), halves.end(), several.begin() + (rows - 1) * stride));
          CHECK(several.back() == 7);  // nothing beyond whole blocks
        }
      }
    }
  }
  set_simd_target("");
}

TEST_CASE("keys folded differently are different streams", "[random]") {
  const RngKey key{1, 0};
  std::set<std::uint64_t> streams{key.stream};
  for (std::uint64_t i = 0; i < 1000; ++i) streams.insert(key.fold_in(i).stream);
  streams.insert(key.fold_in("query").stream);
  streams.insert(key.fold_in("key").stream);
  streams.insert(key.fold_in(1).fold_in(2).stream);
  streams.insert(key.fold_in(2).fold_in(1).stream);
  CHECK(streams.size() == 1005);
  CHECK(key.fold_in("query") == key.fold_in("query"));
}

TEST_CASE("uniform and normal draws have their moments", "[random]") {
  Tensor u({200000}, DType::f64), z({200001}, DType::f64);
  fill_uniform(RngKey{3, 0}, u, -1, 3);
  fill_normal(RngKey{4, 0}, z, 2, 0.5);
  const auto moments = [](const Tensor& t) {
    double mean = 0, square = 0;
    for (const double x : t.span<double>()) mean += x;
    mean /= static_cast<double>(t.numel());
    for (const double x : t.span<double>()) square += (x - mean) * (x - mean);
    return std::pair(mean, std::sqrt(square / static_cast<double>(t.numel())));
  };
  const auto [u_mean, u_deviation] = moments(u);
  CHECK(u_mean == Approx(1).margin(0.01));
  CHECK(u_deviation == Approx(4 / std::sqrt(12)).margin(0.01));
  const auto [z_mean, z_deviation] = moments(z);
  CHECK(z_mean == Approx(2).margin(0.005));
  CHECK(z_deviation == Approx(0.5).margin(0.005));
  for (const double x : u.span<double>()) REQUIRE((x > -1 && x < 3));
}

TEST_CASE("bounded draws are uniform", "[random]") {
  std::array<int, 7> counts{};
  for (std::uint64_t i = 0; i < 70000; ++i) ++counts[uniform_below(RngKey{5, 6}, 1, i, 7)];
  double chi_square = 0;
  for (const int count : counts) chi_square += (count - 10000.0) * (count - 10000.0) / 10000.0;
  CHECK(chi_square < 22.5);  // 6 degrees of freedom, p = 0.001
  CHECK(uniform_below(RngKey{5, 6}, 0, 0, 1) == 0);
  CHECK_THROWS_AS(uniform_below(RngKey{}, 0, 0, 0), ValueError);
}

TEST_CASE("a permutation holds every index once", "[random]") {
  const auto order = random_permutation(RngKey{9, 9}, 1000);
  CHECK(std::set(order.begin(), order.end()).size() == 1000);
  CHECK(random_permutation(RngKey{9, 9}, 1000) == order);
  CHECK(random_permutation(RngKey{9, 10}, 1000) != order);
  CHECK(random_permutation(RngKey{9, 9}, 0).empty());
}

}  // namespace random_test
