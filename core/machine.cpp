#include "tally/core/machine.h"

#include <algorithm>
#include <chrono>

#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/core/tensor.h"

namespace tally {

double measure_sgemm_rate(double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t n = 384;  // three matrices of 0.6 MB: second-level cache
  constexpr double kOperations = 2.0 * n * n * n;
  const int threads = num_threads();
  // Tensors' memory is kept. With blocks of malloc's the heap is cut, and grows again in what is measured beside.
  const Tensor a = Tensor::full({threads, n, n}, 1.0), b = Tensor::full({threads, n, n}, 0.5);
  Tensor c({threads, n, n});
  const float *pa = a.data<float>(), *pb = b.data<float>();
  float* pc = c.mutable_data<float>();
  double best = 0;
  const auto start = Clock::now();
  // The best of several rounds: others may use the machine too.
  do {
    constexpr int kRepeats = 4;
    const auto round = Clock::now();
    parallel_for(threads, 1, [&](std::int64_t t, std::int64_t) {
      const std::int64_t own = t * n * n;
      for (int r = 0; r < kRepeats; ++r) {
        blas::gemm(blas::Transpose::no, blas::Transpose::no, n, n, n, 1.0f, pa + own, n, pb + own, n, 0.0f, pc + own,
                   n);
      }
    });
    const double elapsed = std::chrono::duration<double>(Clock::now() - round).count();
    best = std::max(best, kRepeats * threads * kOperations / elapsed);
  } while (std::chrono::duration<double>(Clock::now() - start).count() < seconds);
  return best;
}

}  // namespace tally
