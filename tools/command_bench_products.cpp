// tally bench products: f32 matrix products of recommenders, by OpenBLAS and by kernels of our own.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <functional>
#include <limits>

#include "tally/core/blas.h"
#include "tally/core/packed_product.h"
#include "tally/core/random.h"
#include "tally/core/simd.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using blas::Transpose;

/// C [m, n] = op(A) op(B), or C += op(A) op(B).
struct ProductShape {
  std::string_view name;
  std::int64_t m, n, k;
  Transpose a = Transpose::no, b = Transpose::no;
  bool adds = false;
};

constexpr Transpose kYes = Transpose::yes, kNo = Transpose::no;

constexpr std::array<ProductShape, 19> kShapes = {{
    {"linear 64 to 64", 2048, 64, 64, kNo, kYes},
    {"  gradient of rows", 2048, 64, 64},
    {"  gradient of weights", 64, 64, 2048, kYes},
    {"linear 64 to 256", 2048, 256, 64, kNo, kYes},
    {"  gradient of rows", 2048, 64, 256},
    {"  gradient of weights", 256, 64, 2048, kYes},
    {"linear 256 to 64", 2048, 64, 256, kNo, kYes},
    {"  gradient of rows", 2048, 256, 64},
    {"  gradient of weights", 64, 256, 2048, kYes},
    {"logits of 3,416 items", 512, 3416, 64, kNo, kYes},
    {"  gradient of rows", 512, 64, 3416},
    {"  gradient of items", 3416, 64, 512, kYes, kNo, true},
    {"scores of attention", 64, 64, 32, kNo, kYes},
    {"  values", 64, 32, 64, kNo, kNo, true},
    {"  gradient of values", 64, 32, 64, kYes, kNo, true},
    {"cube", 1024, 1024, 1024},
    {"", 1024, 1024, 1024, kNo, kYes},
    {"", 1024, 1024, 1024, kYes, kNo},
    {"", 1024, 1024, 1024, kYes, kYes},
}};

Tensor drawn(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  Tensor values({rows, columns});
  fill_uniform(RngKey{seed}, values, -1, 1);
  return values;
}

/// Seconds of the thread's processor that calls() takes: others may use the machine too.
double processor_seconds(const auto& calls) {
  const std::clock_t start = std::clock();
  calls();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

void print_row(const ProductShape& s, int rounds) {
  const auto size = [](Transpose t, std::int64_t rows, std::int64_t columns) {
    return t == kYes ? std::array{columns, rows} : std::array{rows, columns};
  };
  const auto [a_rows, lda] = size(s.a, s.m, s.k);
  const auto [b_rows, ldb] = size(s.b, s.k, s.n);
  const Tensor a = drawn(a_rows, lda, 1), b = drawn(b_rows, ldb, 2);
  Tensor c = Tensor::zeros({s.m, s.n});
  const float beta = s.adds ? 1 : 0;
  const packed::Product product{
      s.m, s.n, s.k, 1, {a.data<float>(), lda, s.a}, {b.data<float>(), ldb, s.b}, beta, c.mutable_data<float>(), s.n};
  const packed::PackedMatrix kept(product.b, s.k, s.n);
  const std::array<std::function<void()>, 3> ways = {
      [&] {
        blas::openblas_gemm(s.a, s.b, s.m, s.n, s.k, 1, product.a.data, lda, product.b.data, ldb, beta, product.c, s.n);
      },
      [&] { packed::multiply(product); }, [&] { packed::multiply(product, kept); }};
  const double operations = 2.0 * static_cast<double>(s.m * s.n * s.k);
  constexpr double kOperationsOfARound = 2e8;  // two milliseconds or so, of a clock that counts microseconds
  const int calls = std::max(1, static_cast<int>(kOperationsOfARound / operations));
  std::array<double, 3> best{};
  best.fill(std::numeric_limits<double>::infinity());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t way = 0; way < ways.size(); ++way) {
      best[way] = std::min(best[way], processor_seconds([&] {
                             for (int i = 0; i < calls; ++i) ways[way]();
                           }));
    }
  }
  const auto rate = [&](std::size_t way) { return operations * calls / best[way] * 1e-9; };
  const bool own =
      blas::multiplies_packed(blas::kernel_width(blas::core_name()), blas::vector_width(), s.a, s.b, s.m, s.n, s.k);
  print(fmt::format("{:<24} {:>18} {:>5} {:>9.1f} {:>9.1f} {:>9.1f} {:>7.2f} {:>7.2f}  {}\n", s.name,
                    fmt::format("{} x {} x {}", s.m, s.n, s.k),
                    fmt::format("{}{}", s.a == kYes ? 't' : 'n', s.b == kYes ? 't' : 'n'), rate(0), rate(1), rate(2),
                    rate(1) / rate(0), rate(2) / rate(0), own ? "own" : "OpenBLAS"));
}

void bench_products(int rounds) {
  check<ConfigError>(rounds >= 1, "--rounds", "needs at least 1; got ", rounds);
  print(fmt::format("SIMD {}, {}\nf32 products on one thread, GFLOP/s, processor time, best of {}\n\n", simd_target(),
                    blas::description(), rounds));
  print(fmt::format("{:<24} {:>18} {:>5} {:>9} {:>9} {:>9} {:>7} {:>7}  {}\n", "product", "m x n x k", "form",
                    "OpenBLAS", "own", "kept", "own", "kept", "gemm takes"));
  for (const ProductShape& shape : kShapes) print_row(shape, rounds);
  print("\nform: which operand is transposed. kept: own, the right operand packed once. Last: ratios to OpenBLAS.\n");
}

}  // namespace

void add_bench_products(CLI::App& app, const CommandContext&) {
  auto rounds = std::make_shared<int>(15);
  CLI::App* command = app.get_subcommand("bench")->add_subcommand(
      "products", "Matrix products of recommenders by OpenBLAS and by kernels of our own");
  command->add_option("--rounds", *rounds, "Timings of each, alternated; the best is printed")->capture_default_str();
  command->callback([=] { bench_products(*rounds); });
}

}  // namespace tally::tools
