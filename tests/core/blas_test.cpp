#include "tally/core/blas.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/error.h"
#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tests/core/expected_product.h"
#include "tests/support/same_bits.h"

namespace blas_test {

using namespace tally;
using blas::Transpose;
using test::Matrix;

namespace {

enum class Kind { serial, parallel };

/// Compares C = alpha op(A) op(B) + beta C with a double loop, within (k + 4) eps (|alpha| |A| |B| + |beta C|), and
/// checks that the gaps between the rows of C were left alone. Returns the product.
template <class T>
std::vector<T> check_product(Kind kind, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k,
                             T alpha, T beta, bool compare = true) {
  CAPTURE(m, n, k, alpha, beta, ta == Transpose::yes, tb == Transpose::yes);
  const test::ExpectedProduct<T> expected(ta, tb, m, n, k, alpha, beta);
  const Matrix<T>&a = expected.a, &b = expected.b;
  Matrix<T> c = expected.before;
  const auto gemm = [&](auto&& function) {
    function(ta, tb, m, n, k, alpha, a.values.data(), a.stride, b.values.data(), b.stride, beta, c.values.data(),
             c.stride);
  };
  if (kind == Kind::serial) {
    gemm([](auto... arguments) { blas::gemm(arguments...); });
  } else {
    gemm([](auto... arguments) { blas::parallel_gemm(arguments...); });
  }
  if (compare) {
    CHECK(expected.is(c));
    CHECK(expected.keeps_gaps(c));
  }
  return c.values;
}

constexpr Transpose kTransposes[] = {Transpose::no, Transpose::yes};

}  // namespace

TEMPLATE_TEST_CASE("gemm agrees with plain loops", "[blas]", float, double) {
  const std::int64_t sizes[] = {0, 1, 2, 5, 17, 33};
  for (const Transpose ta : kTransposes) {
    for (const Transpose tb : kTransposes) {
      for (const std::int64_t m : sizes) {
        for (const std::int64_t n : sizes) {
          for (const std::int64_t k : sizes) check_product<TestType>(Kind::serial, ta, tb, m, n, k, 1, 0);
        }
      }
      check_product<TestType>(Kind::serial, ta, tb, 19, 7, 300, TestType(-0.5), TestType(2));
      check_product<TestType>(Kind::serial, ta, tb, 19, 7, 0, TestType(-0.5), TestType(2));
      check_product<TestType>(Kind::serial, ta, tb, 65, 129, 31, TestType(1), TestType(1));
    }
  }
}

TEMPLATE_TEST_CASE("parallel_gemm agrees with plain loops and gives the same bits on 1, 2 and 8 threads", "[blas]",
                   float, double) {
  struct Size {
    std::int64_t m, n, k;
  };
  const int before = num_threads();
  // Cut by rows, by columns, by depth, not at all.
  for (const Size& s : {Size{700, 13, 9}, Size{3, 1300, 7}, Size{6, 5, 9001}, Size{33, 35, 37}, Size{0, 4, 4}}) {
    for (const Transpose ta : kTransposes) {
      for (const Transpose tb : kTransposes) {
        for (const TestType beta : {TestType(0), TestType(0.75)}) {
          set_num_threads(1);
          const auto one = check_product<TestType>(Kind::parallel, ta, tb, s.m, s.n, s.k, TestType(1.5), beta);
          for (const int threads : {2, 8}) {
            set_num_threads(threads);
            const auto many =
                check_product<TestType>(Kind::parallel, ta, tb, s.m, s.n, s.k, TestType(1.5), beta, false);
            CHECK(test::same_bits(one, many));
          }
          const SerialScope nested;
          const auto inside =
              check_product<TestType>(Kind::parallel, ta, tb, s.m, s.n, s.k, TestType(1.5), beta, false);
          CHECK(test::same_bits(one, inside));
        }
      }
    }
  }
  set_num_threads(before);
}

TEMPLATE_TEST_CASE("beta of zero ignores what the result held", "[blas]", float, double) {
  const TestType nan = std::numeric_limits<TestType>::quiet_NaN();
  for (const std::int64_t k : {0, 1, 40, 5000}) {
    const std::vector<TestType> ones(static_cast<std::size_t>(3 * k + 1), TestType(1));
    for (const bool parallel : {false, true}) {
      std::vector<TestType> c(9, nan);
      if (parallel) {
        blas::parallel_gemm(Transpose::no, Transpose::yes, 3, 3, k, TestType(1), ones.data(), k, ones.data(), k,
                            TestType(0), c.data(), 3);
      } else {
        blas::gemm(Transpose::no, Transpose::yes, 3, 3, k, TestType(1), ones.data(), k, ones.data(), k, TestType(0),
                   c.data(), 3);
      }
      CHECK(c == std::vector<TestType>(9, static_cast<TestType>(k)));
    }
  }
  std::vector<TestType> y(2, nan);
  const std::vector<TestType> a{1, 2, 3, 4};
  blas::gemv(Transpose::no, 2, 2, TestType(1), a.data(), 2, a.data(), TestType(0), y.data());
  CHECK(y == std::vector<TestType>{5, 11});
}

TEMPLATE_TEST_CASE("gemv agrees with plain loops", "[blas]", float, double) {
  for (const Transpose ta : kTransposes) {
    for (const std::int64_t rows : {0, 1, 3, 18, 65}) {
      for (const std::int64_t columns : {0, 1, 4, 17, 130}) {
        const Matrix<TestType> a(rows, columns, 2, 4);
        const std::int64_t inputs = ta == Transpose::yes ? rows : columns;
        const std::int64_t outputs = ta == Transpose::yes ? columns : rows;
        const Matrix<TestType> x(1, inputs, 0, 5), before(1, outputs, 0, 6);
        std::vector<TestType> y = before.values;
        blas::gemv(ta, rows, columns, TestType(2), a.values.data(), a.stride, x.values.data(), TestType(-1), y.data());
        for (std::int64_t i = 0; i < outputs; ++i) {
          double sum = 0;
          for (std::int64_t l = 0; l < inputs; ++l) {
            sum += static_cast<double>(a.at(i, l, ta)) * static_cast<double>(x.values[static_cast<std::size_t>(l)]);
          }
          const auto at = static_cast<std::size_t>(i);
          const double bound = static_cast<double>(inputs + 4) * std::numeric_limits<TestType>::epsilon() *
                               (2 * static_cast<double>(inputs) + 1);
          CHECK(std::abs(static_cast<double>(y[at]) - (2 * sum - static_cast<double>(before.values[at]))) <= bound);
        }
      }
    }
  }
}

TEST_CASE("sizes beyond the 32 bits of BLAS are refused", "[blas]") {
  float x = 0;
  CHECK_THROWS_AS(
      blas::gemm(Transpose::no, Transpose::no, 1, 1, std::int64_t{1} << 31, 1.0f, &x, 1, &x, 1, 0.0f, &x, 1),
      ShapeError);
  CHECK_THROWS_AS(
      blas::gemm(Transpose::no, Transpose::no, 1, 1, 1, 1.0f, &x, std::int64_t{1} << 31, &x, 1, 0.0f, &x, 1),
      ShapeError);
}

TEST_CASE("the linked BLAS is the pthread build and says so", "[blas]") {
  CHECK_NOTHROW(blas::verify());
  CHECK_THAT(blas::description(), Catch::Contains("OpenBLAS") && Catch::Contains(blas::core_name()));
}

TEST_CASE("kernels for older CPUs than this one are warned of, with the variable that helps", "[blas]") {
  using blas::VectorWidth;
  for (const char* older : {"Prescott", "Core2", "Nehalem", "Sandybridge", "Barcelona", "Steamroller", "Unknown"}) {
    INFO(older);
    CHECK(blas::fallback_warning(older, VectorWidth::older).empty());
    CHECK_THAT(blas::fallback_warning(older, VectorWidth::avx2),
               Catch::Contains(older) && Catch::EndsWith("set OPENBLAS_CORETYPE=Haswell in the environment"));
    CHECK_THAT(blas::fallback_warning(older, VectorWidth::avx512),
               Catch::Contains(older) && Catch::EndsWith("set OPENBLAS_CORETYPE=SkylakeX in the environment"));
    CHECK(blas::fallback_warning(older, VectorWidth::avx512).find('\n') == std::string::npos);
  }
  for (const char* fitting :
       {"Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids", "Excavator", "NEOVERSEN1"}) {
    INFO(fitting);
    for (const VectorWidth width : {VectorWidth::older, VectorWidth::avx2, VectorWidth::avx512}) {
      CHECK(blas::fallback_warning(fitting, width).empty());
    }
  }
  CHECK(blas::fallback_warning() == blas::fallback_warning(blas::core_name(), blas::vector_width()));
}

TEST_CASE("who multiplies depends on kernels, CPU and sizes", "[blas]") {
  using blas::VectorWidth;
  CHECK(blas::kernel_width("Prescott") == VectorWidth::older);
  CHECK(blas::kernel_width("Haswell") == VectorWidth::avx2);
  CHECK(blas::kernel_width("Zen") == VectorWidth::avx2);
  CHECK(blas::kernel_width("Cooperlake") == VectorWidth::avx512);
  const auto packed = [](VectorWidth kernels, VectorWidth width, std::int64_t m, std::int64_t n, std::int64_t k,
                         Transpose ta = Transpose::no, Transpose tb = Transpose::yes) {
    return blas::multiplies_packed(kernels, width, ta, tb, m, n, k);
  };
  for (const std::int64_t m : {1, 8, 2048}) {
    for (const std::int64_t n : {1, 50, 64, 3416}) {
      // Kernels that leave vectors unused, and CPUs that nothing was measured on.
      CHECK(packed(VectorWidth::older, VectorWidth::avx2, m, n, 64));
      CHECK(packed(VectorWidth::older, VectorWidth::avx512, m, n, 64));
      CHECK(packed(VectorWidth::avx2, VectorWidth::avx512, m, n, 64));
      CHECK_FALSE(packed(VectorWidth::older, VectorWidth::older, m, n, 64));
    }
  }
  constexpr VectorWidth k512 = VectorWidth::avx512, k2 = VectorWidth::avx2;
  CHECK(packed(k512, k512, 2048, 64, 64));
  CHECK(packed(k512, k512, 64, 64, 2048, Transpose::yes, Transpose::no));
  CHECK(packed(k512, k512, 64, 64, 32));
  CHECK_FALSE(packed(k512, k512, 64, 64, 32, Transpose::no, Transpose::no));
  CHECK_FALSE(packed(k512, k512, 2048, 50, 50));
  CHECK_FALSE(packed(k512, k512, 4, 4096, 4096));
  CHECK(packed(k512, k512, 1024, 1024, 1024));
  CHECK_FALSE(packed(k512, k512, 1024, 1024, 1024, Transpose::yes));
  CHECK_FALSE(packed(k512, k512, 4096, 8, 4096));
  CHECK(packed(k512, k512, std::int64_t{1} << 30, std::int64_t{1} << 30, std::int64_t{1} << 30));
  CHECK(packed(k2, k2, 2048, 64, 64));
  CHECK(packed(k2, k2, 2048, 128, 64));
  CHECK_FALSE(packed(k2, k2, 2048, 128, 64, Transpose::yes));
  CHECK_FALSE(packed(k2, k2, 2048, 50, 50));
  CHECK_FALSE(packed(k2, k2, 1024, 1024, 1024));
}

}  // namespace blas_test
