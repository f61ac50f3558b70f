#include "tally/ops/kernels/histogram_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/core/kernels.h"
#include "tally/core/parallel.h"

namespace tally::kernels {
namespace {

/// Segments of one parallel block.
constexpr std::int64_t kGrain = 8;

template <class T>
T without_denormals(double x) {
  return std::abs(x) < static_cast<double>(std::numeric_limits<T>::min()) ? T{0} : static_cast<T>(x);
}

}  // namespace

Cuts cut_sequences(std::span<const std::int64_t> bounds, std::int64_t window, std::int64_t tile_rows) {
  Cuts cuts;
  cuts.window = window;
  for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
    const std::int64_t begin = bounds[i], length = bounds[i + 1] - begin;
    if (length == 0) continue;
    const std::int64_t block = window > 0 ? std::min(window, length) : length;
    // Segments of nearly equal length.
    const std::int64_t rows = block_count(block, block_count(block, tile_rows));
    const std::int64_t in_block = block_count(block, rows);
    const auto first = static_cast<std::int64_t>(cuts.segments.size());
    for (std::int64_t b = 0; b < length; b += block) {
      const std::int64_t block_end = std::min(b + block, length);
      for (std::int64_t r = b; r < block_end; r += rows) {
        Segment segment;
        segment.row = begin + r;
        segment.rows = std::min(rows, block_end - r);
        segment.block_begin = begin + b;
        segment.block_end = begin + block_end;
        if (b > 0) segment.previous = static_cast<std::int64_t>(cuts.segments.size()) - in_block;
        cuts.segments.push_back(segment);
      }
    }
    const auto end = static_cast<std::int64_t>(cuts.segments.size());
    if (end - first == 1) continue;
    cuts.sequences.push_back(first);
    cuts.sequences.push_back(end);
    for (std::int64_t s = first; s < end; ++s) {
      Segment& segment = cuts.segments[static_cast<std::size_t>(s)];
      segment.slot = cuts.slots++;
      if (segment.block_end < begin + length) segment.next = std::min(s + in_block, end - 1);
    }
  }
  for (std::int64_t s = 0; s < static_cast<std::int64_t>(cuts.segments.size()); ++s) {
    const Segment& segment = cuts.segments[static_cast<std::size_t>(s)];
    if (cuts.tiles.empty() || cuts.tiles.back().rows + segment.rows > tile_rows) {
      cuts.tiles.push_back({s, s, segment.row, 0});
    }
    cuts.tiles.back().end_segment = s + 1;
    cuts.tiles.back().rows += segment.rows;
  }
  return cuts;
}

template <class T>
HistogramScan<T>::HistogramScan(const Cuts& cuts, const CodewordTables<T>& tables, TallySource<T> source, Sights sights,
                                double rate, bool moments)
    : cuts_(cuts),
      tables_(tables),
      source_(source),
      sights_(sights),
      rate_(rate),
      moments_(moments),
      stride_(tables.stride()) {
  for (std::int64_t i = 0; i <= kHistogramTileRows; ++i) powers_.push_back(without_denormals<T>(decay_over(i)));
  const auto allocate = [&](Sight sight, Borders& borders) {
    if (sight == Sight::none || cuts.slots == 0) return;
    borders.near = Tensor({cuts.slots, width()}, dtype_of<T>);
    borders.totals = borders.near.template mutable_data<T>();
    if (cuts.window > 0) borders.far = Tensor({cuts.slots, width()}, dtype_of<T>);
  };
  allocate(sights.past, past_);
  allocate(sights.future, future_);
}

template <class T>
ScanBuffers<T> HistogramScan<T>::buffers() const {
  ScanBuffers<T> result;
  result.state.resize(static_cast<std::size_t>(width()));
  if (source_.logits != nullptr) {
    result.rows.resize(static_cast<std::size_t>(kHistogramTileRows * stride_));
    if (cuts_.window > 0) result.other_rows.resize(result.rows.size());
  }
  return result;
}

template <class T>
double HistogramScan<T>::decay_over(std::int64_t rows) const {
  return std::exp(-rate_ * static_cast<double>(rows));
}

/// Dense rows of the source; null for codes.
template <class T>
const T* HistogramScan<T>::dense_rows(std::int64_t row, std::int64_t rows, std::vector<T>& storage) const {
  if (source_.dense != nullptr) return source_.dense + row * stride_;
  if (source_.logits == nullptr) return nullptr;
  codeword_softmax(tables_, source_.logits + row * tables_.codebooks * tables_.words, rows, storage.data());
  return storage.data();
}

/// Adds a row that lies `distance` rows away: row `row` of the codes, or row i of dense rows.
template <class T>
void HistogramScan<T>::add_row(T* sums, const T* dense, std::int64_t row, std::int64_t i, std::int64_t distance) const {
  const T weight = distance <= kHistogramTileRows ? powers_[static_cast<std::size_t>(distance)]
                                                  : without_denormals<T>(decay_over(distance));
  if (weight == 0) return;
  const T moment = weight * static_cast<T>(distance);
  if (dense != nullptr) {
    axpy(sums, weight, dense + i * stride_, stride_);
    if (moments_ && distance > 0) axpy(sums + stride_, moment, dense + i * stride_, stride_);
    return;
  }
  for (std::int64_t b = 0; b < tables_.codebooks; ++b) {
    T* at = sums + b * tables_.padded + source_.codes.at(row, b);
    *at += weight;
    if (moments_) at[stride_] += moment;
  }
}

/// Adds sums that are `distance` rows away.
template <class T>
void HistogramScan<T>::add_scaled(T* to, const T* sums, std::int64_t distance) const {
  const T weight = without_denormals<T>(decay_over(distance));
  if (weight == 0) return;
  axpy(to, weight, sums, stride_);
  if (!moments_) return;
  axpy(to + stride_, weight, sums + stride_, stride_);
  axpy(to + stride_, weight * static_cast<T>(distance), sums, stride_);
}

/// Moves sums one row further away.
template <class T>
void HistogramScan<T>::step(T* sums) const {
  if (moments_) add_into(sums + stride_, sums, stride_);
  if (rate_ != 0) decay_counts(sums, powers_[1], width());
}

/// Sum over a segment, decayed to its last row (past) or its first.
template <class T>
void HistogramScan<T>::total(const Segment& segment, bool past, T* sums, ScanBuffers<T>& buffers) const {
  const T* dense = dense_rows(segment.row, segment.rows, buffers.rows);
  if (dense != nullptr && !past && !moments_) {
    return sum_weighted_rows(dense, segment.rows, stride_, powers_.data(), sums);
  }
  std::fill_n(sums, width(), T{0});
  for (std::int64_t i = 0; i < segment.rows; ++i) {
    add_row(sums, dense, segment.row + i, i, past ? segment.rows - 1 - i : i);
  }
}

/// From the totals of a sequence's segments, which are in `near`, to the sums at its borders.
template <class T>
void HistogramScan<T>::carry(std::int64_t first, std::int64_t end, bool past, Borders& borders) const {
  T* near = borders.near.template mutable_data<T>();
  T* far = borders.far.defined() ? borders.far.template mutable_data<T>() : nullptr;
  const auto segment = [&](std::int64_t s) -> const Segment& { return cuts_.segments[static_cast<std::size_t>(s)]; };
  const std::int64_t n = width();
  std::vector<double> running(static_cast<std::size_t>(n));
  // Adds the total of a segment, `distance` rows away.
  const auto add = [&](const T* total, std::int64_t distance) {
    const double weight = decay_over(distance);
    for (std::int64_t i = 0; i < stride_; ++i) {
      const auto sum = static_cast<double>(total[i]);
      running[static_cast<std::size_t>(i)] += weight * sum;
      if (moments_) {
        running[static_cast<std::size_t>(stride_ + i)] +=
            weight * (static_cast<double>(total[stride_ + i]) + static_cast<double>(distance) * sum);
      }
    }
  };
  const auto move = [&](std::int64_t distance) {
    const double weight = decay_over(distance);
    for (std::int64_t i = 0; i < stride_; ++i) {
      double& sum = running[static_cast<std::size_t>(i)];
      if (moments_) {
        double& moment = running[static_cast<std::size_t>(stride_ + i)];
        moment = weight * (moment + static_cast<double>(distance) * sum);
      }
      sum *= weight;
    }
  };
  const auto store = [&](T* to) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = without_denormals<T>(running[static_cast<std::size_t>(i)]);
  };
  std::vector<T> total(static_cast<std::size_t>(n));
  for (std::int64_t begin = first; begin < end;) {
    std::int64_t stop = begin + 1;
    while (stop < end && segment(stop).block_begin == segment(begin).block_begin) ++stop;
    const std::int64_t count = stop - begin;
    // Segments of a block in the order in which the scan meets them, or against it.
    const auto visit = [&](bool forward, auto&& body) {
      std::fill(running.begin(), running.end(), 0.0);
      for (std::int64_t i = 0; i < count; ++i) body(segment(forward ? begin + i : stop - 1 - i));
    };
    if (far != nullptr) {
      visit(!past, [&](const Segment& s) {
        store(far + s.slot * n);
        add(near + s.slot * n, past ? s.block_end - s.end() : s.row - s.block_begin);
      });
    }
    visit(past, [&](const Segment& s) {
      std::copy_n(near + s.slot * n, n, total.data());
      store(near + s.slot * n);
      move(s.rows);
      add(total.data(), 0);
    });
    begin = stop;
  }
}

template <class T>
void HistogramScan<T>::take(const Segment& segment, ScanBuffers<T>& buffers) {
  if (segment.slot < 0) return;
  const std::int64_t at = segment.slot * width();
  if (sights_.past != Sight::none) total(segment, true, past_.totals + at, buffers);
  if (sights_.future != Sight::none) total(segment, false, future_.totals + at, buffers);
}

template <class T>
void HistogramScan<T>::join() {
  parallel_for(static_cast<std::int64_t>(cuts_.sequences.size() / 2), 1, [&](std::int64_t i, std::int64_t) {
    const std::int64_t first = cuts_.sequences[static_cast<std::size_t>(2 * i)];
    const std::int64_t end = cuts_.sequences[static_cast<std::size_t>(2 * i + 1)];
    if (sights_.past != Sight::none) carry(first, end, true, past_);
    if (sights_.future != Sight::none) carry(first, end, false, future_);
  });
}

template <class T>
void HistogramScan<T>::prepare() {
  if (cuts_.slots == 0) return;
  parallel_for(static_cast<std::int64_t>(cuts_.segments.size()), kGrain, [&](std::int64_t begin, std::int64_t end) {
    ScanBuffers<T> scratch = buffers();
    for (std::int64_t i = begin; i < end; ++i) take(cuts_.segments[static_cast<std::size_t>(i)], scratch);
  });
  join();
}

template <class T>
const T* HistogramScan<T>::before(const Segment& segment) const {
  if (segment.slot < 0 || segment.row == segment.block_begin) return nullptr;
  return past_.near.template data<T>() + segment.slot * width();
}

template <class T>
void HistogramScan<T>::count_past(const Segment& segment, const T* dense, T* out, ScanBuffers<T>& buffers) const {
  const std::int64_t n = width();
  T* state = buffers.state.data();
  std::fill_n(state, n, T{0});
  const T* near = before(segment);
  for (std::int64_t i = 0; i < segment.rows; ++i) {
    T* row = out + i * n;
    if (i > 0) step(state);
    add_row(state, dense, segment.row + i, i, 0);
    add_into(row, state, n);
    if (near != nullptr) add_scaled(row, near, i + 1);
  }
  if (segment.previous < 0) return;
  const Segment& other = cuts_.segments[static_cast<std::size_t>(segment.previous)];
  const T* rows = dense_rows(other.row, other.rows, buffers.other_rows);
  std::copy_n(past_.far.template data<T>() + other.slot * n, n, state);
  std::int64_t j = other.end() - 1;
  for (std::int64_t i = segment.rows - 1; i >= 0; --i) {
    const std::int64_t t = segment.row + i;
    for (; j > t - cuts_.window; --j) add_row(state, rows, j, j - other.row, other.block_end - 1 - j);
    add_scaled(out + i * n, state, t - (other.block_end - 1));
  }
}

template <class T>
void HistogramScan<T>::count_future(const Segment& segment, const T* dense, T* out, ScanBuffers<T>& buffers) const {
  const std::int64_t n = width();
  T* state = buffers.state.data();
  std::fill_n(state, n, T{0});
  const bool has_near = segment.slot >= 0 && segment.end() < segment.block_end;
  const T* near = has_near ? future_.near.template data<T>() + segment.slot * n : nullptr;
  const bool whole = tallies_back(dense);
  if (whole) tally_back(dense, segment.rows, stride_, near, powers_.data(), out);
  for (std::int64_t i = whole ? -1 : segment.rows - 1; i >= 0; --i) {
    T* row = out + i * n;
    if (i < segment.rows - 1) step(state);
    if (sights_.future == Sight::others) add_into(row, state, n);
    add_row(state, dense, segment.row + i, i, 0);
    if (sights_.future == Sight::inclusive) add_into(row, state, n);
    if (near != nullptr) add_scaled(row, near, segment.rows - i);
  }
  if (segment.next < 0) return;
  const Segment& other = cuts_.segments[static_cast<std::size_t>(segment.next)];
  const T* rows = dense_rows(other.row, other.rows, buffers.other_rows);
  std::copy_n(future_.far.template data<T>() + other.slot * n, n, state);
  std::int64_t j = other.row;
  for (std::int64_t i = 0; i < segment.rows; ++i) {
    const std::int64_t t = segment.row + i;
    for (; j < std::min(t + cuts_.window, other.end()); ++j) {
      add_row(state, rows, j, j - other.row, j - other.block_begin);
    }
    add_scaled(out + i * n, state, other.block_begin - t);
  }
}

template <class T>
void HistogramScan<T>::counts(const Segment& segment, T* out, ScanBuffers<T>& buffers) const {
  const T* dense = dense_rows(segment.row, segment.rows, buffers.rows);
  if (!tallies_back(dense)) std::fill_n(out, segment.rows * width(), T{0});
  if (sights_.past != Sight::none) count_past(segment, dense, out, buffers);
  if (sights_.future != Sight::none) count_future(segment, dense, out, buffers);
}

template class HistogramScan<float>;
template class HistogramScan<double>;

}  // namespace tally::kernels
