#include "tally/ops/kernels/outer_sums.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/document_sums.h"
#include "tally/ops/kernels/packed_square.h"
#include "tally/ops/kernels/packed_symmetric.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

constexpr std::int64_t kBlock = 128;  // rows whose products are summed in the element type
constexpr std::int64_t kTile = 64;    // rows of the lower triangle that are one product

/// What is left of each row at its document's end.
template <class T>
class Weights {
 public:
  explicit Weights(const OuterSumsPlan<T>& plan)
      : plan_(plan),
        documents_(static_cast<std::int64_t>(plan.bounds.size()) - 1),
        all_(documents_),
        first_(documents_) {
    if (plan.log_decay != nullptr) left_ = Scratch<double>(plan.bounds.back());
    parallel_for(documents_, 16, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t document = from; document < to; ++document) fill(document);
    });
  }

  std::int64_t documents() const { return documents_; }
  double left(std::int64_t row) const { return left_.absent() ? 1 : left_.data()[row]; }
  T weight(std::int64_t row) const {
    return static_cast<T>(left(row) * (plan_.gain == nullptr ? 1 : static_cast<double>(plan_.gain[row])));
  }
  /// Of what was there before the document.
  double of_initial(std::int64_t document) const { return all_.data()[document]; }
  /// The first row of which something is left.
  std::int64_t first(std::int64_t document) const { return first_.data()[document]; }
  bool trivial() const { return left_.absent() && plan_.gain == nullptr; }

 private:
  void fill(std::int64_t document) {
    const std::int64_t begin = plan_.bounds[static_cast<std::size_t>(document)],
                       end = plan_.bounds[static_cast<std::size_t>(document + 1)];
    double left = 1;
    first_.data()[document] = begin;
    for (std::int64_t row = end - 1; row >= begin && !left_.absent(); --row) {
      left_.data()[row] = left;
      if (left == 0) {
        first_.data()[document] = row + 1;
        break;
      }
      left *= std::exp(static_cast<double>(plan_.log_decay[row]));
      // Denormals would slow down the products that follow.
      if (left < static_cast<double>(std::numeric_limits<T>::min())) left = 0;
    }
    all_.data()[document] = left;
  }

  const OuterSumsPlan<T>& plan_;
  std::int64_t documents_;
  Scratch<double> left_, all_;
  Scratch<std::int64_t> first_;
};

/// to [count, width] = rows from `row` on, by their weights.
template <class T>
void weighted_rows(const OuterSumsPlan<T>& plan, const Weights<T>& weights, std::int64_t row, std::int64_t count,
                   T* to) {
  for (std::int64_t r = 0; r < count; ++r) {
    const T weight = weights.weight(row + r);
    const T* from = plan.rows.data + (row + r) * plan.rows.stride;
    for (std::int64_t i = 0; i < plan.width; ++i) to[r * plan.width + i] = weight * from[i];
  }
}

}  // namespace

template <class T>
void outer_sums_forward(const OuterSumsPlan<T>& plan, T* output) {
  const std::int64_t width = plan.width, size = packed_symmetric_size(width);
  const Weights<T> weights(plan);
  const auto add = [&](std::int64_t document, std::int64_t begin, std::int64_t end, double* sums) {
    begin = std::max(begin, weights.first(document));
    Scratch<T> room(width * width + kBlock * width);
    T *square = room.data(), *weighted = square + width * width;
    for (std::int64_t row = begin; row < end; row += kBlock) {
      const std::int64_t count = std::min(kBlock, end - row);
      const T* rows = plan.rows.data + row * plan.rows.stride;
      const T* left = rows;
      std::int64_t stride = plan.rows.stride;
      if (!weights.trivial()) {
        weighted_rows(plan, weights, row, count, weighted);
        left = weighted;
        stride = width;
      }
      for (std::int64_t i = 0; i < width; i += kTile) {
        const std::int64_t tile = std::min(kTile, width - i);
        blas::gemm(Transpose::yes, Transpose::no, tile, i + tile, count, T{1}, left + i, stride, rows, plan.rows.stride,
                   T{0}, square + i * width, width);
      }
      add_lower(square, width, sums);
    }
  };
  sum_documents(plan.bounds, size, add, [&](std::int64_t document, const double* sums) {
    T* to = output + document * size;
    const double share = weights.of_initial(document);
    for (std::int64_t i = 0; i < size; ++i) {
      const double before =
          plan.initial == nullptr ? 0 : share * static_cast<double>(plan.initial[document * size + i]);
      to[i] = static_cast<T>(before + sums[i]);
    }
  });
}

namespace {

/// dw_t for rows [begin, end) of a document, and their gradients.
template <class T>
void backward_segment(const OuterSumsPlan<T>& plan, const OuterSumsBackward<T>& data, const Weights<T>& weights,
                      std::int64_t document, std::int64_t begin, std::int64_t end, double* slopes) {
  const std::int64_t width = plan.width;
  Scratch<T> room(width * width + kBlock * width);
  T *square = room.data(), *products = square + width * width;
  unpack_with_transpose(data.gradient_output + document * packed_symmetric_size(width), width, square);
  for (std::int64_t row = begin; row < end; row += kBlock) {
    const std::int64_t count = std::min(kBlock, end - row);
    const T* rows = plan.rows.data + row * plan.rows.stride;
    T* to = data.gradient_rows == nullptr ? products : data.gradient_rows + row * width;
    blas::gemm(Transpose::no, Transpose::no, count, width, width, T{1}, rows, plan.rows.stride, square, width, T{0}, to,
               width);
    for (std::int64_t r = 0; r < count; ++r) {
      if (slopes != nullptr)
        slopes[row + r] = 0.5 * static_cast<double>(dot(rows + r * plan.rows.stride, to + r * width, width));
      if (data.gradient_rows != nullptr && !weights.trivial()) scale(to + r * width, weights.weight(row + r), width);
    }
  }
}

/// The gradients of a document's gates, and of what was there before it.
template <class T>
void backward_gates(const OuterSumsPlan<T>& plan, const OuterSumsBackward<T>& data, const Weights<T>& weights,
                    std::int64_t document, const double* slopes) {
  const std::int64_t size = packed_symmetric_size(plan.width),
                     end = plan.bounds[static_cast<std::size_t>(document + 1)];
  const T* gradient = data.gradient_output + document * size;
  const double share = weights.of_initial(document);
  double before = 0;  // what rows before the one at hand have brought about
  if (plan.initial != nullptr && share != 0 && data.gradient_log_decay != nullptr) {
    const T* initial = plan.initial + document * size;
    for (std::int64_t i = 0; i < size; ++i)
      before += static_cast<double>(initial[i]) * static_cast<double>(gradient[i]);
    before *= share;
  }
  for (std::int64_t row = weights.first(document); row < end && slopes != nullptr; ++row) {
    if (data.gradient_gain != nullptr) data.gradient_gain[row] = static_cast<T>(slopes[row] * weights.left(row));
    if (data.gradient_log_decay != nullptr) data.gradient_log_decay[row] = static_cast<T>(before);
    before += static_cast<double>(weights.weight(row)) * slopes[row];
  }
  if (data.gradient_initial != nullptr) {
    for (std::int64_t i = 0; i < size; ++i)
      data.gradient_initial[document * size + i] = static_cast<T>(share * static_cast<double>(gradient[i]));
  }
}

}  // namespace

template <class T>
void outer_sums_backward(const OuterSumsPlan<T>& plan, const OuterSumsBackward<T>& data) {
  const Weights<T> weights(plan);
  Scratch<double> slopes;
  if (data.gradient_log_decay != nullptr || data.gradient_gain != nullptr) slopes = Scratch<double>(plan.bounds.back());
  struct Segment {
    std::int64_t document, begin, end;
  };
  std::vector<Segment> segments;
  for (std::int64_t document = 0; document < weights.documents(); ++document) {
    const std::int64_t end = plan.bounds[static_cast<std::size_t>(document + 1)];
    for (std::int64_t begin = weights.first(document); begin < end; begin += kSegmentRows)
      segments.push_back({document, begin, std::min(begin + kSegmentRows, end)});
  }
  if (data.gradient_rows != nullptr || !slopes.absent()) {
    parallel_for(static_cast<std::int64_t>(segments.size()), 1, [&](std::int64_t i, std::int64_t) {
      const Segment& each = segments[static_cast<std::size_t>(i)];
      backward_segment(plan, data, weights, each.document, each.begin, each.end, slopes.data());
    });
  }
  parallel_for(weights.documents(), 16, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t document = from; document < to; ++document)
      backward_gates(plan, data, weights, document, slopes.data());
  });
}

template void outer_sums_forward(const OuterSumsPlan<float>&, float*);
template void outer_sums_forward(const OuterSumsPlan<double>&, double*);
template void outer_sums_backward(const OuterSumsPlan<float>&, const OuterSumsBackward<float>&);
template void outer_sums_backward(const OuterSumsPlan<double>&, const OuterSumsBackward<double>&);

}  // namespace tally::kernels
