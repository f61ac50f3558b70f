#include "tally/ops/kernels/linear_attention_gates.h"

#include <algorithm>
#include <limits>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

constexpr std::int64_t kPairs = kLookupChunk;

template <class T>
const T* row_of(MatrixRows<const T> x, std::int64_t row) {
  return x.data + row * x.stride;
}

/// Sets what lies above the diagonal to 0.
template <class T>
void keep_lower(T* pairs, std::int64_t rows) {
  for (std::int64_t i = 0; i < rows; ++i) std::fill_n(pairs + i * kPairs + i + 1, rows - i - 1, T{0});
}

/// What a gentle sub-block leaves at least: far from where products with its inverse would overflow.
template <class T>
constexpr T kGentle = std::numeric_limits<T>::epsilon() * std::numeric_limits<T>::epsilon() / 4;

/// Denormals would slow down the products that follow.
template <class T>
T without_denormals(T x) {
  return x < std::numeric_limits<T>::min() ? T{0} : x;
}

}  // namespace

template <class T>
ScalarDecays<T>::ScalarDecays(const LinearAttentionPlan<T>& plan, bool slopes)
    : plan_(plan), decays_(plan.log_decay.data != nullptr), slopes_(slopes) {}

template <class T>
void ScalarDecays<T>::load(std::int64_t memory, std::int64_t row, std::int64_t rows, bool begins) {
  rows_ = rows;
  begins_ = begins;
  if (slopes_) {
    sums_ = {};
    crossing_ = 0;
  }
  // A constant decay is loaded once.
  if (!decays_ || (plan_.log_decay.row_stride == 0 && loaded_ == rows)) return;
  T log_decay[kPairs];
  for (std::int64_t i = 0; i < rows; ++i) log_decay[i] = *plan_.log_decay.at(row + i, memory);
  gates_.load(log_decay, nullptr, rows);
  loaded_ = rows;
}

template <class T>
MatrixRows<const T> ScalarDecays<T>::before(MatrixRows<const T> x, T* room) const {
  if (!decays_) return x;
  for (std::int64_t i = 0; i < rows_; ++i) {
    const T by = gates_.before(i);
    for (std::int64_t c = 0; c < plan_.width; ++c) room[i * plan_.width + c] = by * x.data[i * x.stride + c];
  }
  return {room, plan_.width};
}

template <class T>
MatrixRows<const T> ScalarDecays<T>::after(MatrixRows<const T> x, T* room) const {
  if (!decays_) return x;
  for (std::int64_t i = 0; i < rows_; ++i) {
    const T by = gates_.after(i);
    for (std::int64_t c = 0; c < plan_.width; ++c) room[i * plan_.width + c] = by * x.data[i * x.stride + c];
  }
  return {room, plan_.width};
}

template <class T>
void ScalarDecays<T>::decay_state(T* state) const {
  if (decays_) scale(state, gates_.before(rows_ - 1), plan_.state_size());
}

template <class T>
void ScalarDecays<T>::pairs(MatrixRows<const T> q, MatrixRows<const T> k, T* pairs) {
  blas::gemm(Transpose::no, Transpose::yes, rows_, rows_, plan_.width, T{1}, q.data, q.stride, k.data, k.stride, T{0},
             pairs, kPairs);
  for (std::int64_t i = 0; i < rows_; ++i) gates_.weigh(i, rows_, false, pairs + i * kPairs);
}

template <class T>
void ScalarDecays<T>::pairs_backward(const T* pairs, T* w, MatrixRows<const T> q, MatrixRows<const T> k, T* gq, T* gk) {
  for (std::int64_t i = 0; i < rows_; ++i) {
    if (slopes_) gates_.add_pairs(i, pairs + i * kPairs, w + i * kPairs, 0, sums_);
    gates_.weigh(i, rows_, false, w + i * kPairs);
  }
  blas::gemm(Transpose::no, Transpose::no, rows_, plan_.width, rows_, T{1}, w, kPairs, k.data, k.stride, T{1}, gq,
             plan_.width);
  blas::gemm(Transpose::yes, Transpose::no, rows_, plan_.width, rows_, T{1}, w, kPairs, q.data, q.stride, T{1}, gk,
             plan_.width);
}

template <class T>
void ScalarDecays<T>::note_before(MatrixRows<const T> x, const T* y) {
  if (!slopes_) return;
  for (std::int64_t i = 0; i < rows_; ++i)
    sums_.begun[static_cast<std::size_t>(i)] += double{dot(row_of(x, i), y + i * plan_.width, plan_.width)};
}

template <class T>
void ScalarDecays<T>::note_after(MatrixRows<const T> x, const T* y) {
  if (!slopes_) return;
  for (std::int64_t i = 0; i < rows_; ++i) {
    const double each{dot(row_of(x, i), y + i * plan_.width, plan_.width)};
    sums_.later[static_cast<std::size_t>(i)] += each;
    crossing_ += each;
  }
}

template <class T>
void ScalarDecays<T>::note_state(const T* state, const T* gradient) {
  if (!slopes_) return;
  double all = 0;
  for (std::int64_t c = 0; c < plan_.width; ++c)
    all += double{dot(state + c * plan_.value_width, gradient + c * plan_.value_width, plan_.value_width)};
  crossing_ += double{gates_.before(rows_ - 1)} * all;
}

template <class T>
void ScalarDecays<T>::slopes(T* gradient, std::int64_t stride) const {
  T all[kPairs];
  gates_.slopes(sums_, crossing_, begins_, all);
  for (std::int64_t i = 0; i < rows_; ++i) gradient[i * stride] = all[i];
}

template <class T, DecayOf kDecayOf>
ChannelDecays<T, kDecayOf>::ChannelDecays(const LinearAttentionPlan<T>& plan, bool slopes)
    : plan_(plan),
      slopes_(slopes),
      width_(plan.decay_width()),
      decay_(kPairs * width_),
      before_(kPairs * width_),
      inner_(kPairs * width_),
      inverse_(kPairs * width_),
      strict_(kPairs * kPairs),
      left_(kBlock * (kPairs / kBlock) * (kPairs / kBlock + 1) / 2 * width_),
      rows_room_(kPairs * width_),
      more_room_(kPairs * width_),
      gradient_room_(kPairs * width_),
      row_room_(width_) {
  if (!slopes) return;
  net_ = Scratch<double>(kPairs * width_);
  later_ = Scratch<double>(kPairs * width_);
  through_ = Scratch<double>(width_);
  sums_ = Scratch<double>(width_);
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::multiply(const T* by, MatrixRows<const T> x, std::int64_t rows, T* to) const {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t c = 0; c < width_; ++c) to[i * width_ + c] = by[i * width_ + c] * x.data[i * x.stride + c];
  }
}

template <class T, DecayOf kDecayOf>
const T* ChannelDecays<T, kDecayOf>::below_diagonal(const T* w, std::int64_t first, std::int64_t rows) {
  for (std::int64_t i = 0; i < rows; ++i) {
    T* to = std::copy_n(w + (first + i) * kPairs + first, i, strict_.data() + i * kPairs);
    std::fill_n(to, rows - i, T{0});
  }
  return strict_.data();
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::load(std::int64_t memory, std::int64_t row, std::int64_t rows, bool begins) {
  rows_ = rows;
  begins_ = begins;
  const auto times = [&](const T* x, const T* y, T* to) {
    for (std::int64_t c = 0; c < width_; ++c) to[c] = without_denormals(x[c] * y[c]);
  };
  for (std::int64_t i = 0; i < rows; ++i) {
    T* decay = decay_.data() + i * width_;
    exp_and_sum(decay, plan_.log_decay.at(row + i, memory), T{1}, T{0}, width_);
    for (std::int64_t c = 0; c < width_; ++c) decay[c] = without_denormals(decay[c]);
    const auto running = [&](T* all, bool first) {
      if (first) {
        std::copy_n(decay, width_, all + i * width_);
      } else {
        times(all + (i - 1) * width_, decay, all + i * width_);
      }
    };
    running(before_.data(), i == 0);
  }
  const auto leaves_enough = [&](const T* x) { return *std::min_element(x, x + width_) >= kGentle<T>; };
  block_ = leaves_enough(before_.data() + (rows - 1) * width_) ? kPairs : kBlock;
  for (std::int64_t i = 0; i < rows && block_ != kPairs; ++i) {
    T* to = inner_.data() + i * width_;
    if (i % kBlock == 0) {
      std::copy_n(decay_.data() + i * width_, width_, to);
    } else {
      times(to - width_, decay_.data() + i * width_, to);
    }
  }
  for (std::int64_t block = 0; block < blocks(); ++block) {
    const std::int64_t first = block * block_ * width_, end = first + block_rows(block) * width_;
    gentle_[static_cast<std::size_t>(block)] = leaves_enough(inner() + end - width_);
    for (std::int64_t e = first; e < end && gentle(block); ++e) inverse_.data()[e] = T{1} / inner()[e];
  }
  for (std::int64_t block = 1; block <= blocks(); ++block) {
    const std::int64_t first = (block - 1) * block_, end = first + block_rows(block - 1);
    T* to = left(block);
    for (std::int64_t j = 0; j < first; ++j)
      times(left(block - 1) + j * width_, inner() + (end - 1) * width_, to + j * width_);
    std::fill_n(to + (end - 1) * width_, width_, T{1});
    for (std::int64_t j = end - 1; j-- > first;)
      times(to + (j + 1) * width_, decay_.data() + (j + 1) * width_, to + j * width_);
  }
  if (!slopes_) return;
  net_.clear();
  later_.clear();
  through_.clear();
}

template <class T, DecayOf kDecayOf>
MatrixRows<const T> ChannelDecays<T, kDecayOf>::before(MatrixRows<const T> x, T* room) const {
  multiply(before_.data(), x, rows_, room);
  return {room, width_};
}

template <class T, DecayOf kDecayOf>
MatrixRows<const T> ChannelDecays<T, kDecayOf>::after(MatrixRows<const T> x, T* room) const {
  multiply(left(blocks()), x, rows_, room);
  return {room, width_};
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::decay_state(T* state) const {
  const T* left = before_.data() + (rows_ - 1) * width_;
  for (std::int64_t c = 0; c < plan_.width; ++c) {
    T* row = state + c * plan_.value_width;
    if constexpr (kOf == DecayOf::keys) {
      scale(row, left[c], plan_.value_width);
    } else {
      for (std::int64_t j = 0; j < plan_.value_width; ++j) row[j] *= left[j];
    }
  }
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::pairs(MatrixRows<const T> x, MatrixRows<const T> y, T* pairs) {
  T *reads = rows_room_.data(), *written = more_room_.data(), *row = row_room_.data();
  multiply(inner(), x, rows_, reads);
  for (std::int64_t block = 0; block < blocks(); ++block) {
    const std::int64_t first = block * block_, end = first + block_rows(block);
    multiply(left(block), y, first, written);
    if (gentle(block))
      multiply(inverse_.data() + first * width_, {row_of(y, first), y.stride}, end - first, written + first * width_);
    blas::gemm(Transpose::no, Transpose::yes, end - first, gentle(block) ? end : first, width_, T{1},
               reads + first * width_, width_, written, width_, T{0}, pairs + first * kPairs, kPairs);
    if (gentle(block)) continue;
    for (std::int64_t j = first; j < end; ++j) {
      std::copy_n(row_of(y, j), width_, row);
      for (std::int64_t i = j; i < end; ++i) {
        if (i > j) multiply(decay_.data() + i * width_, {row, width_}, 1, row);
        pairs[i * kPairs + j] = dot(row_of(x, i), row, width_);
      }
    }
  }
  keep_lower(pairs, rows_);
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::mix_earlier(const T* w, MatrixRows<const T> y) {
  T *room = more_room_.data(), *part = gradient_room_.data(), *row = row_room_.data();
  for (std::int64_t block = 0; block < blocks(); ++block) {
    const std::int64_t first = block * block_, end = first + block_rows(block);
    multiply(left(block), y, first, room);
    blas::gemm(Transpose::no, Transpose::no, end - first, width_, first, T{1}, w + first * kPairs, kPairs, room, width_,
               T{0}, part + first * width_, width_);
    if (gentle(block)) {
      multiply(inverse_.data() + first * width_, {row_of(y, first), y.stride}, end - first, room);
      blas::gemm(Transpose::no, Transpose::no, end - first, width_, end - first, T{1},
                 below_diagonal(w, first, end - first), kPairs, room, width_, T{1}, part + first * width_, width_);
    }
    multiply(inner() + first * width_, {part + first * width_, width_}, end - first, part + first * width_);
    if (gentle(block)) continue;
    for (std::int64_t j = first; j < end; ++j) {
      std::copy_n(row_of(y, j), width_, row);
      for (std::int64_t i = j + 1; i < end; ++i) {
        multiply(decay_.data() + i * width_, {row, width_}, 1, row);
        axpy(part + i * width_, w[i * kPairs + j], row, width_);
      }
    }
  }
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::mix(const T* w, MatrixRows<const T> y, T* to) {
  mix_earlier(w, y);
  for (std::int64_t i = 0; i < rows_; ++i) {
    add_into(to + i * width_, gradient_room_.data() + i * width_, width_);
    axpy(to + i * width_, w[i * kPairs + i], row_of(y, i), width_);
  }
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::pairs_backward(const T*, const T* w, MatrixRows<const T> x, MatrixRows<const T> y,
                                                T* gx, T* gy) {
  // The pairs of a row and itself have no decay: they stay out of the gradients of decays.
  const auto give = [&](const T* part, MatrixRows<const T> of, MatrixRows<const T> other, double sign, T* to) {
    for (std::int64_t i = 0; i < rows_; ++i) {
      if (slopes_) {
        for (std::int64_t c = 0; c < width_; ++c)
          net_.data()[i * width_ + c] += sign * double{row_of(of, i)[c]} * double{part[i * width_ + c]};
      }
      if (to == nullptr) continue;
      add_into(to + i * width_, part + i * width_, width_);
      axpy(to + i * width_, w[i * kPairs + i], row_of(other, i), width_);
    }
  };
  T *room = more_room_.data(), *part = gradient_room_.data(), *row = row_room_.data();
  if (gx != nullptr || slopes_) {
    mix_earlier(w, y);
    give(part, x, y, 1, gx);
  }

  T* reads = rows_room_.data();
  multiply(inner(), x, rows_, reads);
  std::fill_n(part, rows_ * width_, T{0});
  for (std::int64_t block = 0; block < blocks(); ++block) {
    const std::int64_t first = block * block_, end = first + block_rows(block);
    blas::gemm(Transpose::yes, Transpose::no, first, width_, end - first, T{1}, w + first * kPairs, kPairs,
               reads + first * width_, width_, T{0}, room, width_);
    const T* remains = left(block);
    for (std::int64_t e = 0; e < first * width_; ++e) part[e] += remains[e] * room[e];
    if (gentle(block)) {
      T* to = part + first * width_;
      blas::gemm(Transpose::yes, Transpose::no, end - first, width_, end - first, T{1},
                 below_diagonal(w, first, end - first), kPairs, reads + first * width_, width_, T{0}, to, width_);
      multiply(inverse_.data() + first * width_, {to, width_}, end - first, to);
      continue;
    }
    for (std::int64_t j = first; j < end; ++j) {
      std::fill_n(row, width_, T{1});
      for (std::int64_t i = j + 1; i < end; ++i) {
        multiply(decay_.data() + i * width_, {row, width_}, 1, row);
        const T by = w[i * kPairs + j];
        for (std::int64_t c = 0; c < width_; ++c) part[j * width_ + c] += by * row[c] * row_of(x, i)[c];
      }
    }
  }
  give(part, y, x, -1, gy);
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::note_before(MatrixRows<const T> x, const T* y) {
  if (!slopes_) return;
  for (std::int64_t i = 0; i < rows_; ++i) {
    for (std::int64_t c = 0; c < width_; ++c)
      net_.data()[i * width_ + c] += double{row_of(x, i)[c]} * double{y[i * width_ + c]};
  }
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::note_after(MatrixRows<const T> x, const T* y) {
  if (!slopes_) return;
  for (std::int64_t i = 0; i < rows_; ++i) {
    for (std::int64_t c = 0; c < width_; ++c)
      later_.data()[i * width_ + c] += double{row_of(x, i)[c]} * double{y[i * width_ + c]};
  }
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::note_state(const T* state, const T* gradient) {
  if (!slopes_) return;
  const T* left = before_.data() + (rows_ - 1) * width_;
  for (std::int64_t c = 0; c < plan_.width; ++c) {
    const T *kept = state + c * plan_.value_width, *slope = gradient + c * plan_.value_width;
    if constexpr (kOf == DecayOf::keys) {
      through_.data()[c] += double{left[c]} * double{dot(kept, slope, plan_.value_width)};
    } else {
      for (std::int64_t j = 0; j < plan_.value_width; ++j)
        through_.data()[j] += double{left[j]} * double{kept[j]} * double{slope[j]};
    }
  }
}

template <class T, DecayOf kDecayOf>
void ChannelDecays<T, kDecayOf>::slopes(T* gradient, std::int64_t stride) {
  // Row i's decay lies between what came before and what this row and those behind it read of that, net, and between
  // what was written up to here and what comes after the chunk.
  double* sums = sums_.data();
  std::copy_n(through_.data(), width_, sums);
  for (std::int64_t i = rows_; i-- > 0;) add_into(sums, net_.data() + i * width_, width_);
  for (std::int64_t i = 0; i < rows_; ++i) {
    const T* decay = decay_.data() + i * width_;
    const double *net = net_.data() + i * width_, *later = later_.data() + i * width_;
    T* to = gradient + i * stride;
    for (std::int64_t c = 0; c < width_; ++c) {
      to[c] = decay[c] == T{0} ? T{0} : static_cast<T>(sums[c]);
      sums[c] += later[c] - net[c];
    }
    if (begins_ && i == 0) std::fill_n(to, width_, T{0});
  }
}

template <class T>
void sum_over_rows(const T* x, std::int64_t rows, std::int64_t columns, T* to) {
  for (std::int64_t j = 0; j < columns; ++j) {
    double sum = 0;
    for (std::int64_t i = 0; i < rows; ++i) sum += double{x[i * columns + j]};
    to[j] = static_cast<T>(sum);
  }
}

template <class T>
void sum_over_columns(const T* x, std::int64_t rows, std::int64_t columns, T* to) {
  for (std::int64_t i = 0; i < rows; ++i) to[i] = static_cast<T>(sum(x + i * columns, columns));
}

template class ScalarDecays<float>;
template class ScalarDecays<double>;
template class ChannelDecays<float, DecayOf::keys>;
template class ChannelDecays<double, DecayOf::keys>;
template class ChannelDecays<float, DecayOf::values>;
template class ChannelDecays<double, DecayOf::values>;
template void sum_over_rows(const float*, std::int64_t, std::int64_t, float*);
template void sum_over_rows(const double*, std::int64_t, std::int64_t, double*);
template void sum_over_columns(const float*, std::int64_t, std::int64_t, float*);
template void sum_over_columns(const double*, std::int64_t, std::int64_t, double*);

}  // namespace tally::kernels
