#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tally/core/tensor.h"

namespace tally::recsys {

/// The items that a training step computes with, each once and in ascending order: those that occur in its batch as
/// inputs, targets and negatives, or all of the catalogue (when the loss is over all items, and for inference). A value
/// of shared tensors: copying is cheap.
class BatchItems {
 public:
  /// No items of an empty catalogue.
  BatchItems() = default;
  static BatchItems all(std::int64_t catalogue);
  /// Those marked with other than 0; `marks` has a byte for each item of the catalogue. `all_candidates`: hidden states
  /// will be scored against the whole catalogue, whose vectors need no more than the parameters.
  static BatchItems marked(std::span<const std::uint8_t> marks, bool all_candidates = false);

  /// i32 [count]: item index of each row. Also when all items are there.
  const Tensor& ids() const { return ids_; }
  std::int64_t count() const { return ids_.defined() ? ids_.numel() : 0; }
  std::int64_t catalogue() const { return catalogue_; }
  bool is_all() const { return count() == catalogue_; }
  /// The candidate table must have a row for every item of the catalogue.
  bool all_candidates() const { return all_candidates_ || is_all(); }

  /// Row of each of `items` (i32, any shape; -1 stays -1) among ids(), i32 of the same shape. Throws IndexError for an
  /// item that is not there, with its position.
  Tensor rows(const Tensor& items) const;

 private:
  Tensor ids_;
  Tensor row_of_;  // i32 [catalogue]: row of an item, or -1; undefined when all are there
  std::int64_t catalogue_ = 0;
  bool all_candidates_ = false;
};

}  // namespace tally::recsys
