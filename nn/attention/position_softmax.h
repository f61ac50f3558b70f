#pragma once

#include <string>

#include "tally/nn/attention/kind.h"
#include "tally/ops/attention/position_softmax_attention.h"

namespace tally::nn {

/// What kinds over ops::position_softmax_attention remember: a `State` for them.
struct PositionSoftmaxMemory {
  ops::PositionSoftmaxState kept;

  std::size_t heap_bytes() const { return kept.heap_bytes(); }
  void save(std::string& to) const;
  void load(ByteReader& bytes, std::int64_t events);
  /// Takes the row of an event, q [1, heads * d], k [1, key_heads * d] and v [1, key_heads * e] in f32, and gives what
  /// the op gives there [1, heads * e].
  Var step(const Var& q, const Var& k, const Var& v);
};

/// softmax() or log_softmax() of each head's part [d] of rows [T, heads * d].
Var softmax_of_heads(const Var& x, std::int64_t heads);
Var log_softmax_of_heads(const Var& x, std::int64_t heads);

}  // namespace tally::nn
