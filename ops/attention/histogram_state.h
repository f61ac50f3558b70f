#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tally/core/bytes.h"
#include "tally/core/tensor.h"

namespace tally::ops {

/// What makes one state's counts comparable with another's.
struct HistogramLayout {
  std::int64_t codebooks = 0;
  std::int64_t words = 0;
  std::int64_t window = 0;  ///< only the last `window` events count; 0 for all
  double rate = 0;          ///< counts decay by e^-rate per event; 0 for none
  bool soft = false;        ///< events are assignments (probabilities of codewords) in place of codes
  /// Of the weights that made the codes: a state of another model is refused. The caller's choice of number.
  std::uint64_t fingerprint = 0;

  friend bool operator==(const HistogramLayout&, const HistogramLayout&) = default;
};

/// What a query reads of the parameters: exponentials of the tables, tabulated once, and the values. Shared by all
/// states of a model.
class HistogramReader {
 public:
  /// tables [B, W, W] and values [B * W, D] as histogram_attention() takes them, f32; `scale` 0 for 1 / sqrt(D).
  /// Throws ShapeError, DTypeError; ValueError for elements that are not finite.
  HistogramReader(const Tensor& tables, const Tensor& values, double scale = 0, std::uint64_t fingerprint = 0);

  std::int64_t codebooks() const { return tables_.dim(0); }
  std::int64_t words() const { return tables_.dim(1); }
  std::int64_t width() const { return values_.dim(1); }
  std::uint64_t fingerprint() const { return fingerprint_; }

 private:
  friend class HistogramState;
  Tensor tables_, exponentials_, values_;  // exponentials [B, W, padded]
  double scale_;
  std::uint64_t fingerprint_;
};

/// The recurrent form of histogram_attention(): the tally of one sequence's events. An event costs O(B W) (O(B) without
/// decay) and a query O(B W D), however long the history. A plain value: copy it, compare it, save it.
///
/// Counts of codes without decay are whole numbers of 32 bits, and states of any order of the same events are equal.
/// Decayed and soft counts are doubles; those of a window keep a whole number beside them, so that a codeword that has
/// left the window counts exactly nothing. A window keeps the codes of its events.
class HistogramState {
 public:
  /// Empty. Throws ValueError for a layout without codebooks or codewords, with a window below 0 or of soft events, or
  /// with a rate that is negative or not finite.
  explicit HistogramState(const HistogramLayout& layout);

  const HistogramLayout& layout() const { return layout_; }
  /// Number of events ever appended, removed ones not counted.
  std::int64_t events() const { return events_; }
  /// Number of events that count.
  std::int64_t size() const;
  /// Tally of a codeword.
  double count(std::int64_t codebook, std::int64_t word) const;
  /// Memory of this value, heap included.
  std::size_t bytes() const;

  /// Tallies an event of codes [B]. Throws ShapeError; IndexError for a code outside [0, W); ValueError when the count
  /// of a codeword would not fit 32 bits, or a soft layout.
  void append(std::span<const std::int32_t> codes);
  /// Tallies an event of assignments [B * W]. Throws ShapeError; ValueError for a layout that is not soft, or for an
  /// assignment that is negative or not finite.
  void append_soft(std::span<const float> assignments);
  /// Takes an event of codes back. Only without decay and window: throws ValueError else, and when no such event can
  /// have been appended (a count is 0).
  void remove(std::span<const std::int32_t> codes);
  /// Adds the events of another state, which came `gap` events before this one's last event (without decay: whenever).
  /// Throws ValueError for another layout, a window, a negative gap, or when nothing at all would count after it: the
  /// other's events have decayed away. Nothing changes then.
  void merge(const HistogramState& other, std::int64_t gap = 0);

  /// out [D] = what histogram_attention() gives for a row of codes [B] whose sight is this tally: append the event
  /// before, and its own row is included. Throws ShapeError, IndexError; ValueError for a reader of another layout or
  /// fingerprint, or when nothing was appended or counts any more.
  void query(std::span<const std::int32_t> codes, const HistogramReader& reader, std::span<float> out) const;

  /// The same for a row of soft assignments [B * W] whose query is their average of projected codewords
  /// (nn::HistogramSelfAttention's soft queries). O(B W (W + D)).
  void query_soft(std::span<const float> assignments, const HistogramReader& reader, std::span<float> out) const;

  /// The state as bytes of a fixed, little-endian layout with a version.
  std::string save() const;
  /// Throws IoError for bytes that are cut off, damaged, or of another version; ValueError for a state of another
  /// layout or fingerprint than `expected`. Allocates only what `expected` needs.
  static HistogramState load(std::string_view bytes, const HistogramLayout& expected);

  /// The tally alone, for a state that is part of another, whose bytes have a version, an event count and a check of
  /// their own.
  void write(std::string& to) const;
  /// What write() wrote of a state of this layout and number of events. Throws IoError for bytes that are cut off, and
  /// for counts that such events cannot have left.
  static HistogramState read(ByteReader& bytes, const HistogramLayout& layout, std::int64_t events);

  friend bool operator==(const HistogramState&, const HistogramState&) = default;

 private:
  std::size_t place(std::int64_t codebook, std::int64_t word) const {
    return static_cast<std::size_t>(codebook * layout_.words + word);
  }
  void check_codes(std::string_view what, std::span<const std::int32_t> codes) const;
  void check_query(const HistogramReader& reader, std::span<const float> out) const;
  double largest(const std::vector<double>& counts, std::int64_t codebook) const;
  /// What a codebook's counts are multiplied by for a query: more than 1 where all of them are small. It cancels.
  double scale(std::int64_t codebook) const;
  bool whole() const { return layout_.rate == 0 && !layout_.soft; }
  std::size_t code_bytes() const { return layout_.words <= 256 ? 1 : sizeof(std::int32_t); }
  std::int32_t recent(std::int64_t row, std::int64_t codebook) const;
  /// Makes room for the codes of the first `rows` events of the window.
  void grow_recent(std::int64_t rows);
  void set_recent(std::int64_t row, std::int64_t codebook, std::int32_t code);
  bool consistent() const;
  bool needs_counts() const { return whole() || layout_.window > 0; }

  HistogramLayout layout_;
  std::int64_t events_ = 0;
  std::vector<std::uint32_t> counts_;  ///< [B, W]; absent for real counts without a window
  std::vector<double> real_;           ///< [B, W]; absent for codes without decay
  std::vector<std::uint8_t> recent_;   ///< codes [size(), B], event i in row i % window; absent without a window
};

}  // namespace tally::ops
