#include "tally/autograd/tape.h"

#include <atomic>
#include <limits>
#include <utility>

#include "tally/core/nested_error.h"

namespace tally {
namespace {

thread_local Tape* current_tape = nullptr;

std::uint64_t new_epoch() {
  static std::atomic<std::uint64_t> next{1};
  return next++;
}

/// Where a gradient of a node's input goes: a leaf, an earlier output of the same tape, or nowhere (a constant).
struct Edge {
  enum class Kind : std::uint8_t { none, leaf, slot };
  Kind kind = Kind::none;
  DType dtype = DType::f32;
  std::uint32_t slot = 0;
  LeafId leaf;
  Shape shape;
};

}  // namespace

struct Tape::Node {
  std::unique_ptr<detail::RuleHolder> rule;
  std::uint32_t first_edge = 0;
  std::uint32_t edges = 0;
  std::uint32_t first_slot = 0;
  std::uint32_t slots = 0;
};

struct Tape::State {
  struct Slot {
    Tensor cotangent;
    Shape shape;
    DType dtype = DType::f32;
  };

  std::uint64_t epoch = new_epoch();
  std::vector<Node> nodes;
  std::vector<Edge> edges;
  std::vector<Slot> slots;
  bool consumed = false;
  bool trace = false;
  TapeWatch* watch = nullptr;

  /// Of a node, which has so many inputs and outputs.
  const Edge& edge(std::size_t at, int i) const {
    const Node& node = nodes[at];
    check<AutogradError>(i >= 0 && i < static_cast<int>(node.edges), node.rule->name(), "backward speaks of input ", i,
                         ", and was recorded with ", node.edges);
    return edges[node.first_edge + static_cast<std::uint32_t>(i)];
  }
  Slot& slot(std::size_t at, int k) {
    const Node& node = nodes[at];
    check<AutogradError>(k >= 0 && k < static_cast<int>(node.slots), node.rule->name(), "backward speaks of output ", k,
                         ", and was recorded with ", node.slots);
    return slots[node.first_slot + static_cast<std::uint32_t>(k)];
  }

  void add_to_slot(std::uint32_t slot, Tensor gradient) {
    Tensor& place = slots[slot].cotangent;
    if (!place.defined()) {
      place = std::move(gradient);
    } else {
      place = std::get<Tensor>(add(Gradient(std::move(place)), Gradient(std::move(gradient))));
    }
  }

  void release() {
    nodes.clear();
    edges.clear();
    slots.clear();
    epoch = new_epoch();
  }
};

const Tensor& Saved::get() const {
  check<AutogradError>(tensor_.defined(), "saved tensor", "was not kept; a rule asks for what no needed gradient uses");
  check<AutogradError>(tensor_.version() == version_, "saved tensor", "of shape ", tensor_.shape(), " is at version ",
                       tensor_.version(), ", expected ", version_, ": it was overwritten after the op that needs it");
  return tensor_;
}

bool BackwardContext::needs(int i) const { return tape_.state_->edge(node_, i).kind != Edge::Kind::none; }

int BackwardContext::inputs() const { return static_cast<int>(tape_.state_->nodes[node_].edges); }

bool BackwardContext::has_cotangent(int k) const { return tape_.state_->slot(node_, k).cotangent.defined(); }

const Tensor& BackwardContext::cotangent(int k) {
  Tape::State::Slot& slot = tape_.state_->slot(node_, k);
  if (!slot.cotangent.defined()) {
    slot.cotangent = Tensor::zeros(slot.shape, slot.dtype);
  } else if (!slot.cotangent.is_contiguous()) {
    slot.cotangent = slot.cotangent.contiguous();
  }
  return slot.cotangent;
}

Tensor BackwardContext::take_cotangent(int k) {
  cotangent(k);
  Tensor taken = std::exchange(tape_.state_->slot(node_, k).cotangent, Tensor());
  return taken.unique() ? taken : taken.clone();
}

void BackwardContext::give(int i, Tensor gradient) {
  const Edge& edge = tape_.state_->edge(node_, i);
  if (edge.kind == Edge::Kind::none) return;
  const std::string_view op = tape_.state_->nodes[node_].rule->name();
  check<AutogradError>(gradient.defined(), op, "backward gave input ", i, " of ", edge.dtype, edge.shape,
                       " an undefined tensor for a gradient");
  check<AutogradError>(gradient.shape() == edge.shape && gradient.dtype() == edge.dtype, op, "backward gave input ", i,
                       " of ", edge.dtype, edge.shape, " a gradient of ", gradient.dtype(), gradient.shape());
  check<AutogradError>(!tape_.state_->trace || all_finite(gradient), op,
                       "backward produced a non-finite gradient for input ", i);
  if (edge.kind == Edge::Kind::leaf) {
    gradients_.add(edge.leaf, std::move(gradient));
  } else {
    tape_.state_->add_to_slot(edge.slot, std::move(gradient));
  }
}

void BackwardContext::give(int i, RowGrad gradient) {
  const Edge& edge = tape_.state_->edge(node_, i);
  if (edge.kind != Edge::Kind::leaf) {
    if (edge.kind == Edge::Kind::slot) give(i, gradient.to_dense());
    return;
  }
  const std::string_view op = tape_.state_->nodes[node_].rule->name();
  check<AutogradError>(gradient.shape == edge.shape && gradient.values.dtype() == edge.dtype, op,
                       "backward gave input ", i, " of ", edge.dtype, edge.shape, " a row gradient of ",
                       gradient.values.dtype(), gradient.shape);
  check<AutogradError>(!tape_.state_->trace || all_finite(gradient.values), op,
                       "backward produced a non-finite gradient for input ", i);
  gradients_.add(edge.leaf, std::move(gradient));
}

void BackwardContext::give_leaf(LeafId leaf, Gradient gradient) { gradients_.add(leaf, std::move(gradient)); }

Tape::Tape() : state_(std::make_unique<State>()) {}
Tape::~Tape() = default;
Tape::Tape(Tape&&) noexcept = default;
Tape& Tape::operator=(Tape&&) noexcept = default;

Tape* Tape::current() { return current_tape; }
std::size_t Tape::size() const { return state_->nodes.size(); }
void Tape::trace_non_finite(bool on) { state_->trace = on; }
void Tape::watch(TapeWatch* watch) { state_->watch = watch; }

void Tape::clear() {
  state_->release();
  state_->consumed = false;
}

std::vector<Var> Tape::append(std::unique_ptr<detail::RuleHolder> rule, std::span<const Var* const> inputs,
                              std::vector<Tensor> outputs) {
  State& state = *state_;
  const std::string_view op = rule->name();
  check<AutogradError>(!state.consumed, op,
                       "records on a tape whose backward has run; use a new Tape, or clear() this one");
  constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max();
  check<AutogradError>(state.edges.size() + inputs.size() < kMost && state.slots.size() + outputs.size() < kMost, op,
                       "the tape is full (2^32 edges)");
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Var& input = *inputs[i];
    check<AutogradError>(input.epoch_ == 0 || input.epoch_ == state.epoch, op, "input ", i, " of shape ", input.shape(),
                         " was recorded on another tape, or on one that has ended; detach() it to use its value");
  }
  if (state.trace) {
    for (const Tensor& output : outputs) {
      check<AutogradError>(all_finite(output), op, "produced a non-finite value in its output of shape ",
                           output.shape());
    }
  }
  if (state.watch != nullptr) state.watch->recorded(op, inputs, outputs);
  Node node;
  node.first_edge = static_cast<std::uint32_t>(state.edges.size());
  node.edges = static_cast<std::uint32_t>(inputs.size());
  node.first_slot = static_cast<std::uint32_t>(state.slots.size());
  node.slots = static_cast<std::uint32_t>(outputs.size());
  for (const Var* input : inputs) {
    Edge edge;
    if (input->tracked()) {
      edge.kind = input->is_leaf() ? Edge::Kind::leaf : Edge::Kind::slot;
      edge.slot = input->slot_;
      edge.leaf = input->leaf_;
      edge.dtype = input->dtype();
      edge.shape = input->shape();
    }
    state.edges.push_back(std::move(edge));
  }
  std::vector<Var> recorded;
  recorded.reserve(outputs.size());
  for (Tensor& output : outputs) {
    Var var;
    // Integer outputs (codes, indices) are constants: no gradient can reach them.
    if (is_floating(output.dtype())) {
      var.epoch_ = state.epoch;
      var.slot_ = static_cast<std::uint32_t>(state.slots.size());
    }
    state.slots.push_back({Tensor(), output.shape(), output.dtype()});
    var.value_ = std::move(output);
    recorded.push_back(std::move(var));
  }
  node.rule = std::move(rule);
  state.nodes.push_back(std::move(node));
  return recorded;
}

Gradients Tape::backward(std::span<const Var> outputs, std::span<const Tensor> cotangents) {
  State& state = *state_;
  check<AutogradError>(!state.consumed, "backward",
                       "was already run on this tape and freed it; record the computation again on a new Tape");
  check<AutogradError>(
      current_tape == nullptr || current_tape == this, "backward",
      "runs while another tape records, which would take these gradients for constants: there are no second "
      "derivatives; write the gradient as ops, or say `const Paused paused;` where constants are meant");
  check<AutogradError>(outputs.size() == cotangents.size(), "backward", "needs one cotangent for each of ",
                       outputs.size(), " outputs; got ", cotangents.size());
  Gradients gradients;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Var& output = outputs[i];
    const Tensor& cotangent = cotangents[i];
    check<ShapeError>(cotangent.shape() == output.shape() && cotangent.dtype() == output.dtype(), "backward",
                      "needs a cotangent of ", output.dtype(), output.shape(), " for output ", i, "; got ",
                      cotangent.dtype(), cotangent.shape());
    if (output.is_leaf()) {
      gradients.add(output.leaf_id(), cotangent);
      continue;
    }
    check<AutogradError>(output.epoch_ == state.epoch || output.epoch_ == 0, "backward", "output ", i,
                         " was recorded on another tape, or on one that has ended");
    if (output.epoch_ == state.epoch) state.add_to_slot(output.slot_, cotangent);
  }
  // Whatever happens below, the tape is consumed and holds nothing: an exception in a rule leaves no half state.
  struct Consume {
    State& state;
    ~Consume() {
      state.release();
      state.consumed = true;
    }
  } consume{state};
  const Paused paused;
  if (state.watch != nullptr) state.watch->backward_begins();
  for (std::size_t n = state.nodes.size(); n-- > 0;) {
    Node& node = state.nodes[n];
    bool reached = false;
    for (std::uint32_t k = 0; k < node.slots; ++k) reached |= state.slots[node.first_slot + k].cotangent.defined();
    if (reached) {
      BackwardContext context(*this, n, gradients);
      try {
        node.rule->backward(context);
      } catch (const AutogradError& error) {
        // A rule speaks of its tensors; the reader needs to know which op it was.
        if (std::string_view(error.what()).starts_with("[saved tensor] ")) {
          fail<AutogradError>(node.rule->name(), "saved tensor ", said_by(error));
        }
        throw;
      }
      if (state.watch != nullptr) state.watch->differentiated(node.rule->name());
      for (std::uint32_t k = 0; k < node.slots; ++k) state.slots[node.first_slot + k].cotangent = Tensor();
    }
    node.rule.reset();
  }
  return gradients;
}

Gradients Tape::backward(const Var& loss) {
  check<ShapeError>(loss.defined() && loss.numel() == 1, "backward", "needs a loss with one element; got shape ",
                    loss.shape());
  check<AutogradError>(
      loss.tracked(), "backward",
      "needs a loss that depends on a leaf, computed under a Recording; of a model whose parameters are "
      "all frozen no loss does");
  const Tensor one = Tensor::full(loss.shape(), 1, loss.dtype());
  return backward(std::span(&loss, 1), std::span(&one, 1));
}

Recording::Recording(Tape& tape) : outer_(current_tape) { current_tape = &tape; }
Recording::~Recording() { current_tape = outer_; }

Paused::Paused() : outer_(current_tape) { current_tape = nullptr; }
Paused::~Paused() { current_tape = outer_; }

}  // namespace tally
