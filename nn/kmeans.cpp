#include "tally/nn/kmeans.h"

#include <algorithm>
#include <limits>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/nn/codebook_statistics.h"
#include "tally/ops/quantization/decode_codes.h"
#include "tally/ops/quantization/vector_quantization.h"

namespace tally::nn {
namespace {

constexpr std::int64_t kRows = 1024;  // of a block

const ops::VectorQuantizationOptions kNearest{.similarity = ops::CodewordSimilarity::squared_distance,
                                              .residual = false};

/// Rows of x by index.
Tensor pick_rows(const Tensor& x, std::span<const std::int64_t> rows) {
  Tensor picked({static_cast<std::int64_t>(rows.size()), x.dim(1)}, x.dtype());
  dispatch_floating(x.dtype(), "kmeans", [&]<class T>(T) {
    const T* from = x.data<T>();
    T* to = picked.mutable_data<T>();
    for (const std::int64_t row : rows) to = std::copy_n(from + row * x.dim(1), x.dim(1), to);
  });
  return picked;
}

/// Squared distances of rows to the nearest centre so far.
template <class T>
class Distances {
 public:
  explicit Distances(const Tensor& x) : rows_(x.dim(0)), width_(x.dim(1)), x_(x.data<T>()) {
    nearest_.assign(static_cast<std::size_t>(rows_), std::numeric_limits<double>::infinity());
    norms_.resize(nearest_.size());
    for (std::int64_t row = 0; row < rows_; ++row) {
      norms_[static_cast<std::size_t>(row)] = kernels::sum_squares(x_ + row * width_, width_);
    }
  }

  /// ||x||^2 + ||c||^2 - 2 x^T c for a centre that is row `centre` itself.
  void see(std::int64_t centre) {
    const T* c = x_ + centre * width_;
    const double norm = norms_[static_cast<std::size_t>(centre)];
    parallel_for(rows_, kRows, [&](std::int64_t begin, std::int64_t end) {
      std::vector<T> products(static_cast<std::size_t>(end - begin));
      blas::gemv(blas::Transpose::no, end - begin, width_, T{1}, x_ + begin * width_, width_, c, T{0}, products.data());
      for (std::int64_t row = begin; row < end; ++row) {
        const auto at = static_cast<std::size_t>(row);
        const double product = static_cast<double>(products[static_cast<std::size_t>(row - begin)]);
        nearest_[at] = std::min(nearest_[at], std::max(0.0, norms_[at] + norm - 2 * product));
      }
    });
    nearest_[static_cast<std::size_t>(centre)] = 0;
  }

  /// A row with probability in proportion to its distance; any row when all distances are zero.
  std::int64_t draw(RngKey key, std::uint64_t word) const {
    double total = 0;
    for (const double distance : nearest_) total += distance;
    if (!(total > 0)) {
      return static_cast<std::int64_t>(uniform_below(key, word, 1, static_cast<std::uint64_t>(rows_)));
    }
    double left = uniform(key, word, 0) * total;
    std::int64_t last = 0;
    for (std::int64_t row = 0; row < rows_; ++row) {
      const double distance = nearest_[static_cast<std::size_t>(row)];
      if (!(distance > 0)) continue;
      last = row;
      left -= distance;
      if (left < 0) break;
    }
    return last;
  }

 private:
  std::int64_t rows_, width_;
  const T* x_;
  std::vector<double> nearest_, norms_;
};

/// Seeds by k-means++.
Tensor seeds(const Tensor& x, std::int64_t words, RngKey key) {
  std::vector<std::int64_t> chosen;
  dispatch_floating(x.dtype(), "kmeans", [&]<class T>(T) {
    Distances<T> distances(x);
    chosen.push_back(static_cast<std::int64_t>(uniform_below(key, 0, 0, static_cast<std::uint64_t>(x.dim(0)))));
    while (static_cast<std::int64_t>(chosen.size()) < words) {
      distances.see(chosen.back());
      chosen.push_back(distances.draw(key, chosen.size()));
    }
  });
  return pick_rows(x, chosen);
}

/// Rows of x by their distance to what they are decoded to, farthest first, the lower index among equals.
std::vector<std::int64_t> farthest_rows(const Tensor& x, const Tensor& decoded, std::int64_t count) {
  std::vector<double> distances;
  dispatch_floating(x.dtype(), "kmeans", [&]<class T>(T) {
    std::vector<T> difference(static_cast<std::size_t>(x.dim(1)));
    for (std::int64_t row = 0; row < x.dim(0); ++row) {
      std::copy_n(x.data<T>() + row * x.dim(1), x.dim(1), difference.data());
      kernels::axpy(difference.data(), T{-1}, decoded.data<T>() + row * x.dim(1), x.dim(1));
      distances.push_back(kernels::sum_squares(difference.data(), x.dim(1)));
    }
  });
  std::vector<std::int64_t> order(distances.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return distances[static_cast<std::size_t>(a)] > distances[static_cast<std::size_t>(b)];
  });
  order.resize(std::min(order.size(), static_cast<std::size_t>(count)));
  return order;
}

/// The means of the rows of each centre; centres without rows move to the farthest ones.
void move_centres(const Tensor& x, const Tensor& codes, Tensor& centres) {
  const std::int64_t words = centres.dim(1), width = centres.dim(2);
  const Tensor counts = code_counts(codes, words);
  const Tensor sums = codeword_sums(x, codes, centres, CodebookScheme::independent);
  const std::int64_t* count = counts.data<std::int64_t>();
  const std::int64_t empty = std::count(count, count + words, 0);
  const std::vector<std::int64_t> far =
      empty > 0 ? farthest_rows(x, ops::decode_codes(Var(centres), codes).value(), empty) : std::vector<std::int64_t>();
  dispatch_floating(x.dtype(), "kmeans", [&]<class T>(T) {
    const T* rows = x.data<T>();
    T* out = centres.mutable_data<T>();
    std::size_t next = 0;
    for (std::int64_t word = 0; word < words; ++word, out += width) {
      if (count[word] > 0) {
        const double* sum = sums.data<double>() + word * width;
        for (std::int64_t i = 0; i < width; ++i) out[i] = static_cast<T>(sum[i] / static_cast<double>(count[word]));
      } else if (next < far.size()) {
        std::copy_n(rows + far[next++] * width, width, out);
      }
    }
  });
}

Tensor nearest_codes(const Tensor& x, const Tensor& centres) {
  return ops::encode_codes(x, ops::vector_quantization_tables(Var(centres), Var(), kNearest), kNearest);
}

/// Rows less their mean, and the mean [D]. Squared distances by products lose what is small beside a common offset.
struct Centred {
  Tensor rows, mean;
};

Centred centred(const Tensor& x) {
  Centred result{x.clone(), Tensor({x.dim(1)}, x.dtype())};
  dispatch_floating(x.dtype(), "kmeans", [&]<class T>(T) {
    std::vector<double> sums(static_cast<std::size_t>(x.dim(1)));
    T* row = result.rows.mutable_data<T>();
    T* mean = result.mean.mutable_data<T>();
    for (std::int64_t i = 0; i < x.numel(); ++i)
      sums[static_cast<std::size_t>(i % x.dim(1))] += static_cast<double>(row[i]);
    for (std::size_t i = 0; i < sums.size(); ++i) mean[i] = static_cast<T>(sums[i] / static_cast<double>(x.dim(0)));
    for (std::int64_t r = 0; r < x.dim(0); ++r, row += x.dim(1)) kernels::axpy(row, T{-1}, mean, x.dim(1));
  });
  return result;
}

/// Adds the mean to all rows.
void move_by(Tensor& rows, const Tensor& mean) {
  dispatch_floating(rows.dtype(), "kmeans", [&]<class T>(T) {
    T* row = rows.mutable_data<T>();
    for (std::int64_t r = 0; r < rows.numel() / mean.numel(); ++r, row += mean.numel()) {
      kernels::axpy(row, T{1}, mean.data<T>(), mean.numel());
    }
  });
}

void check_rows(std::string_view where, const Tensor& x, std::int64_t words) {
  check<ShapeError>(x.rank() == 2, where, "needs rows [T, D]; got ", x.shape());
  check<DTypeError>(is_floating(x.dtype()), where, "needs f32 or f64; got ", x.dtype());
  check<ValueError>(x.dim(0) > 0 && words > 0, where, "needs rows and words; got ", x.dim(0), " rows and ", words,
                    " words");
  check<ValueError>(all_finite(x), where, "needs finite rows");
}

/// Books along a new first dimension.
Tensor stacked(const std::vector<Tensor>& books) {
  Tensor all({static_cast<std::int64_t>(books.size()), books[0].dim(0), books[0].dim(1)}, books[0].dtype());
  std::byte* to = all.mutable_raw_data();
  for (const Tensor& book : books) to = std::copy_n(book.raw_data(), book.bytes(), to);
  return all;
}

void check_books(std::string_view where, const Tensor& x, std::int64_t books) {
  check<ShapeError>(x.rank() == 2, where, "needs rows [T, D]; got ", x.shape());
  check<ValueError>(books > 0, where, "needs at least one codebook; got ", books);
}

}  // namespace

Tensor kmeans(const Tensor& x, std::int64_t words, RngKey key, const KMeansOptions& options) {
  check_rows("kmeans", x, words);
  Tensor rows = x.contiguous();
  if (options.rows_per_word > 0 && rows.dim(0) / words > options.rows_per_word) {
    std::vector<std::int64_t> sample = random_permutation(key.fold_in("rows"), rows.dim(0));
    sample.resize(static_cast<std::size_t>(options.rows_per_word * words));
    rows = pick_rows(rows, sample);
  }
  const Centred about_zero = centred(rows);
  rows = about_zero.rows;
  Tensor centres = seeds(rows, words, key.fold_in("seeds")).reshape({1, words, rows.dim(1)});
  Tensor codes;
  for (int iteration = 0; iteration < options.iterations; ++iteration) {
    Tensor next = nearest_codes(rows, centres);
    if (codes.defined() && identical(next, codes)) break;
    codes = std::move(next);
    move_centres(rows, codes, centres);
  }
  move_by(centres, about_zero.mean);
  return centres.reshape({words, rows.dim(1)});
}

Tensor residual_kmeans(const Tensor& x, std::int64_t books, std::int64_t words, RngKey key,
                       const KMeansOptions& options) {
  check_books("residual_kmeans", x, books);
  check_rows("residual_kmeans", x, words);
  Centred about_zero = centred(x);
  Tensor& rest = about_zero.rows;
  std::vector<Tensor> made;
  for (std::int64_t book = 0; book < books; ++book) {
    made.push_back(kmeans(rest, words, key.fold_in(static_cast<std::uint64_t>(book)), options));
    const Tensor centres = made.back().reshape({1, words, x.dim(1)});
    const Tensor decoded = ops::decode_codes(Var(centres), nearest_codes(rest, centres)).value();
    dispatch_floating(x.dtype(), "residual_kmeans",
                      [&]<class T>(T) { kernels::axpy(rest.mutable_data<T>(), T{-1}, decoded.data<T>(), x.numel()); });
  }
  // The first codebook alone holds what all rows have in common.
  move_by(made.front(), about_zero.mean);
  return stacked(made);
}

Tensor product_kmeans(const Tensor& x, std::int64_t books, std::int64_t words, RngKey key,
                      const KMeansOptions& options) {
  check_books("product_kmeans", x, books);
  check<ShapeError>(x.dim(1) % books == 0, "product_kmeans", "needs a width that ", books, " codebooks divide; got x ",
                    x.shape());
  const std::int64_t width = x.dim(1) / books;
  std::vector<Tensor> made;
  for (std::int64_t book = 0; book < books; ++book) {
    made.push_back(kmeans(x.slice(1, book * width, (book + 1) * width).contiguous(), words,
                          key.fold_in(static_cast<std::uint64_t>(book)), options));
  }
  return stacked(made);
}

}  // namespace tally::nn
