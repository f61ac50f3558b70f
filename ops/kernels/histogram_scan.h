#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tally/core/tensor.h"
#include "tally/ops/kernels/histogram_tile.h"

// Tallies along sequences: row t receives sum_j decay^|t - j| y_j over the rows j that it sees. y_j is the one-hot of a
// code (never stored), the softmax of logits, or any dense row: the same scan, turned round, is its own backward.

namespace tally::kernels {

/// Rows of one sequence that are scanned together, cut at the ends of windows.
///
/// A window of k rows is cut at multiples of k from the start of its sequence into blocks, so that what row t sees of
/// the past is the part of its own block up to t and the part of the block before it after t - k. Both are sums from a
/// border outwards: nothing is ever subtracted, so that counts are exact however long the sequence and small the decay.
struct Segment {
  std::int64_t row = 0, rows = 0;
  std::int64_t block_begin = 0, block_end = 0;  ///< rows of its block; the whole sequence without a window
  std::int64_t slot = -1;                       ///< of its sums at borders; -1 where the sequence is one segment
  std::int64_t previous = -1, next = -1;        ///< the segments a window before and after it; -1 for none
  std::int64_t end() const { return row + rows; }
};

/// Consecutive segments whose rows go through the matrix products together.
struct Tile {
  std::int64_t first_segment = 0, end_segment = 0;
  std::int64_t row = 0, rows = 0;
};

/// How sequences are cut: by lengths, window and the tile size only.
struct Cuts {
  std::vector<Segment> segments;
  std::vector<Tile> tiles;
  std::vector<std::int64_t> sequences;  ///< first segment of each sequence that has several, and one past its last
  std::int64_t slots = 0;
  std::int64_t window = 0;
};

/// `window` 0 for none; tiles have at most `tile_rows` rows.
Cuts cut_sequences(std::span<const std::int64_t> bounds, std::int64_t window, std::int64_t tile_rows);

/// What is tallied: exactly one of codes, logits [T, codebooks, words] and dense [T, stride] is given.
template <class T>
struct TallySource {
  CodeRows codes;
  const T* logits = nullptr;
  const T* dense = nullptr;
};

/// Which rows a row sees.
enum class Sight { none, others, inclusive };  ///< others: without the row itself
struct Sights {
  Sight past = Sight::none, future = Sight::none;  ///< never the past of others alone
};

/// Buffers of one task.
template <class T>
struct ScanBuffers {
  std::vector<T> state;             ///< a row of sums
  std::vector<T> rows, other_rows;  ///< assignments of a segment, and of the one a window away
};

/// One scan of all sequences. prepare() must come before counts(); or take() of every segment, as soon as its rows are
/// there, then join().
///
/// With moments every sum has a second half, sum_j |t - j| decay^|t - j| y_j: its derivative by the decay's rate,
/// negated.
template <class T>
class HistogramScan {
 public:
  /// `rate`: decay is e^-rate. `tables` gives sizes.
  HistogramScan(const Cuts& cuts, const CodewordTables<T>& tables, TallySource<T> source, Sights sights, double rate,
                bool moments);

  /// Sums at the borders of segments: in parallel over segments, then from border to border.
  void prepare();
  /// The sums of one segment; segments may be taken in parallel.
  void take(const Segment& segment, ScanBuffers<T>& buffers);
  /// From border to border.
  void join();
  /// out [rows, width()] of a segment: the counts, then the moments.
  void counts(const Segment& segment, T* out, ScanBuffers<T>& buffers) const;
  /// Elements of a row of counts().
  std::int64_t width() const { return moments_ ? 2 * stride_ : stride_; }
  ScanBuffers<T> buffers() const;
  /// The past of a segment's block at its first row, decayed to the row before it; null for nothing.
  const T* before(const Segment& segment) const;
  /// powers()[i] = decay^i for i up to kHistogramTileRows.
  const T* powers() const { return powers_.data(); }

 private:
  /// Sums at borders, [slots, width] each.
  struct Borders {
    Tensor near;          ///< of its own block, from this segment on outwards, decayed to the row next to the segment
    Tensor far;           ///< of its own block beyond the segment the other way, decayed to that end of the block
    T* totals = nullptr;  ///< those of near, which begin as the totals of segments
  };

  double decay_over(std::int64_t rows) const;
  /// Whether a segment's own rows are tallied by tally_back().
  bool tallies_back(const T* dense) const {
    return dense != nullptr && !moments_ && sights_.past == Sight::none && sights_.future == Sight::inclusive;
  }
  const T* dense_rows(std::int64_t row, std::int64_t rows, std::vector<T>& storage) const;
  void add_row(T* sums, const T* dense, std::int64_t row, std::int64_t i, std::int64_t distance) const;
  void add_scaled(T* to, const T* sums, std::int64_t distance) const;
  void step(T* sums) const;
  void total(const Segment& segment, bool past, T* sums, ScanBuffers<T>& buffers) const;
  void carry(std::int64_t first, std::int64_t end, bool past, Borders& borders) const;
  void count_past(const Segment& segment, const T* dense, T* out, ScanBuffers<T>& buffers) const;
  void count_future(const Segment& segment, const T* dense, T* out, ScanBuffers<T>& buffers) const;

  const Cuts& cuts_;
  CodewordTables<T> tables_;
  TallySource<T> source_;
  Sights sights_;
  double rate_;
  bool moments_;
  std::int64_t stride_;
  std::vector<T> powers_;
  Borders past_, future_;
};

}  // namespace tally::kernels
