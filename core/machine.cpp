#include "tally/core/machine.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/parallel.h"

namespace tally {

double measure_sgemm_rate(double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t n = 384;  // three matrices of 0.6 MB: second-level cache
  constexpr double kOperations = 2.0 * n * n * n;
  const int threads = num_threads();
  std::vector<std::vector<float>> a, b, c;
  for (int t = 0; t < threads; ++t) {
    a.emplace_back(n * n, 1.0f);
    b.emplace_back(n * n, 0.5f);
    c.emplace_back(n * n, 0.0f);
  }
  double best = 0;
  const auto start = Clock::now();
  // The best of several rounds: others may use the machine too.
  do {
    constexpr int kRepeats = 4;
    const auto round = Clock::now();
    parallel_for(threads, 1, [&](std::int64_t t, std::int64_t) {
      const auto i = static_cast<std::size_t>(t);
      for (int r = 0; r < kRepeats; ++r) {
        blas::gemm(blas::Transpose::no, blas::Transpose::no, n, n, n, 1.0f, a[i].data(), n, b[i].data(), n, 0.0f,
                   c[i].data(), n);
      }
    });
    const double elapsed = std::chrono::duration<double>(Clock::now() - round).count();
    best = std::max(best, kRepeats * threads * kOperations / elapsed);
  } while (std::chrono::duration<double>(Clock::now() - start).count() < seconds);
  return best;
}

}  // namespace tally
