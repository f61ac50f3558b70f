#include "tally/core/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "tally/core/memory.h"

namespace tally {
namespace {

std::array<std::int64_t, kMaxRank> contiguous_strides(const Shape& shape) {
  std::array<std::int64_t, kMaxRank> strides{};
  std::int64_t stride = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[static_cast<std::size_t>(i)] = stride;
    stride *= shape[i];
  }
  return strides;
}

/// Visits the elements in row-major order with their offset from the first element.
template <class Visit>
void for_each_offset(const Tensor& tensor, Visit&& visit) {
  const int rank = tensor.rank();
  const std::int64_t count = tensor.numel();
  std::array<std::int64_t, kMaxRank> index{};
  std::int64_t offset = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    visit(i, offset);
    for (int d = rank - 1; d >= 0; --d) {
      auto& position = index[static_cast<std::size_t>(d)];
      offset += tensor.stride(d);
      if (++position < tensor.dim(d)) break;
      offset -= position * tensor.stride(d);
      position = 0;
    }
  }
}

template <class T>
void copy_elements(const Tensor& source, T* out) {
  if (source.is_contiguous()) {
    if (source.numel() > 0) std::memcpy(out, source.data<T>(), source.bytes());
    return;
  }
  const T* in = source.strided_data<T>();
  // Rows along the last dimension keep the inner loop free of index arithmetic.
  const std::int64_t columns = source.rank() == 0 ? 1 : source.dim(-1);
  const std::int64_t step = source.rank() == 0 ? 1 : source.stride(-1);
  if (columns == 0 || source.numel() == 0) return;
  const Tensor rows = source.slice(-1, 0, 1);
  for_each_offset(rows, [&](std::int64_t row, std::int64_t offset) {
    T* to = out + row * columns;
    const T* from = in + offset;
    for (std::int64_t i = 0; i < columns; ++i) to[i] = from[i * step];
  });
}

/// `value` as To; integers are truncated toward zero. Throws ValueError when it does not fit (the cast is undefined
/// then).
template <class To, class From>
To convert(From value) {
  if constexpr (std::is_integral_v<To> && !std::is_same_v<To, From>) {
    bool fits = false;
    if constexpr (std::is_integral_v<From>) {
      fits = std::in_range<To>(value);
    } else {
      // Both bounds are powers of two (or one less than 0), hence exact in any floating type; NaN fails both.
      constexpr To kHalf = std::numeric_limits<To>::max() / 2 + 1;
      constexpr From kAbove = static_cast<From>(kHalf) * From{2};
      constexpr From kLowest = static_cast<From>(std::numeric_limits<To>::min());
      fits = value < kAbove && (value >= kLowest || std::trunc(value) >= kLowest);
    }
    check<ValueError>(fits, "tensor", "needs values within the range of ", dtype_of<To>, "; got ", value);
  }
  return static_cast<To>(value);
}

}  // namespace

Storage::Storage(std::size_t bytes) : data_(static_cast<std::byte*>(detail::allocate(bytes))), bytes_(bytes) {}

Storage::~Storage() { detail::deallocate(data_, bytes_); }

Tensor::Tensor(const Shape& shape, DType dtype) : shape_(shape), strides_(contiguous_strides(shape)), dtype_(dtype) {
  const std::int64_t bytes = checked_multiply(shape.numel(), static_cast<std::int64_t>(size_of(dtype)));
  storage_ = std::make_shared<Storage>(static_cast<std::size_t>(bytes));
}

Tensor Tensor::zeros(const Shape& shape, DType dtype) {
  Tensor result(shape, dtype);
  std::memset(result.storage_->data(), 0, result.bytes());
  return result;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype) {
  Tensor result(shape, dtype);
  result.fill(value);
  return result;
}

Tensor Tensor::scalar(double value, DType dtype) { return full({}, value, dtype); }

Tensor Tensor::arange(std::int64_t n, DType dtype) {
  Tensor result({n}, dtype);
  dispatch_all(dtype, [&]<class T>(T) {
    T* out = result.mutable_data<T>();
    for (std::int64_t i = 0; i < n; ++i) out[i] = convert<T>(i);
  });
  return result;
}

bool Tensor::is_contiguous() const {
  std::int64_t expected = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    const std::int64_t size = shape_[i];
    if (size == 0) return true;
    if (size != 1 && strides_[static_cast<std::size_t>(i)] != expected) return false;
    expected *= size;
  }
  return true;
}

std::byte* Tensor::mutable_raw_data() {
  check_access(dtype_);
  storage_->bump();
  return storage_->data() + static_cast<std::size_t>(offset_) * size_of(dtype_);
}

double Tensor::item() const {
  check<ShapeError>(defined() && numel() == 1, "item", "needs a tensor with one element; got shape ", shape_);
  return dispatch_all(dtype_, [&]<class T>(T) { return static_cast<double>(*strided_data<T>()); });
}

double Tensor::element(std::span<const std::int64_t> index) const {
  check<ShapeError>(defined() && static_cast<int>(index.size()) == rank(), "element",
                    "needs an index for each dimension of shape ", shape_, "; got ", index.size());
  std::int64_t offset = 0;
  for (int d = 0; d < rank(); ++d) {
    const std::int64_t at = index[static_cast<std::size_t>(d)];
    check<IndexError>(at >= 0 && at < dim(d), "element", "needs an index in [0, ", dim(d), ") for dimension ", d,
                      " of shape ", shape_, "; got ", at);
    offset += at * stride(d);
  }
  return dispatch_all(dtype_, [&]<class T>(T) { return static_cast<double>(strided_data<T>()[offset]); });
}

std::vector<double> Tensor::to_doubles() const {
  std::vector<double> values(static_cast<std::size_t>(numel()));
  dispatch_all(dtype_, [&]<class T>(T) {
    const T* in = strided_data<T>();
    for_each_offset(*this, [&](std::int64_t i, std::int64_t offset) {
      values[static_cast<std::size_t>(i)] = static_cast<double>(in[offset]);
    });
  });
  return values;
}

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor result(shape_, dtype_);
  dispatch_all(dtype_, [&]<class T>(T) { copy_elements(*this, reinterpret_cast<T*>(result.storage_->data())); });
  return result;
}

Tensor Tensor::contiguous() const {
  if (!is_contiguous()) return clone();
  Tensor result = *this;
  result.strides_ = contiguous_strides(shape_);
  return result;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  const Tensor source = contiguous();
  Tensor result(shape_, dtype);
  dispatch_all(dtype_, [&]<class From>(From) {
    dispatch_all(dtype, [&]<class To>(To) {
      const From* in = source.data<From>();
      To* out = result.mutable_data<To>();
      const std::int64_t count = numel();
      for (std::int64_t i = 0; i < count; ++i) out[i] = convert<To>(in[i]);
    });
  });
  return result;
}

Tensor Tensor::reshape(std::initializer_list<std::int64_t> sizes) const {
  std::vector<std::int64_t> resolved(sizes);
  std::int64_t known = 1;
  std::int64_t* inferred = nullptr;
  for (auto& size : resolved) {
    check<ShapeError>(size >= -1, "reshape", "needs sizes of at least 0, or -1 for one that is inferred; got ", size);
    if (size == -1) {
      check<ShapeError>(inferred == nullptr, "reshape", "needs at most one inferred size (-1)");
      inferred = &size;
    } else {
      known = checked_multiply(known, size);
    }
  }
  if (inferred != nullptr) {
    check<ShapeError>(known > 0 && numel() % known == 0, "reshape", "cannot infer a size: ", numel(),
                      " elements do not divide by ", known);
    *inferred = numel() / known;
  }
  return reshape(Shape(std::span<const std::int64_t>(resolved)));
}

Tensor Tensor::reshape(const Shape& shape) const {
  check_defined();
  check<ShapeError>(shape.numel() == numel(), "reshape", "needs as many elements as before; got ", shape_, " to ",
                    shape);
  Tensor result = contiguous();
  result.shape_ = shape;
  result.strides_ = contiguous_strides(shape);
  return result;
}

Tensor Tensor::transpose(int a, int b) const {
  check_defined();
  a = shape_.normalize(a);
  b = shape_.normalize(b);
  Tensor result = *this;
  result.shape_.set(a, shape_[b]);
  result.shape_.set(b, shape_[a]);
  std::swap(result.strides_[static_cast<std::size_t>(a)], result.strides_[static_cast<std::size_t>(b)]);
  return result;
}

Tensor Tensor::slice(int dim, std::int64_t begin, std::int64_t end) const {
  check_defined();
  dim = shape_.normalize(dim);
  check<IndexError>(0 <= begin && begin <= end && end <= shape_[dim], "slice",
                    "needs 0 <= begin <= end <= ", shape_[dim], " along dimension ", dim, " of ", shape_, "; got [",
                    begin, ", ", end, ")");
  Tensor result = *this;
  result.shape_.set(dim, end - begin);
  if (result.numel() > 0) result.offset_ += begin * strides_[static_cast<std::size_t>(dim)];
  return result;
}

Tensor Tensor::expand(const Shape& shape) const {
  check_defined();
  const int added = shape.rank() - rank();
  check<ShapeError>(added >= 0, "expand", "needs at least ", rank(), " dimensions; got ", shape, " for ", shape_);
  Tensor result = *this;
  result.shape_ = shape;
  for (int i = 0; i < shape.rank(); ++i) {
    auto& stride = result.strides_[static_cast<std::size_t>(i)];
    if (i < added) {
      stride = 0;
    } else if (shape_[i - added] == shape[i]) {
      stride = strides_[static_cast<std::size_t>(i - added)];
    } else {
      check<ShapeError>(shape_[i - added] == 1, "expand", "needs sizes equal or 1; got ", shape_, " to ", shape);
      stride = 0;
    }
  }
  return result;
}

void Tensor::fill(double value) {
  dispatch_all(dtype_, [&]<class T>(T) {
    const T element = convert<T>(value);
    if constexpr (std::is_same_v<T, float>) {
      check<ValueError>(std::isfinite(element) || !std::isfinite(value), "tensor",
                        "needs values within the range of f32; got ", value);
    }
    T* out = mutable_data<T>();
    std::fill(out, out + numel(), element);
  });
}

void Tensor::copy_from(const Tensor& source) {
  check<ShapeError>(source.shape() == shape_, "copy_from", "needs shape ", shape_, "; got ", source.shape());
  check<DTypeError>(source.dtype() == dtype_, "copy_from", "needs ", dtype_, "; got ", source.dtype());
  // A source within the same storage is copied first: elements would be read after they were overwritten.
  const Tensor from = shares_storage_with(source) ? source.clone() : source;
  dispatch_all(dtype_, [&]<class T>(T) { copy_elements(from, mutable_data<T>()); });
}

void Tensor::check_defined() const {
  check<ValueError>(defined(), "tensor", "is undefined: it was never given a value");
}

void Tensor::check_dtype(DType wanted) const {
  check_defined();
  check<DTypeError>(dtype_ == wanted, "tensor", "of shape ", shape_, " holds ", dtype_, "; accessed as ", wanted);
}

void Tensor::check_access(DType wanted) const {
  check_dtype(wanted);
  check<ShapeError>(is_contiguous(), "tensor", "of shape ", shape_, " is not contiguous; call contiguous() first");
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) return out << "undefined";
  constexpr std::int64_t kShown = 32;
  out << tensor.dtype() << tensor.shape() << " {";
  const std::vector<double> values = tensor.to_doubles();
  for (std::size_t i = 0; i < values.size() && i < kShown; ++i) {
    out << (i == 0 ? "" : ", ") << detail::join(values[i]);  // not in the stream's locale
  }
  return out << (tensor.numel() > kShown ? ", ...}" : "}");
}

bool identical(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  if (!a.defined()) return true;
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  if (a.numel() == 0) return true;
  return std::memcmp(a.contiguous().raw_data(), b.contiguous().raw_data(), a.bytes()) == 0;
}

bool all_finite(const Tensor& tensor) {
  if (!is_floating(tensor.dtype())) return true;
  const Tensor values = tensor.contiguous();
  return dispatch_floating(tensor.dtype(), "all_finite", [&]<class T>(T) {
    // A sum of zero products is NaN exactly when an element is not finite, and needs no branch per element.
    T probe = 0;
    for (const T value : values.span<T>()) probe += value * T{0};
    return probe == T{0};
  });
}

}  // namespace tally
