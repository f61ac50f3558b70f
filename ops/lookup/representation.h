#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tally/core/bytes.h"
#include "tally/core/tensor.h"

namespace tally::ops {

/// The fixed-size representation of one document, C = sum_t w_t f_t f_t^T with w_t = b_t prod_(u > t) a_u: the
/// recurrent form of outer_sums() (de Brébisson & Vincent, arXiv 1609.05866). A row is appended, and a query answered,
/// in O(k^2), however long the document. C is symmetric: its lower triangle is kept by rows, k (k + 1) / 2 numbers in
/// double, so that sums over a million rows are as good as over a hundred. A plain value: copy it, merge it, save it.
class Representation {
 public:
  /// Of rows of `width` k, none appended yet. Throws ValueError below 1.
  explicit Representation(std::int64_t width);

  std::int64_t width() const { return width_; }
  /// Rows appended, those of merged documents included, less those removed.
  std::int64_t rows() const { return rows_; }
  /// Product of all decays: what is left of a row that stood before the first.
  double decay() const;
  /// [k (k + 1) / 2] the lower triangle of C by rows.
  std::span<const double> packed() const { return packed_; }
  std::size_t heap_bytes() const { return packed_.capacity() * sizeof(double); }

  /// C = decay C + gain row row^T, row [k]. Throws ShapeError; ValueError for a decay or gain outside [0, 1] and for
  /// elements that are not finite, before anything changes.
  void append(std::span<const float> row, double decay = 1, double gain = 1);
  /// Takes a row back that was appended with this gain. Throws ShapeError; ValueError as append(), when no row is left,
  /// and when there was a decay below 1: what is left of a row is not known then.
  void remove(std::span<const float> row, double gain = 1);
  /// Takes the newest row back, which was appended with this decay and gain: C = (C - gain row row^T) / decay. That
  /// divides the rounding errors of C by the decay too, so that the product of decays taken back in a document's life
  /// may not fall below 1e-6, where errors are still below 1e-9 of C. Throws as append(); ValueError beyond that, for a
  /// decay of 0, and when no row is left. Nothing changes then.
  void take_back(std::span<const float> row, double decay = 1, double gain = 1);
  /// Appends another document: C = decay_later C + C_later. Throws ShapeError for another width.
  void merge(const Representation& later);

  /// out [k] = C query, query [k]. Throws ShapeError; ValueError for elements that are not finite.
  void look_up(std::span<const float> query, std::span<float> out) const;
  /// query^T C query: sum_t w_t (f_t . query)^2. Throws as look_up().
  double score(std::span<const float> query) const;
  /// f32 [1, k (k + 1) / 2], as outer_sums() returns it.
  Tensor to_tensor() const;

  /// The value as bytes of a fixed little-endian layout, with a version and a fingerprint against damage.
  std::string save() const;
  /// Throws IoError for bytes that are cut off, damaged, or of another version; ShapeError for another width. Allocates
  /// only what `width` needs.
  static Representation load(std::string_view bytes, std::int64_t width);

  friend bool operator==(const Representation&, const Representation&) = default;

 private:
  /// In double. Throws ShapeError, ValueError.
  std::vector<double> finite_row(std::string_view what, std::span<const float> row) const;

  std::int64_t width_;
  std::int64_t rows_ = 0;
  double log_decay_ = 0;   ///< of the product of all decays
  double taken_back_ = 0;  ///< logarithm of the product of decays that were taken back
  std::vector<double> packed_;
};

}  // namespace tally::ops
