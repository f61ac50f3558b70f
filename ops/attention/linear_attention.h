#pragma once

#include <cstdint>

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/core/words.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::ops {

/// How a memory S [d, e] goes on by a row's key k, value v, decay a and gain b: the update rules of ONNX's
/// LinearAttention.
enum class UpdateRule : std::uint8_t {
  linear,       ///< S + b k v^T
  gated,        ///< a S + b k v^T
  delta,        ///< S + b k (v - S^T k)^T: what the memory holds at k is moved towards v
  gated_delta,  ///< a S + b k (v - a S^T k)^T: decayed before it is read
};
constexpr auto words(UpdateRule) {
  using W = Word<UpdateRule>;
  return std::array{W{"linear", UpdateRule::linear}, W{"gated", UpdateRule::gated}, W{"delta", UpdateRule::delta},
                    W{"gated_delta", UpdateRule::gated_delta}};
}
constexpr bool decays(UpdateRule rule) { return rule == UpdateRule::gated || rule == UpdateRule::gated_delta; }
constexpr bool corrects(UpdateRule rule) { return rule == UpdateRule::delta || rule == UpdateRule::gated_delta; }

/// Whose channels a decay of each channel belongs to.
enum class DecayAlong : std::uint8_t {
  keys,    ///< diag(a) S: rows of the memory
  values,  ///< S diag(a): its columns; of the rule gated alone
};
constexpr auto words(DecayAlong) {
  using W = Word<DecayAlong>;
  return std::array{W{"keys", DecayAlong::keys}, W{"values", DecayAlong::values}};
}

/// How linear attention is computed: all agree but for rounding.
enum class LinearExecution : std::uint8_t {
  chunked,    ///< matrix products within chunks of 64 rows
  recurrent,  ///< row by row
  naive,      ///< by the definition in double, with every state kept: for small inputs, to compare with
};
constexpr auto words(LinearExecution) {
  using W = Word<LinearExecution>;
  return std::array{W{"chunked", LinearExecution::chunked}, W{"recurrent", LinearExecution::recurrent},
                    W{"naive", LinearExecution::naive}};
}

struct LinearAttentionOptions {
  std::int64_t heads = 1;  ///< of queries
  UpdateRule rule = UpdateRule::linear;
  DecayAlong decay_along = DecayAlong::keys;
  AttentionMask mask = AttentionMask::causal;
  double scale = 0;  ///< of the products; 0 for 1 / sqrt(width of a head)
  LinearExecution execution = LinearExecution::chunked;
  bool final_state = true;  ///< asked for
};

struct LinearAttentionInputs {
  Var q, k, v;
  Var log_decay = {};      ///< of gated rules, and needed there
  Var gain = {};           ///< absent: 1
  Var initial_state = {};  ///< absent: 0
};

struct LinearAttentionResult {
  Var output;       ///< [T, heads * e]
  Var final_state;  ///< [N, memories, d, e]; undefined unless asked for
};

/// Linear attention without a denominator over packed sequences, by an update rule: each of `memories` heads of keys
/// and values goes along its sequence as a matrix S_t [d, e] (UpdateRule), and output row t of a head of queries is
/// scale S_t^T q_t. Heads of queries share memories in groups of neighbours: head h reads memory h / (heads /
/// memories). The semantics are those of ONNX's LinearAttention; with constant decays it is RetNet, with a decay of
/// each key channel GLA, with delta rules DeltaNet (arXiv 2406.06484) and Gated DeltaNet (arXiv 2412.06464); with one
/// of each value channel it is the first pass of gated slot attention, whose second is GLA (arXiv 2409.07146).
///
/// q [T, heads * d]   k [T, memories * d]   v [T, memories * e], f32 or f64; rows may lie any distance apart
/// log_decay [memories] constant, [T, 1], [T, memories], or [T, memories * d] of each key channel, along values
///   [T, memories * e] of each value channel; a = exp(log_decay): at most 0, -infinity for a = 0
/// gain [T, 1] or [T, memories], finite, in [0, 2] for delta rules: 1 for keys of length 1 replaces what they hold
/// initial_state [N, memories, d, e]: of each sequence, as a final state gives it, so that sequences can be cut
/// anywhere offsets [N + 1]: where each sequence begins, and T
///
/// Bidirectional, every row reads the whole sequence's S: by the linear rule alone.
///
/// Time O(T d e), and O(T d e + 64 T (d + e)) in chunks: within one a query meets keys by products, and what came
/// before by S. Decays are running products, exact for a = 0. The errors of delta rules are solved for row after row,
/// with no matrix inverted. Keeps its inputs alone; backward computes states again, those of 128 chunks at a time, and
/// walks back once. A decay of 0 has gradient 0.
///
/// Throws ShapeError with the shapes, DTypeError; ValueError for options that do not fit, and, naming the row, for keys
/// or values that are not finite, a log_decay above 0 or NaN, and a gain out of its range.
LinearAttentionResult linear_attention(const LinearAttentionInputs& inputs, const Offsets& offsets,
                                       const LinearAttentionOptions& options = {});

}  // namespace tally::ops
