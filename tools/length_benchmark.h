#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tally/core/io/json.h"
#include "tools/length_attentions.h"

// Time and memory of attentions against the length of one sequence, measured so that ratios hold on a machine that
// others use too: a round visits every length and attention once, and what is compared is compared round by round.

namespace tally::tools {

struct LengthOptions {
  std::vector<const LengthAttention*> attentions = {};
  std::vector<std::int64_t> lengths = {};  ///< ascending
  std::int64_t width = 128, codebooks = 8, codewords = 16;
  std::int64_t heads = 1;       ///< of softmax and dispatcher attentions; must divide the width
  int threads = 1;              ///< in use, which is the caller's to set
  bool backward = false;        ///< forward and backward, else forward alone
  double seconds = 3;           ///< spent on an attention at a length, once it has its three timings
  double memory_limit = 2.2e9;  ///< bytes beyond which an attention is not run, its memory computed
};

/// An attention at a length.
struct LengthPoint {
  const LengthAttention* attention = nullptr;
  AttentionSizes sizes;
  std::map<int, double> seconds;  ///< of a call, by round; empty when it was not run. CPU time with one thread
  double bytes = 0;               ///< peak of tensors beyond the inputs, the output among them
  /// Of matrix products: those that the method needs, three times forward's with backward; where no formula says, those
  /// of a run. 0: none, or not run.
  double operations = 0;
  bool measured() const { return !seconds.empty(); }
};

/// Everything measured. Figures of two points are medians of ratios within rounds.
struct LengthResults {
  LengthOptions options;
  std::vector<LengthPoint> points;                      ///< by length, then attention
  std::map<std::int64_t, std::map<int, double>> sgemm;  ///< operations a second, by length and round
  std::vector<double> sgemm_rates() const;              ///< all of them
  const LengthPoint* find(const std::string& attention, std::int64_t length) const;  ///< or null

  /// Median seconds; absent when it was not run, as below.
  std::optional<double> seconds(const LengthPoint* point) const;
  /// How many times longer `a` takes than `b`.
  std::optional<double> time_ratio(const LengthPoint* a, const LengthPoint* b) const;
  /// Of the rate of matrix products, measured before the point's length in every round.
  std::optional<double> sgemm_share(const LengthPoint* point) const;
  /// Everything, points with their medians.
  Json to_json() const;
};

/// Measures. `progress` gets a line after every round of the first kind (all points) and may be empty.
LengthResults measure_lengths(const LengthOptions& options, const std::function<void(const std::string&)>& progress);

/// Writes what the attentions are given at the first length and what they give, for another framework to compute the
/// same: the `cotangent` of their outputs [length, width], and of each attention `NAME.input.I`, `NAME.parameter.PATH`
/// where it is a layer, `NAME.output`, and the gradients `NAME.gradient.input.I` and `NAME.gradient.PATH`.
void write_lengths(const LengthOptions& options, const std::filesystem::path& path);

/// What issue and paper claim of LISA, as sentences with their targets where the setting is theirs: speed over fused
/// softmax, memory below materialised softmax, growth, shortest length from which LISA is never slower, share of sgemm.
std::vector<std::string> length_headlines(const LengthResults& results);

}  // namespace tally::tools
