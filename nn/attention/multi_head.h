#pragma once

#include <string>

#include "tally/nn/attention/attention.h"
#include "tally/nn/layers.h"

namespace tally::nn {

namespace detail {
struct NoState {};
template <class Core>
struct StateOf {
  using Type = NoState;
};
template <class Core>
requires requires { typename Core::State; }
struct StateOf<Core> {
  using Type = typename Core::State;
};
}  // namespace detail

/// Vaswani et al., arXiv 1706.03762, over packed sequences: queries from one tensor of rows [T, width], keys and values
/// from another (often the same), a core between them, and an output projection. A core is a module with
///
///   Var operator()(q, k, v, const Sequence&, const Context&) const;
///   static constexpr bool kSharesQueries;   // keys are the queries: there is no projection of keys, and k is absent
///   std::string layout() const;
///
/// and, if it likes, reads_times(); with a recurrent form, as kinds have it (nn/attention/attention.h), `step(State&,
/// q, k, v, const Event&)`.
template <class Core>
struct MultiHead {
  Linear query, key, value, output;
  Core attention;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("query", self.query);
    visit("key", self.key);
    visit("value", self.value);
    visit("output", self.output);
    visit("attention", self.attention);
  }

  /// Projections of normal initial weights, or Xavier uniform ones for a deviation of 0.
  static MultiHead make(Core core, std::int64_t width, double deviation, RngKey key) {
    const LinearOptions square{.in = width, .out = width, .deviation = deviation};
    Linear keys;
    if (!Core::kSharesQueries) keys = Linear::make(square, key.fold_in("key"));
    return {.query = Linear::make(square, key.fold_in("query")),
            .key = std::move(keys),
            .value = Linear::make(square, key.fold_in("value")),
            .output = Linear::make(square, key.fold_in("output")),
            .attention = std::move(core)};
  }

  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const {
    const Var q = query(queries);
    const Var k = keys_of(source);
    return output(attention(q, k, value(source), sequence, context));
  }

  std::string layout() const { return attention.layout(); }
  bool reads_times() const {
    if constexpr (requires { attention.reads_times(); }) {
      return attention.reads_times();
    } else {
      return false;
    }
  }

  using State = typename detail::StateOf<Core>::Type;
  bool has_state() const {
    if constexpr (requires { attention.has_state(); }) {
      return attention.has_state();
    } else {
      return !std::is_same_v<State, detail::NoState>;
    }
  }
  State initial_state() const requires requires(const Core& core) { core.initial_state(); }
  { return attention.initial_state(); }
  Var step(State& state, const Var& queries, const Var& source, const Event& event) const requires
      requires(const Core& core) {
    core.initial_state();
  }
  {
    const Var q = query(queries);
    const Var k = keys_of(source);
    return output(attention.step(state, q, k, value(source), event));
  }

 private:
  Var keys_of(const Var& source) const { return key.weight.defined() ? key(source) : Var(); }
};

}  // namespace tally::nn
