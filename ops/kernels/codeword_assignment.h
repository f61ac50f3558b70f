#pragma once

#include <cstdint>

// The softmax of codewords' scores, and the slope of the assignment. f32 is SIMD, dispatched at run time; f64 plain.
// All run on the calling thread.

namespace tally::kernels {

/// softmax of rows of `words` logits, `stride` elements apart in both arrays.
template <class T>
void softmax_of_words(const T* logits, T* probabilities, std::int64_t rows, std::int64_t words, std::int64_t stride);

/// Rows of `words` logits, and what reaches them directly in backward (null for zeros), `stride` apart.
template <class T>
struct AssignmentRows {
  const T* logits = nullptr;
  const T* direct = nullptr;
  std::int64_t stride = 0, rows = 0, words = 0;
};

/// With p = softmax of a row of logits: out = scale * (direct + p (upstream - <p, upstream>)), where `upstream` is read
/// from out. `probabilities`, when not null, receives p. Rows of both are `stride` apart.
template <class T>
void assignment_slope(const AssignmentRows<T>& in, T* out, T* probabilities, std::int64_t stride, T scale);

}  // namespace tally::kernels
