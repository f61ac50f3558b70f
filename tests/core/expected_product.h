#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/random.h"

namespace tally::test {

/// A stored matrix with room between its rows, and none behind the last.
template <class T>
struct Matrix {
  Matrix(std::int64_t stored_rows, std::int64_t stored_columns, std::int64_t gap, std::uint64_t seed)
      : rows(stored_rows), columns(stored_columns), stride(stored_columns + gap) {
    Tensor draws({rows * stride + 1}, dtype_of<T>);
    fill_uniform(RngKey{seed}, draws, -1, 1);
    values.assign(draws.data<T>(), draws.data<T>() + (rows == 0 ? 0 : rows * stride - gap));
  }
  T at(std::int64_t i, std::int64_t j, blas::Transpose t = blas::Transpose::no) const {
    return values[static_cast<std::size_t>(t == blas::Transpose::yes ? j * stride + i : i * stride + j)];
  }
  void fill_gaps(T value) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (static_cast<std::int64_t>(i) % stride >= columns) values[i] = value;
    }
  }
  std::int64_t rows, columns, stride;
  std::vector<T> values;
};

/// C = alpha op(A) op(B) + beta C of random matrices, by a double loop.
template <class T>
struct ExpectedProduct {
  ExpectedProduct(blas::Transpose a_transposed, blas::Transpose b_transposed, std::int64_t rows_of_c,
                  std::int64_t columns_of_c, std::int64_t inner_size, T alpha_, T beta_)
      : ta(a_transposed),
        tb(b_transposed),
        m(rows_of_c),
        n(columns_of_c),
        k(inner_size),
        alpha(alpha_),
        beta(beta_),
        a(ta == blas::Transpose::yes ? k : m, ta == blas::Transpose::yes ? m : k, 3, 1),
        b(tb == blas::Transpose::yes ? n : k, tb == blas::Transpose::yes ? k : n, 1, 2),
        before(m, n, 2, 3) {
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0, magnitude = 0;
        for (std::int64_t l = 0; l < k; ++l) {
          const double product = static_cast<double>(a.at(i, l, ta)) * static_cast<double>(b.at(l, j, tb));
          sum += product;
          magnitude += std::abs(product);
        }
        const double old = static_cast<double>(beta) * static_cast<double>(before.at(i, j));
        values.push_back(static_cast<double>(alpha) * sum + old);
        magnitudes.push_back(std::abs(static_cast<double>(alpha)) * magnitude + std::abs(old));
      }
    }
  }

  /// Within (k + 4) eps (|alpha| |A| |B| + |beta C|), element by element.
  bool is(const Matrix<T>& c) const {
    const double ulps = static_cast<double>(k + 4) * static_cast<double>(std::numeric_limits<T>::epsilon());
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        const auto at = static_cast<std::size_t>(i * n + j);
        if (!(std::abs(static_cast<double>(c.at(i, j)) - values[at]) <= ulps * magnitudes[at])) return false;
      }
    }
    return true;
  }
  /// The room between the rows of C was left alone.
  bool keeps_gaps(const Matrix<T>& c) const {
    for (std::size_t i = 0; i < c.values.size(); ++i) {
      if (static_cast<std::int64_t>(i) % c.stride >= n && c.values[i] != before.values[i]) return false;
    }
    return true;
  }

  blas::Transpose ta, tb;
  std::int64_t m, n, k;
  T alpha, beta;
  Matrix<T> a, b, before;
  std::vector<double> values, magnitudes;
};

}  // namespace tally::test
