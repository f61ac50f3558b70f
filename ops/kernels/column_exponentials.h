#pragma once

#include <array>
#include <cstdint>

namespace tally::kernels {

/// Arrays that are read or written next. column_exponentials() asks for as many lines of each as it has lines of e: it
/// computes more than it reads, so that they come from memory meanwhile.
struct Upcoming {
  struct Part {
    const char* from = nullptr;
    std::int64_t bytes = 0;
  };
  std::array<Part, 3> parts = {};
};

/// Softmaxes down the columns of e [n, columns], of row distance `stride`, before their sums are divided by. For each
/// column: largest = its maximum, e = exp(e - largest), sum = the sum of that, in short runs of T and the runs in
/// double. A column of -infinity alone becomes zeros (NaN stays). Where `sums` is null, `largest` holds the maxima
/// already. A column's bits depend on its numbers alone.
void column_exponentials(float* e, std::int64_t n, std::int64_t columns, std::int64_t stride, float* largest,
                         double* sums, const Upcoming& upcoming = {});
void column_exponentials(double* e, std::int64_t n, std::int64_t columns, std::int64_t stride, double* largest,
                         double* sums, const Upcoming& upcoming = {});

}  // namespace tally::kernels
