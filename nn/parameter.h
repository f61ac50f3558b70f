#pragma once

#include "tally/autograd/var.h"

namespace tally::nn {

namespace detail {
/// The tensor itself when nobody else holds its memory and it has no gaps, else a copy.
inline Tensor own(Tensor value) { return !value.defined() || value.unique() ? value.contiguous() : value.clone(); }
}  // namespace detail

/// A trained tensor with an identity of its own. Copying copies the values and makes a new identity; moving keeps it,
/// so a module can be moved after an optimizer has met it.
class Parameter {
 public:
  Parameter() = default;
  /// Takes the values. They are copied unless `value` is moved in and nobody else holds its memory: what the caller
  /// writes later does not reach the parameter, nor an optimizer's step the caller.
  explicit Parameter(Tensor value) : value_(detail::own(std::move(value))), id_(new_leaf_id()) {}
  Parameter(const Parameter& other) : value_(other.value_.clone()), id_(new_leaf_id()), frozen_(other.frozen_) {}
  Parameter& operator=(const Parameter& other) { return *this = Parameter(other); }
  Parameter(Parameter&&) noexcept = default;
  Parameter& operator=(Parameter&&) noexcept = default;

  bool defined() const { return value_.defined(); }
  const Shape& shape() const { return value_.shape(); }
  const Tensor& value() const { return value_; }
  /// For optimizers and loaders. Writing bumps the version, so a tape that kept the old values notices.
  Tensor& mutable_value() { return value_; }
  LeafId id() const { return id_; }

  /// A frozen parameter is a constant: no gradient, no update.
  void freeze(bool frozen = true) { frozen_ = frozen; }
  bool frozen() const { return frozen_; }

  /// The leaf that ops take; undefined when the parameter is absent (a layer without bias).
  Var var() const { return !defined() || frozen_ ? Var(value_) : Var::leaf(value_, id_); }
  operator Var() const { return var(); }  // NOLINT: a parameter stands wherever a Var does

 private:
  Tensor value_;
  LeafId id_;
  bool frozen_ = false;
};

/// A tensor that is saved with the module but not trained: running statistics, codebooks updated by averages, usage
/// counts.
class Buffer {
 public:
  Buffer() = default;
  /// Takes the values, as a Parameter does.
  explicit Buffer(Tensor value) : value_(detail::own(std::move(value))) {}
  Buffer(const Buffer& other) : value_(other.value_.clone()) {}
  Buffer& operator=(const Buffer& other) { return *this = Buffer(other); }
  Buffer(Buffer&&) noexcept = default;
  Buffer& operator=(Buffer&&) noexcept = default;

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  Tensor& mutable_value() { return value_; }

 private:
  Tensor value_;
};

}  // namespace tally::nn
