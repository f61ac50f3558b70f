#include "tally/core/packed_product.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tally/core/error.h"
#include "tally/core/right_operand.h"
#include "tests/core/expected_product.h"
#include "tests/core/on_each_target.h"
#include "tests/support/same_bits.h"

namespace packed_product_test {

using namespace tally;
using blas::Transpose;
using test::on_each_target;
using Expected = test::ExpectedProduct<float>;
using Matrix = test::Matrix<float>;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr Transpose kTransposes[] = {Transpose::no, Transpose::yes};

packed::Product product_of(const Expected& e, const Matrix& a, const Matrix& b, Matrix& c) {
  return {e.m,
          e.n,
          e.k,
          e.alpha,
          {a.values.data(), a.stride, e.ta},
          {b.values.data(), b.stride, e.tb},
          e.beta,
          c.values.data(),
          c.stride};
}

/// On each target: the product against the double loop, the gaps of C, and a kept operand against a fresh one. What
/// stands between the rows of A and B is NaN: it must not be used.
void check_product(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha = 1,
                   float beta = 0) {
  CAPTURE(ta == Transpose::yes, tb == Transpose::yes, m, n, k, alpha, beta);
  const Expected expected(ta, tb, m, n, k, alpha, beta);
  Matrix a = expected.a, b = expected.b;
  a.fill_gaps(kNan);
  b.fill_gaps(kNan);
  on_each_target([&] {
    Matrix c = expected.before, of_kept = expected.before;
    if (beta == 0) {
      for (std::int64_t i = 0; i < m; ++i) std::fill_n(c.values.begin() + i * c.stride, n, kNan);
    }
    packed::multiply(product_of(expected, a, b, c));
    CHECK(expected.is(c));
    CHECK(expected.keeps_gaps(c));
    const packed::PackedMatrix kept({b.values.data(), b.stride, tb}, k, n);
    packed::multiply(product_of(expected, a, {0, 0, 0, 2}, of_kept), kept);
    CHECK(test::same_bits(c.values, of_kept.values));
  });
}

/// Row-major matrices without gaps.
std::vector<float> product_of(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, const float* b) {
  std::vector<float> c(static_cast<std::size_t>(m * n));
  packed::multiply({m, n, k, 1, {a, k}, {b, n}, 0, c.data(), n});
  return c;
}

}  // namespace

TEST_CASE("packed products agree with plain loops at the borders of tiles, on every target", "[packed]") {
  // Tiles have 6 or 12 rows, and 2, 8, 16 or 32 columns.
  for (const Transpose ta : kTransposes) {
    for (const Transpose tb : kTransposes) {
      for (const std::int64_t m : {0, 1, 5, 6, 7, 11, 12, 13, 23, 41}) {
        for (const std::int64_t n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 101}) check_product(ta, tb, m, n, 5);
      }
      for (const std::int64_t k : {0, 1, 3, 16, 64, 257, 600}) {
        check_product(ta, tb, 1, 1, k);
        check_product(ta, tb, 13, 33, k);
        check_product(ta, tb, 41, 101, k);
        check_product(ta, tb, 7, 19, k, -0.75F, 0);
        check_product(ta, tb, 7, 19, k, 1, 1);
        check_product(ta, tb, 13, 32, k, 1.25F, -0.5F);
        check_product(ta, tb, 13, 32, k, 0, 0.5F);
      }
    }
  }
}

TEST_CASE("packed products agree with plain loops where blocks and ways of reading change", "[packed]") {
  for (const Transpose ta : kTransposes) {
    for (const Transpose tb : kTransposes) {
      check_product(ta, tb, 24, 1099, 2);          // B is read as stored
      check_product(ta, tb, 25, 1099, 2);          // and packed
      check_product(ta, tb, 256, 47, 3);           // rows that begin with a vector: as stored
      check_product(ta, tb, 257, 47, 3);           // and packed
      check_product(ta, tb, 7, 1087, 70);          // as stored, by columns
      check_product(ta, tb, 14, 255, 9);           // A is read as stored
      check_product(ta, tb, 14, 256, 9);           // and packed
      check_product(ta, tb, 120, 35, 600);         // several blocks of rows, two of the inner size
      check_product(ta, tb, 400, 300, 100);        // several blocks of rows
      check_product(ta, tb, 3, 5000, 103);         // several blocks of columns
      check_product(ta, tb, 2, 1100, 1537, 1, 1);  // of columns and of the inner size
    }
  }
}

TEST_CASE("the bits of a packed product depend on row and column alone", "[packed]") {
  constexpr std::int64_t m = 300, n = 290, k = 530;
  const Matrix a(m, k, 0, 4), b(k, n, 0, 5);
  on_each_target([&] {
    const std::vector<float> whole = product_of(m, n, k, a.values.data(), b.values.data());
    // Operands that stand at any place in a vector.
    for (std::size_t shift = 1; shift < 16; shift += 3) {
      std::vector<float> moved_a(shift), moved_b(16 - shift), moved_c(static_cast<std::size_t>(m * n) + shift);
      moved_a.insert(moved_a.end(), a.values.begin(), a.values.end());
      moved_b.insert(moved_b.end(), b.values.begin(), b.values.end());
      packed::multiply(
          {m, n, k, 1, {moved_a.data() + shift, k}, {moved_b.data() + 16 - shift, n}, 0, moved_c.data() + shift, n});
      CHECK(test::same_bits({moved_c.begin() + static_cast<std::ptrdiff_t>(shift), moved_c.end()}, whole));
    }
    // Any part of the rows and columns.
    for (const std::int64_t row : {0, 1, 7, 299}) {
      for (const std::int64_t column : {0, 3, 40, 289}) {
        std::vector<float> part(static_cast<std::size_t>((m - row) * (n - column)));
        packed::multiply({m - row,
                          n - column,
                          k,
                          1,
                          {a.values.data() + row * k, k},
                          {b.values.data() + column, n},
                          0,
                          part.data(),
                          n - column});
        bool same = true;
        for (std::int64_t i = row; i < m; ++i) {
          same = same && std::memcmp(part.data() + (i - row) * (n - column), whole.data() + i * n + column,
                                     static_cast<std::size_t>(n - column) * sizeof(float)) == 0;
        }
        CHECK(same);
      }
    }
  });
}

TEST_CASE("packed products treat NaN and infinity as IEEE 754 does", "[packed]") {
  constexpr std::int64_t m = 13, n = 35, k = 21;
  on_each_target([] {
    for (const Transpose tb : kTransposes) {
      for (const float special : {kNan, kInfinity, -kInfinity}) {
        // A column of A is 0 and meets one special value of B; all the rest is 1.
        std::vector<float> a(m * k, 1.0F), b(k * n, 1.0F), c(m * n, kNan);
        for (std::size_t i = 0; i < m; ++i) a[i * k + 4] = i == 2 ? 3.0F : 0.0F;
        b[tb == Transpose::yes ? 17 * k + 4 : 4 * n + 17] = special;
        packed::multiply({m, n, k, 1, {a.data(), k}, {b.data(), tb == Transpose::yes ? k : n, tb}, 0, c.data(), n});
        int wrong = 0;
        for (std::size_t i = 0; i < m; ++i) {
          for (std::size_t j = 0; j < n; ++j) {
            const float got = c[i * n + j];
            if (j != 17) {
              wrong += got != (i == 2 ? k + 2 : k - 1);
            } else if (i == 2 && !std::isnan(special)) {
              wrong += got != special;
            } else {
              wrong += !std::isnan(got);
            }
          }
        }
        CHECK(wrong == 0);
      }
    }
    // C is read unless beta is 0, and alpha is a factor like any other.
    const float one = 1, infinity = kInfinity;
    float c = kNan;
    packed::multiply({1, 1, 1, 1, {&one, 1}, {&one, 1}, 1, &c, 1});
    CHECK(std::isnan(c));
    packed::multiply({1, 1, 1, 0, {&infinity, 1}, {&one, 1}, 0, &c, 1});
    CHECK(std::isnan(c));
    packed::multiply({1, 1, 0, 1, {&one, 1}, {&one, 1}, 0, &c, 1});
    CHECK(c == 0);
  });
}

TEST_CASE("a packed matrix refuses products that it does not fit", "[packed]") {
  const std::vector<float> values(6, 1.0F);
  float c[4] = {};
  const packed::PackedMatrix kept({values.data(), 2}, 3, 2);
  CHECK(kept.rows() == 3);
  CHECK(kept.columns() == 2);
  CHECK_THROWS_AS(packed::multiply({2, 2, 2, 1, {values.data(), 2}, {}, 0, c, 2}, kept), ShapeError);
  CHECK_THROWS_AS(packed::multiply({2, 3, 3, 1, {values.data(), 3}, {}, 0, c, 3}, kept), ShapeError);
  CHECK_THROWS_AS(packed::multiply({2, 1, 3, 1, {values.data(), 3}, {}, 0, c, 2}, kept, 1), ShapeError);
  // Another length of vectors.
  set_simd_target(simd_targets().back());
  CHECK_THROWS_AS(packed::multiply({2, 2, 3, 1, {values.data(), 3}, {}, 0, c, 2}, kept), ValueError);
  set_simd_target("");
  packed::multiply({2, 2, 3, 1, {values.data(), 3}, {}, 0, c, 2}, kept);
  CHECK(c[3] == 3);
  packed::multiply({2, 0, 0, 1, {values.data(), 0}, {}, 0, c, 2}, packed::PackedMatrix());
}

TEST_CASE("a right operand that is kept gives the bits of gemm", "[packed]") {
  const auto close = [](const auto& x, const auto& y) {
    for (std::size_t i = 0; i < x.values.size(); ++i) {
      if (std::abs(x.values[i] - y.values[i]) > 1e-4) return false;
    }
    return true;
  };
  const auto check = [&](auto zero, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k,
                         std::int64_t hint) {
    using T = decltype(zero);
    CAPTURE(m, n, k, hint);
    const test::ExpectedProduct<T> expected(ta, tb, m, n, k, T{2}, T{0.5});
    test::Matrix<T> once = expected.before, kept = expected.before;
    const test::Matrix<T>&a = expected.a, &b = expected.b;
    blas::gemm(ta, tb, m, n, k, T{2}, a.values.data(), a.stride, b.values.data(), b.stride, T{0.5}, once.values.data(),
               once.stride);
    const blas::RightOperand<T> operand(tb, k, n, b.values.data(), b.stride, hint);
    CHECK(operand.columns() == n);
    const std::uint64_t before = blas::operations();
    operand.multiply(ta, m, T{2}, a.values.data(), a.stride, T{0.5}, kept.values.data(), kept.stride);
    CHECK(blas::operations() - before == static_cast<std::uint64_t>(2 * m * n * k));
    const auto same = [&] { return test::same_bits(once.values, kept.values); };
    CHECK(same());
    // Parts of its columns, whether a panel begins with them or not; and a bias, which is added last.
    const test::Matrix<T> bias(1, n, 0, 4);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) once.values[static_cast<std::size_t>(i * once.stride + j)] += bias.at(0, j);
    }
    for (const std::int64_t part : {n, std::int64_t{192}, std::int64_t{5}}) {
      kept = expected.before;
      for (std::int64_t first = 0; first < n; first += part) {
        operand.multiply_columns(first, std::min(part, n - first), ta, m, T{2}, a.values.data(), a.stride, T{0.5},
                                 kept.values.data() + first, kept.stride, bias.values.data() + first);
      }
      // Narrow parts may be products of another library, or of other kernels of the same.
      if (part >= 64 || part == n) CHECK(same());
      CHECK(close(once, kept));
    }
  };
  for (const Transpose ta : kTransposes) {
    for (const Transpose tb : kTransposes) {
      for (const std::int64_t hint : {1, 500}) {
        check(0.0F, ta, tb, 130, 512, 64, hint);
        check(0.0F, ta, tb, 3, 17, 5, hint);
        check(0.0F, ta, tb, 50, 33, 700, hint);
        check(0.0F, ta, tb, 0, 64, 16, hint);
        check(0.0, ta, tb, 30, 48, 16, hint);
      }
    }
  }
}

}  // namespace packed_product_test
