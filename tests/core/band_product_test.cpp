#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <limits>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/packed_product.h"
#include "tally/core/right_operand.h"
#include "tests/core/expected_product.h"
#include "tests/core/on_each_target.h"

namespace band_product_test {

using namespace tally;
using blas::Band;
using blas::Transpose;
using test::ExpectedProduct;
using test::Matrix;
using test::on_each_target;

namespace {

constexpr Transpose kBothWays[] = {Transpose::no, Transpose::yes};

/// Causal from the first row or later ones, windows, bands beyond the matrix and empty ones.
const Band kBands[] = {{},
                       {-Band::kUnlimited, 1},
                       {-Band::kUnlimited, 30},
                       {-Band::kUnlimited, -13},
                       {-20, 4},
                       {7, 12},
                       {-3, Band::kUnlimited},
                       {300, 400},
                       {-400, -300},
                       {5, 5}};

bool holds(Band band, std::int64_t i, std::int64_t j) { return j >= band.first + i && j < band.end + i; }

struct Size {
  std::int64_t m, n, k;
};
constexpr Size kSizes[] = {{1, 1, 1},     {40, 32, 40},   {48, 33, 192}, {37, 101, 53},
                           {200, 32, 41}, {13, 300, 600}, {5, 7, 0}};

/// Sets the elements of op(A) outside of a band.
template <class T>
void fill_outside(Matrix<T>& a, Transpose ta, std::int64_t m, std::int64_t k, Band band, std::int64_t distance,
                  T value) {
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t p = 0; p < k; ++p) {
      if (holds({band.first - distance, band.end + distance}, i, p)) continue;
      a.values[static_cast<std::size_t>(ta == Transpose::yes ? p * a.stride + i : i * a.stride + p)] = value;
    }
  }
}

/// Whether both hold the same inside a band, bit by bit, and between the rows.
template <class T>
bool same_in_band(const Matrix<T>& x, const Matrix<T>& y, Band band) {
  for (std::size_t at = 0; at < x.values.size(); ++at) {
    const std::int64_t i = static_cast<std::int64_t>(at) / x.stride, j = static_cast<std::int64_t>(at) % x.stride;
    if (j < x.columns && !holds(band, i, j)) continue;
    if (std::memcmp(&x.values[at], &y.values[at], sizeof(T)) != 0) return false;
  }
  return true;
}

packed::Product product_of(const ExpectedProduct<float>& e, const Matrix<float>& a, Matrix<float>& c) {
  return {e.m,
          e.n,
          e.k,
          e.alpha,
          {a.values.data(), a.stride, e.ta},
          {e.b.values.data(), e.b.stride, e.tb},
          e.beta,
          c.values.data(),
          c.stride};
}

}  // namespace

TEST_CASE("sizes of bands are those of a count, and the transpose's", "[blas][band]") {
  for (const Band band : kBands) {
    for (const std::int64_t rows : {0, 1, 7, 40}) {
      for (const std::int64_t columns : {0, 1, 6, 53}) {
        CAPTURE(band.first, band.end, rows, columns);
        std::int64_t count = 0;
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < columns; ++j) count += holds(band, i, j) ? 1 : 0;
        }
        CHECK(blas::band_size(band, rows, columns) == count);
        CHECK(blas::band_size(blas::transposed(band), columns, rows) == count);
      }
    }
  }
}

TEST_CASE("a packed product with a band has the bits of the whole one, on every target", "[packed][band]") {
  for (const auto& [m, n, k] : kSizes) {
    for (const Transpose ta : kBothWays) {
      for (const Transpose tb : kBothWays) {
        const float beta = ta == tb ? 0.0F : 1.0F;
        const ExpectedProduct<float> e(ta, tb, m, n, k, 0.75F, beta);
        on_each_target([&, rows = m, columns = n, depth = k] {
          const packed::PackedMatrix kept({e.b.values.data(), e.b.stride, tb}, depth, columns);
          for (const Band band : kBands) {
            CAPTURE(ta == Transpose::yes, tb == Transpose::yes, rows, columns, depth, band.first, band.end);
            Matrix<float> a = e.a, whole = e.before, part = e.before;
            fill_outside(a, ta, rows, depth, band, 0, 0.0F);
            packed::Product product = product_of(e, a, whole);
            packed::multiply(product);
            product.left = band;
            product.c = part.values.data();
            packed::multiply(product);
            CHECK(same_in_band(whole, part, {}));
            part = e.before;
            packed::multiply(product, kept);
            CHECK(same_in_band(whole, part, {}));

            product.left = {};
            product.result = band;
            part = e.before;
            packed::multiply(product);
            CHECK(same_in_band(whole, part, band));
            part = e.before;
            packed::multiply(product, kept);
            CHECK(same_in_band(whole, part, band));
          }
        });
      }
    }
  }
}

TEST_CASE("a packed product leaves out what lies beside a band", "[packed][band]") {
  constexpr std::int64_t m = 96, n = 32, k = 192, near = 12;  // rows of a tile
  const Band band{-30, 60};
  for (const Transpose ta : kBothWays) {
    const ExpectedProduct<float> e(ta, Transpose::no, m, n, k, 1, 0);
    on_each_target([&] {
      Matrix<float> a = e.a, c = e.before, scores = e.before;
      fill_outside(a, ta, m, k, band, 0, 0.0F);
      fill_outside(a, ta, m, k, band, near, std::numeric_limits<float>::quiet_NaN());
      packed::Product product = product_of(e, a, c);
      product.left = band;
      packed::multiply(product);
      CHECK(std::none_of(c.values.begin(), c.values.end(), [](float x) { return x != x; }));

      // Tiles have at most 12 rows and 32 columns.
      product = product_of(e, e.a, scores);
      product.result = {-Band::kUnlimited, -40};
      packed::multiply(product);
      for (std::int64_t i = 0; i < 28; ++i) {
        for (std::int64_t j = 0; j < n; ++j) CHECK(scores.at(i, j) == e.before.at(i, j));
      }
    });
  }
}

TEMPLATE_TEST_CASE("gemm with a band agrees with plain loops and counts what the band holds", "[blas][band]", float,
                   double) {
  using T = TestType;
  for (const auto& [m, n, k] : kSizes) {
    for (const Transpose ta : kBothWays) {
      for (const Transpose tb : kBothWays) {
        ExpectedProduct<T> e(ta, tb, m, n, k, T(0.5), T(1)), fresh(ta, tb, m, n, k, T(0.5), T(0));
        const blas::RightOperand<T> kept(tb, k, n, e.b.values.data(), e.b.stride, m);
        for (const Band band : kBands) {
          CAPTURE(ta == Transpose::yes, tb == Transpose::yes, m, n, k, band.first, band.end);
          Matrix<T> a = e.a, c = e.before, expected = e.before;
          fill_outside(a, ta, m, k, band, 0, T(0));
          blas::gemm(ta, tb, m, n, k, e.alpha, a.values.data(), a.stride, e.b.values.data(), e.b.stride, e.beta,
                     expected.values.data(), expected.stride);
          std::uint64_t before = blas::operations();
          blas::left_band_gemm(band, ta, tb, m, n, k, e.alpha, a.values.data(), a.stride, e.b.values.data(), e.b.stride,
                               e.beta, c.values.data(), c.stride);
          const auto least = static_cast<std::uint64_t>(2 * blas::band_size(band, m, k) * n);
          CHECK(blas::operations() - before >= least);
          CHECK(blas::operations() - before <= static_cast<std::uint64_t>(2 * m * n * k));
          CHECK(e.keeps_gaps(c));
          for (std::int64_t i = 0; i < m; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
              const double bound = static_cast<double>(k + 4) * static_cast<double>(std::numeric_limits<T>::epsilon()) *
                                   e.magnitudes[static_cast<std::size_t>(i * n + j)];
              CHECK(std::abs(static_cast<double>(c.at(i, j)) - static_cast<double>(expected.at(i, j))) <= 2 * bound);
            }
          }
          for (const bool of_kept : {false, true}) {
            Matrix<T> scores = fresh.before;
            if (of_kept) {
              kept.result_band(band, 0, n, ta, m, e.alpha, e.a.values.data(), e.a.stride, scores.values.data(),
                               scores.stride);
            } else {
              blas::result_band_gemm(band, ta, tb, m, n, k, e.alpha, e.a.values.data(), e.a.stride, e.b.values.data(),
                                     e.b.stride, scores.values.data(), scores.stride);
            }
            // Only the band is wanted.
            for (std::int64_t i = 0; i < m; ++i) {
              for (std::int64_t j = 0; j < n; ++j) {
                if (holds(band, i, j)) continue;
                scores.values[static_cast<std::size_t>(i * scores.stride + j)] =
                    static_cast<T>(fresh.values[static_cast<std::size_t>(i * n + j)]);
              }
            }
            CHECK(fresh.is(scores));
            CHECK(fresh.keeps_gaps(scores));
          }
        }
      }
    }
  }
}

}  // namespace band_product_test
