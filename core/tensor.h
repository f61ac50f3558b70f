#pragma once

#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <ostream>
#include <span>
#include <type_traits>
#include <vector>

#include "tally/core/dtype.h"
#include "tally/core/shape.h"

namespace tally {

/// A block of memory with a version number. The version grows with every request for mutable access, which is how a
/// tape notices that a tensor it kept was overwritten.
class Storage {
 public:
  explicit Storage(std::size_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  std::uint64_t version() const { return version_.load(std::memory_order_relaxed); }
  void bump() { version_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::byte* data_;
  std::size_t bytes_;
  std::atomic<std::uint64_t> version_{0};
};

/// A dense array: shared storage, shape, strides in elements, and element type. Copying shares the storage; `clone()`
/// copies the elements. Views (`reshape`, `transpose`, `slice`) share storage, hence version.
///
/// A tensor knows nothing of tapes: see `Var` (autograd/var.h) for a tensor with a place in a computation.
class Tensor {
 public:
  /// An undefined tensor: no storage; `defined()` is false.
  Tensor() = default;
  /// A tensor whose elements are not initialised.
  explicit Tensor(const Shape& shape, DType dtype = DType::f32);

  static Tensor zeros(const Shape& shape, DType dtype = DType::f32);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32);
  static Tensor scalar(double value, DType dtype = DType::f32);
  /// [n] holding 0, 1, ..., n - 1.
  static Tensor arange(std::int64_t n, DType dtype = DType::i64);
  /// Copies `values`, row-major. Throws ShapeError unless their number equals shape.numel().
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape);
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from(std::span<const T>(values), shape);
  }
  template <class T>
  static Tensor from(std::initializer_list<T> values, const Shape& shape) {
    return from(std::span<const T>(values.begin(), values.size()), shape);
  }

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  std::int64_t dim(int i) const { return shape_[i]; }
  std::int64_t numel() const { return shape_.numel(); }
  std::int64_t stride(int i) const { return strides_[static_cast<std::size_t>(shape_.normalize(i))]; }
  DType dtype() const { return dtype_; }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  /// Row-major without gaps. Always true for what kernels return.
  bool is_contiguous() const;
  std::uint64_t version() const { return storage_ ? storage_->version() : 0; }
  /// No other tensor shares the storage: it may be overwritten without anybody noticing.
  bool unique() const { return storage_.use_count() == 1; }
  bool shares_storage_with(const Tensor& other) const { return storage_ && storage_ == other.storage_; }

  /// First element. Throws DTypeError when T is not the element type and ShapeError when the tensor is not contiguous.
  template <class T>
  const T* data() const {
    check_access(dtype_of<T>);
    return reinterpret_cast<const T*>(storage_->data()) + offset_;
  }
  /// Like data() with write access; bumps the version.
  template <class T>
  T* mutable_data() {
    check_access(dtype_of<T>);
    storage_->bump();
    return reinterpret_cast<T*>(storage_->data()) + offset_;
  }
  template <class T>
  std::span<const T> span() const {
    return {data<T>(), static_cast<std::size_t>(numel())};
  }
  template <class T>
  std::span<T> mutable_span() {
    return {mutable_data<T>(), static_cast<std::size_t>(numel())};
  }
  /// Like data() for any strides: element (i0, i1, ...) is at i0 * stride(0) + i1 * stride(1) + ...
  template <class T>
  const T* strided_data() const {
    check_dtype(dtype_of<T>);
    return reinterpret_cast<const T*>(storage_->data()) + offset_;
  }
  /// The first byte of data() / mutable_data(), for any element type.
  const std::byte* raw_data() const {
    check_access(dtype_);
    return storage_->data() + static_cast<std::size_t>(offset_) * size_of(dtype_);
  }
  std::byte* mutable_raw_data();

  /// The one element, converted to double. Throws ShapeError unless numel() is 1.
  double item() const;
  /// The element at an index, converted to double: `t(i, j)`. For looking at a few; kernels take data(). Throws
  /// ShapeError unless there is an index for each dimension, IndexError for one outside [0, size).
  template <std::integral... Index>
  double operator()(Index... index) const {
    return element(std::array<std::int64_t, sizeof...(Index)>{static_cast<std::int64_t>(index)...});
  }
  double element(std::span<const std::int64_t> index) const;
  /// All elements in row-major order, converted to double.
  std::vector<double> to_doubles() const;

  /// A copy with storage of its own, contiguous.
  Tensor clone() const;
  /// This tensor when it is contiguous, else a copy. Strides are those of the shape, also along dimensions of size 1,
  /// where those of a view may be anything.
  Tensor contiguous() const;
  /// This tensor when it has the type already, else a converted copy. Conversion to integers truncates toward zero and
  /// throws ValueError for an element that does not fit, NaN included.
  Tensor to(DType dtype) const;
  /// The same elements in another shape; a view when contiguous, else a copy. One size may be -1 (inferred).
  Tensor reshape(std::initializer_list<std::int64_t> sizes) const;
  Tensor reshape(const Shape& shape) const;
  /// A view with dimensions a and b exchanged.
  Tensor transpose(int a, int b) const;
  /// A view of [begin, end) along a dimension. Throws IndexError when the range is not within it.
  Tensor slice(int dim, std::int64_t begin, std::int64_t end) const;
  /// A view in which a dimension of size 1 (or a missing leading one) repeats to reach `shape`; strides of 0.
  Tensor expand(const Shape& shape) const;

  /// Sets every element. Throws ShapeError on a non-contiguous tensor and ValueError when the value does not fit.
  void fill(double value);
  /// Copies the elements of a tensor of the same shape and type into this contiguous one.
  void copy_from(const Tensor& source);

 private:
  void check_defined() const;
  void check_dtype(DType wanted) const;
  void check_access(DType wanted) const;

  std::shared_ptr<Storage> storage_;
  Shape shape_;
  std::array<std::int64_t, kMaxRank> strides_{};
  std::int64_t offset_ = 0;
  DType dtype_ = DType::f32;
};

template <class T>
Tensor Tensor::from(std::span<const T> values, const Shape& shape) {
  check<ShapeError>(static_cast<std::int64_t>(values.size()) == shape.numel(), "Tensor::from", "needs ", shape.numel(),
                    " values for shape ", shape, "; got ", values.size());
  Tensor result(shape, dtype_of<T>);
  T* out = result.mutable_data<T>();
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = values[i];
  return result;
}

/// Prints type, shape and up to 32 elements.
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

/// Same shape, type and bit patterns (so NaN equals NaN, and -0 differs from 0).
bool identical(const Tensor& a, const Tensor& b);

/// True when every element is finite. Integers always are.
bool all_finite(const Tensor& tensor);

}  // namespace tally
