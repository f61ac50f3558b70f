#pragma once

#include <cstdint>

#include "tally/core/tensor.h"

namespace tally {

/// Identity of a leaf: something that gradients are taken with respect to, such as a parameter or an input of a tape.
/// 0 means none.
struct LeafId {
  std::uint64_t value = 0;
  explicit operator bool() const { return value != 0; }
  friend auto operator<=>(const LeafId&, const LeafId&) = default;
};

/// An identity never given out before in this process.
LeafId new_leaf_id();

/// A tensor with, possibly, a place in a computation: a leaf, or an output of a node on a tape. Anything else is a
/// constant.
///
/// A Var of a tape that has ended can still be read, but an op that records throws AutogradError when it meets one:
/// `total = total + loss` over several steps must say `loss.detach()`.
class Var {
 public:
  /// Undefined: stands for an absent optional input.
  Var() = default;
  /// A constant.
  Var(Tensor value) : value_(std::move(value)) {}  // NOLINT: tensors are constants wherever a Var is wanted
  /// A leaf. The tensor is shared, not copied.
  static Var leaf(Tensor value, LeafId id);
  static Var leaf(Tensor value) { return leaf(std::move(value), new_leaf_id()); }

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  int rank() const { return value_.rank(); }
  std::int64_t dim(int i) const { return value_.dim(i); }
  std::int64_t numel() const { return value_.numel(); }
  DType dtype() const { return value_.dtype(); }
  double item() const { return value_.item(); }

  /// A gradient may flow here: a leaf or an output recorded on a tape.
  bool tracked() const { return static_cast<bool>(leaf_) || epoch_ != 0; }
  bool is_leaf() const { return static_cast<bool>(leaf_); }
  LeafId leaf_id() const { return leaf_; }
  /// The same tensor as a constant.
  Var detach() const { return Var(value_); }

 private:
  friend class Tape;

  Tensor value_;
  LeafId leaf_;
  std::uint64_t epoch_ = 0;  ///< of the tape it was recorded on; 0 when on none
  std::uint32_t slot_ = 0;   ///< which of the tape's outputs it is
};

}  // namespace tally
