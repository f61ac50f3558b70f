#pragma once

#include <concepts>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "tally/autograd/gradients.h"
#include "tally/autograd/var.h"

namespace tally {

/// A tensor kept for backward, with the version it had. `get()` throws AutogradError when it was overwritten since.
class Saved {
 public:
  Saved() = default;
  explicit Saved(Tensor tensor) : tensor_(std::move(tensor)), version_(tensor_.version()) {}
  /// Kept only when `needed`: when some gradient that will be asked for uses it.
  Saved(Tensor tensor, bool needed) : Saved(needed ? std::move(tensor) : Tensor()) {}

  bool kept() const { return tensor_.defined(); }
  const Tensor& get() const;

 private:
  Tensor tensor_;
  std::uint64_t version_ = 0;
};

class Tape;

/// What a rule's backward sees: the cotangents of the node's outputs, and where the gradients of its inputs go.
class BackwardContext {
 public:
  /// Is the gradient of input i wanted? False for constants. AutogradError, here and below, where there is no such i.
  bool needs(int i) const;
  int inputs() const;
  /// Did any cotangent reach output k?
  bool has_cotangent(int k = 0) const;
  /// Cotangent of output k, contiguous; zeros when none reached it.
  const Tensor& cotangent(int k = 0);
  /// The same for a rule that overwrites it: a copy unless nobody else holds it.
  Tensor take_cotangent(int k = 0);
  /// Gradient of input i. Ignored unless needs(i). Throws AutogradError when shape or type differ from the input's.
  void give(int i, Tensor gradient);
  void give(int i, RowGrad gradient);
  /// Adds to the gradient of any leaf (recomputation does).
  void give_leaf(LeafId leaf, Gradient gradient);

 private:
  friend class Tape;
  BackwardContext(Tape& tape, std::size_t node, Gradients& gradients)
      : tape_(tape), node_(node), gradients_(gradients) {}

  Tape& tape_;
  std::size_t node_;
  Gradients& gradients_;
};

/// A backward rule: its op's name, what it saved, and how cotangents become gradients. It contains no loop over
/// elements: that is a kernel's business.
template <class R>
concept BackwardRule = std::move_constructible<R> && requires(const R& rule, BackwardContext& context) {
  { R::name } -> std::convertible_to<std::string_view>;
  { rule.backward(context) } -> std::same_as<void>;
};

namespace detail {

/// A rule of any type, as a tape holds it.
struct RuleHolder {
  virtual ~RuleHolder() = default;
  virtual void backward(BackwardContext& context) const = 0;
  virtual std::string_view name() const = 0;
};

template <BackwardRule R>
struct HeldRule final : RuleHolder {
  explicit HeldRule(R held) : rule(std::move(held)) {}
  void backward(BackwardContext& context) const override { rule.backward(context); }
  std::string_view name() const override { return R::name; }
  R rule;
};

}  // namespace detail

/// Told what a tape does, on the thread that does it: for measuring.
class TapeWatch {
 public:
  virtual ~TapeWatch() = default;
  /// An op has computed its outputs, and is recorded.
  virtual void recorded(std::string_view op, std::span<const Var* const> inputs, std::span<const Tensor> outputs) = 0;
  virtual void backward_begins() = 0;
  /// The backward of an op has run.
  virtual void differentiated(std::string_view op) = 0;
};

/// Records what was computed: an append-only list of nodes whose edges are indices. Movable. Backward is one loop from
/// the last node to the first, without recursion; it frees what nodes saved as it passes.
///
/// Nothing is recorded unless a `Recording` makes the tape current on the thread, so inference needs no guard.
class Tape {
 public:
  Tape();
  ~Tape();
  Tape(Tape&&) noexcept;
  Tape& operator=(Tape&&) noexcept;

  /// A new leaf of this tape for a plain tensor.
  Var input(Tensor tensor) { return Var::leaf(std::move(tensor)); }

  /// Gradients of sum_i <cotangents[i], outputs[i]> by every leaf; outputs were recorded here, or are constants or
  /// leaves. Consumes the tape. Throws AutogradError for a second call, and while another tape records.
  Gradients backward(std::span<const Var> outputs, std::span<const Tensor> cotangents);
  /// Gradients of a scalar. Throws ShapeError unless `loss` has one element.
  Gradients backward(const Var& loss);

  /// Number of nodes recorded and not yet consumed.
  std::size_t size() const;
  /// Forgets everything; Vars recorded so far become stale.
  void clear();

  /// While on, every recorded output and every gradient is searched for NaN and infinity; the first is reported as an
  /// AutogradError naming the op that produced it.
  void trace_non_finite(bool on);

  /// Tells `watch`, which must outlive the tape, from now on; null tells nobody.
  void watch(TapeWatch* watch);

  /// The tape that records on this thread, or null.
  static Tape* current();

  /// Appends a node for a rule; `inputs` may hold constants and undefined Vars. Ops call record() below instead.
  std::vector<Var> append(std::unique_ptr<detail::RuleHolder> rule, std::span<const Var* const> inputs,
                          std::vector<Tensor> outputs);

 private:
  friend class BackwardContext;

  struct Node;
  struct State;
  std::unique_ptr<State> state_;
};

/// Makes a tape the current one of this thread for a scope. May be entered again later, on any thread (one at a time).
class Recording {
 public:
  explicit Recording(Tape& tape);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  Tape* outer_;
};

/// Suspends recording on this thread for a scope.
class Paused {
 public:
  Paused();
  ~Paused();
  Paused(const Paused&) = delete;
  Paused& operator=(const Paused&) = delete;

 private:
  Tape* outer_;
};

/// Adds a node to the tape that records on this thread and returns its outputs; constants when none records or when no
/// input is tracked (unless `always`), and the rule is dropped, with what it saved. Throws AutogradError when an input
/// belongs to another tape or to one that has ended.
template <BackwardRule R>
std::vector<Var> record(R rule, std::span<const Var* const> inputs, std::vector<Tensor> outputs, bool always = false) {
  Tape* tape = Tape::current();
  bool tracked = always;
  for (const Var* input : inputs) tracked = tracked || input->tracked();
  if (tape == nullptr || !tracked)
    return {std::make_move_iterator(outputs.begin()), std::make_move_iterator(outputs.end())};
  return tape->append(std::make_unique<detail::HeldRule<R>>(std::move(rule)), inputs, std::move(outputs));
}

/// The same for one output.
template <BackwardRule R>
Var record(R rule, std::initializer_list<const Var*> inputs, Tensor output) {
  std::vector<Tensor> outputs;
  outputs.push_back(std::move(output));
  return std::move(
      record(std::move(rule), std::span<const Var* const>(inputs.begin(), inputs.size()), std::move(outputs))[0]);
}

/// Is a tape recording on this thread, and is any of these tracked? Then a gradient may be asked for.
template <class... Vars>
bool recording(const Vars&... inputs) {
  return Tape::current() != nullptr && (inputs.tracked() || ...);
}

struct DifferentiationOptions {
  bool trace_non_finite = false;  ///< as Tape::trace_non_finite: the op that made the first NaN or infinity is named
};

/// Runs `loss()` on a tape of its own and differentiates it: `auto [value, gradients] = value_and_gradients(...)`.
struct ValueAndGradients {
  Tensor value;
  Gradients gradients;
};
template <class F>
ValueAndGradients value_and_gradients(F&& loss, const DifferentiationOptions& options = {}) {
  Tape tape;
  tape.trace_non_finite(options.trace_non_finite);
  Var value;
  {
    const Recording on(tape);
    value = loss();
  }
  return {value.value(), tape.backward(value)};
}

}  // namespace tally
