#pragma once

#include <cstdint>
#include <span>

#include "tally/core/tensor.h"

namespace tally::recsys {

/// How hidden rows become scores of all items: an item's score is <row, its vector>. The vectors are a table, or sums
/// of codewords, which are never formed: a row meets the B W codewords once, and an item costs B additions. A value;
/// copies share the tensors, which must not change.
class ItemScorer {
 public:
  /// table f32 [items, D]. Throws ShapeError, DTypeError.
  static ItemScorer of_table(const Tensor& table);
  /// codes u8 or i32 [items, B] in [0, W), codebooks f32 [B, W, D]. Items of equal codes have equal scores. Throws
  /// ShapeError, DTypeError; ValueError for a code outside [0, W).
  static ItemScorer of_codes(const Tensor& codes, const Tensor& codebooks);

  std::int64_t num_items() const { return codes_.defined() ? codes_.dim(0) : vectors_.dim(0); }
  std::int64_t width() const { return vectors_.dim(vectors_.rank() - 1); }
  /// Memory that it reads: of the table, or of codes and codebooks.
  std::size_t bytes() const { return vectors_.bytes() + (codes_.defined() ? codes_.bytes() : 0); }

  /// rows [n, width()] to scores [n, num_items()], on the calling thread. A row's scores are the same bits whatever the
  /// other rows. Throws ShapeError for spans of other sizes.
  void score(std::span<const float> rows, std::span<float> scores) const;
  /// The vectors as a table, f32 [num_items(), width()]; of codes, it is formed here.
  Tensor vectors() const;

 private:
  ItemScorer(Tensor vectors, Tensor codes) : vectors_(std::move(vectors)), codes_(std::move(codes)) {}

  Tensor vectors_;  ///< [items, D], or codewords [B, W, D]
  Tensor codes_;    ///< [items, B]; undefined for a table
};

}  // namespace tally::recsys
