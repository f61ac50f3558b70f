#pragma once

#include <cstdint>

// Between packed symmetric matrices (packed_symmetric.h) and dense square ones of k columns. All run on the calling
// thread.

namespace tally::kernels {

/// square [k, k] = the whole symmetric matrix.
template <class T>
void unpack_symmetric(const T* packed, std::int64_t k, T* square);
/// square [k, k] = L + L^T of the lower triangle L: the diagonal counts twice.
template <class T>
void unpack_with_transpose(const T* packed, std::int64_t k, T* square);

/// packed += the lower triangle of a square matrix, whose upper one is not read.
template <class T>
void add_lower(const T* square, std::int64_t k, double* packed);
/// packed += what a gradient of the square matrix is for a symmetric one: (i, j) + (j, i), and the diagonal.
template <class T>
void add_both_triangles(const T* square, std::int64_t k, double* packed);

}  // namespace tally::kernels
