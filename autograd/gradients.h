#pragma once

#include <map>
#include <variant>

#include "tally/autograd/var.h"

namespace tally {

/// Gradient of a table of which few rows were used: `values[k]` belongs to row `rows[k]` of a tensor of shape `shape`;
/// all other rows are zero.
struct RowGrad {
  Tensor rows;    ///< i64 [K], ascending, each row once
  Tensor values;  ///< [K, shape[1], ...]
  Shape shape;    ///< of the table

  /// Sums `values[i]` over equal `rows[i]`, in order of i, and sorts. `rows` i32 or i64 of any shape, `values` with one
  /// row for each. Throws IndexError for a row outside the table, ShapeError when the shapes do not fit.
  static RowGrad gather(const Tensor& rows, const Tensor& values, const Shape& shape);
  Tensor to_dense() const;
};

using Gradient = std::variant<Tensor, RowGrad>;

/// a + b. Two row gradients give a row gradient; with a dense one the sum is dense, rows added in order. A dense
/// operand is overwritten when nothing shares its storage: a table of items may be too large for a copy. Throws
/// ShapeError, DTypeError when they belong to different leaves.
Gradient add(Gradient a, Gradient b);
/// The gradient as a plain tensor.
Tensor to_dense(const Gradient& gradient);
/// Sum of squares of the elements, in double.
double sum_squares(const Gradient& gradient);
void scale(Gradient& gradient, double factor);

/// Leaf -> gradient: what backward returns. A value like any other; merged by +=. Its tensors may share storage with
/// one another and with the cotangents that were given: clone() one before writing into it.
class Gradients {
 public:
  bool contains(LeafId leaf) const { return map_.contains(leaf); }
  bool contains(const Var& leaf) const { return contains(leaf.leaf_id()); }
  /// Null when no gradient reached the leaf.
  const Gradient* find(LeafId leaf) const;
  /// The gradient as a dense tensor. Throws AutogradError when none reached the leaf.
  Tensor operator[](const Var& leaf) const;
  Tensor operator[](LeafId leaf) const;

  /// Adds to the leaf's gradient.
  void add(LeafId leaf, Gradient gradient);
  /// Removes and returns the leaf's gradient. Throws AutogradError when there is none.
  Gradient take(LeafId leaf);
  /// Lays the leaf's row gradient out as a dense tensor; nothing happens to a dense one or where there is none.
  void make_dense(LeafId leaf);
  /// Adds every gradient of `other`, in one fixed order for each leaf: this first.
  Gradients& operator+=(Gradients other);
  void scale(double factor);

  std::size_t size() const { return map_.size(); }
  auto begin() const { return map_.begin(); }
  auto end() const { return map_.end(); }

 private:
  std::map<LeafId, Gradient> map_;
};

}  // namespace tally
