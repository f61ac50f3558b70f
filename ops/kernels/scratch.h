#pragma once

#include <algorithm>
#include <cstdint>

#include "tally/core/tensor.h"

namespace tally::kernels {

/// A buffer of a kernel whose size grows with its inputs, from the memory of tensors: cached, hence without the cost of
/// fresh pages, and counted in peaks. Small fixed ones may be plain vectors.
template <class T>
class Scratch {
 public:
  Scratch() = default;
  /// Not initialised.
  explicit Scratch(std::int64_t size) : tensor_(Shape{size}, dtype_of<T>), data_(tensor_.template mutable_data<T>()) {}
  static Scratch zeros(std::int64_t size) {
    Scratch scratch(size);
    scratch.clear();
    return scratch;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::int64_t size() const { return data_ == nullptr ? 0 : tensor_.numel(); }
  /// Nothing was asked for.
  bool absent() const { return data_ == nullptr; }
  void clear() { std::fill_n(data_, size(), T{0}); }

 private:
  Tensor tensor_;
  T* data_ = nullptr;
};

}  // namespace tally::kernels
