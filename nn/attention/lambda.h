#pragma once

#include <string>
#include <vector>

#include "tally/core/options/options.h"
#include "tally/core/words.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/attention/position_softmax.h"
#include "tally/nn/layers.h"

namespace tally::nn {

/// What queries and values of a lambda layer go through.
enum class LambdaNorm {
  rms,   ///< each head's row to a root mean square of 1, then learned weights
  none,  ///< nothing
};
constexpr auto words(LambdaNorm) {
  using W = Word<LambdaNorm>;
  return std::array{W{"rms", LambdaNorm::rms}, W{"none", LambdaNorm::none}};
}

struct LambdaOptions {
  std::int64_t window = 16;
  LambdaNorm norm = LambdaNorm::rms;
  static void keys(auto& o, auto&& key) {
    key("lambda_window", o.window, at_least(1), "rows that a row's position part sees, the row itself among them");
    key("lambda_norm", o.norm,
        "of queries and values: `rms` or `none`; the paper's batch norm would let sequences see each other");
  }
};

/// Lambda layer (Bello, arXiv 2102.08602) in one dimension. All heads of queries share one head of keys and values; of
/// each head
///
///   y_n = q_n^T (sum_m softmax(k)_m v_m^T + sum_(i < r) e_i v_(n - i)^T)
///
/// with a softmax over the visible positions, feature by feature, and learned e [r, d] for the r rows up to n. Both
/// ways, e also has the r - 1 rows after n, [2 r - 1, d] from the latest on. An output projection follows.
struct LambdaKind {
  Linear query, key, value, output;
  RmsNorm query_norm, value_norm;  ///< without weights where there is no norm
  Parameter positions;             ///< e
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("query", self.query);
    visit("key", self.key);
    visit("value", self.value);
    visit("output", self.output);
    visit("query_norm", self.query_norm);
    visit("value_norm", self.value_norm);
    visit("positions", self.positions);
    visit("heads", self.heads);
    visit("mask", self.mask);
  }
  static LambdaKind make(const LambdaOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const;
  std::string layout() const;

  /// What all positions gave, and the last r - 1 values.
  struct State {
    PositionSoftmaxMemory content;
    std::vector<float> values;  ///< [r - 1, d]: that of event i in row i % (r - 1)

    std::size_t heap_bytes() const { return content.heap_bytes() + values.capacity() * sizeof(float); }
    void save(std::string& to) const;
    void load(ByteReader& bytes, std::int64_t events);
  };
  bool has_state() const { return mask == ops::AttentionMask::causal; }
  State initial_state() const;
  Var step(State& state, const Var& query, const Var& source, const Event& event) const;

 private:
  struct Projected {
    Var q, k, v, weights;  ///< weights [T, heads * taps] of the values at the positions seen
  };
  Projected project(const Var& queries, const Var& source) const;
};

}  // namespace tally::nn
