#pragma once

#include <string>
#include <vector>

#include "tally/core/options/options.h"
#include "tally/core/words.h"
#include "tally/nn/attention/attention.h"

namespace tally::nn {

/// What LinRec's keys are divided by.
enum class LinRecKeys {
  token,   ///< the length of each key's head, as in the released code: weights then grow with the history
  column,  ///< the length of each feature's column over the visible rows, as the paper writes it
};
constexpr auto words(LinRecKeys) {
  using W = Word<LinRecKeys>;
  return std::array{W{"token", LinRecKeys::token}, W{"column", LinRecKeys::column}};
}

struct LinRecOptions {
  LinRecKeys keys_by = LinRecKeys::token;
  static void keys(auto& o, auto&& key) {
    key("linrec_keys", o.keys_by,
        "what keys are divided by: the length of each (`token`, the released code) or of each feature over the visible "
        "rows (`column`, the paper)");
  }
};

/// LinRec (Liu et al., SIGIR 2023), a core of MultiHead: linear attention of elu(q) and elu(k), brought to length 1,
/// without a softmax: weights of any sign that do not sum to 1. The released code lets rows see what follows them; here
/// the mask holds, and in the causal form a column's length is that up to the row.
struct LinRecCore {
  static constexpr bool kSharesQueries = false;
  std::int64_t width = 0;  ///< of queries, keys and values, all heads together
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  LinRecKeys keys_by = LinRecKeys::token;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("width", self.width);
    visit("heads", self.heads);
    visit("mask", self.mask);
    visit("keys_by", self.keys_by);
  }
  static LinRecCore make(const LinRecOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const;

  /// Sums over all events, in double: their size does not depend on the history's length.
  struct State {
    std::vector<double> products;  ///< [heads, d, d] of k v^T
    std::vector<double> squares;   ///< [heads * d] of the keys' features

    std::size_t heap_bytes() const { return (products.capacity() + squares.capacity()) * sizeof(double); }
    void save(std::string& to) const;
    void load(ByteReader& bytes, std::int64_t events);
  };
  bool has_state() const { return mask == ops::AttentionMask::causal; }
  State initial_state() const;
  Var step(State& state, const Var& q, const Var& k, const Var& v, const Event& event) const;
};

}  // namespace tally::nn
