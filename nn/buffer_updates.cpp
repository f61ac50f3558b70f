#include "tally/nn/buffer_updates.h"

#include <iterator>
#include <set>

namespace tally::nn {
namespace {

constexpr const char* kBufferUpdates = "buffer_updates";

void apply_change(const BufferChange& change, bool first) {
  Tensor to = change.buffer;
  const Tensor& amount = change.amount;
  const bool placed = change.places.defined();
  check<ShapeError>((placed ? change.places : to).numel() == amount.numel() && to.is_contiguous() &&
                        amount.is_contiguous() && (!placed || change.places.is_contiguous()),
                    kBufferUpdates, "needs an amount for each ", placed ? "place" : "element of a buffer", "; got ",
                    (placed ? change.places : to).shape(), " and ", amount.shape());
  check<ValueError>(!placed || change.keep == 1, kBufferUpdates, "needs to keep what has no place; got ", change.keep);
  const std::int64_t n = amount.numel();
  const std::int64_t* places = placed ? change.places.data<std::int64_t>() : nullptr;
  for (std::int64_t i = 0; placed && i < n; ++i) {
    check<IndexError>(places[i] >= 0 && places[i] < to.numel(), kBufferUpdates, "needs places in [0, ", to.numel(),
                      "); got ", places[i]);
  }
  const auto at = [&](std::int64_t i) { return placed ? places[i] : i; };
  if (to.dtype() == DType::i64) {
    check<DTypeError>(amount.dtype() == DType::i64 && change.keep == 1 && change.weight == 1, kBufferUpdates,
                      "needs counts to be added to a buffer of i64; got ", amount.dtype(), " times ", change.weight);
    auto* out = to.mutable_data<std::int64_t>();
    const auto* in = amount.data<std::int64_t>();
    for (std::int64_t i = 0; i < n; ++i) out[at(i)] += in[i];
    return;
  }
  const double keep = first ? change.keep : 1;
  dispatch_floating(to.dtype(), kBufferUpdates, [&]<class T>(T) {
    T* out = to.mutable_data<T>();
    const auto mix = [&](const auto* in) {
      for (std::int64_t i = 0; i < n; ++i) {
        T& element = out[at(i)];
        element = static_cast<T>(keep * static_cast<double>(element) + change.weight * static_cast<double>(in[i]));
      }
    };
    if (amount.dtype() == DType::i64) {
      mix(amount.data<std::int64_t>());
    } else {
      mix(amount.data<double>());
    }
  });
}

void apply_means(const BufferMeans& means) {
  Tensor to = means.buffer;
  check<ShapeError>(to.rank() == 3 && means.sums.shape() == to.shape() && means.counts.shape() == to.shape().without(2),
                    kBufferUpdates, "needs a buffer and sums [groups, rows, width] and counts [groups, rows]; got ",
                    to.shape(), ", ", means.sums.shape(), " and ", means.counts.shape());
  const std::int64_t groups = to.dim(0), rows = to.dim(1), width = to.dim(2);
  dispatch_floating(to.dtype(), kBufferUpdates, [&]<class T>(T) {
    const T *count = means.counts.data<T>(), *sum = means.sums.data<T>();
    T* out = to.mutable_data<T>();
    for (std::int64_t group = 0; group < groups; ++group) {
      double total = 0;
      for (std::int64_t row = 0; row < rows; ++row) total += static_cast<double>(count[group * rows + row]);
      const double share = total / (total + static_cast<double>(rows) * means.smoothing);
      for (std::int64_t row = group * rows; row < (group + 1) * rows; ++row) {
        const double smoothed = (static_cast<double>(count[row]) + means.smoothing) * share;
        for (std::int64_t i = row * width; smoothed > 0 && i < (row + 1) * width; ++i) {
          out[i] = static_cast<T>(static_cast<double>(sum[i]) / smoothed);
        }
      }
    }
  });
}

}  // namespace

void BufferUpdates::append(BufferUpdates later) {
  changes.insert(changes.end(), std::make_move_iterator(later.changes.begin()),
                 std::make_move_iterator(later.changes.end()));
  means.insert(means.end(), std::make_move_iterator(later.means.begin()), std::make_move_iterator(later.means.end()));
}

void BufferUpdates::apply() const {
  std::set<const std::byte*> changed, averaged;
  for (const BufferChange& change : changes) apply_change(change, changed.insert(change.buffer.raw_data()).second);
  for (const BufferMeans& mean : means) {
    if (averaged.insert(mean.buffer.raw_data()).second) apply_means(mean);
  }
}

}  // namespace tally::nn
