#pragma once

#include <span>

#include "tally/core/tensor.h"

namespace tally {

/// The packing of N sequences into rows [T, ...]: sequence i occupies rows [at(i), at(i + 1)). Sequences may be empty.
class Offsets {
 public:
  /// No sequence.
  Offsets();
  /// `bounds` i64 [N + 1] must begin with 0 and never fall. They are copied unless moved in and held by nobody else:
  /// what was checked stays so. Throws ValueError (naming the position) or DTypeError.
  explicit Offsets(Tensor bounds);
  static Offsets from_lengths(std::span<const std::int64_t> lengths);
  /// One sequence of `rows` rows.
  static Offsets single(std::int64_t rows);

  std::int64_t count() const { return bounds_.numel() - 1; }
  std::int64_t total() const { return at(count()); }
  std::int64_t at(std::int64_t i) const { return data_[i]; }
  std::int64_t length(std::int64_t i) const { return data_[i + 1] - data_[i]; }
  std::int64_t longest() const;
  const Tensor& tensor() const { return bounds_; }
  std::span<const std::int64_t> bounds() const { return {data_, static_cast<std::size_t>(bounds_.numel())}; }

  /// Throws ShapeError unless the sequences cover exactly `rows` rows.
  void check_rows(std::int64_t rows, std::string_view op) const;

 private:
  Tensor bounds_;
  const std::int64_t* data_;
};

}  // namespace tally
