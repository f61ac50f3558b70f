#include "tally/ops/memory/product_key_memory.h"

#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/embedding_bag.h"
#include "tally/ops/kernels/product_keys.h"
#include "tally/ops/memory/memory_gradients.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/ops/tensor/softmax.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "product_key_memory";

// Backward is written with ops on constants, which record nothing.
Tensor weights_of(const Var& scores, const ProductKeyMemoryOptions& options) {
  if (options.weights == MemoryWeights::sigmoid) return sigmoid(scores).value();
  const double factor = options.weights == MemoryWeights::softmax ? 1 : static_cast<double>(options.slots);
  return (softmax(scores) * factor).value();
}

/// Gradient of scores from that of weights.
Tensor slope_of_scores(const Var& weights, const Var& gradient, const ProductKeyMemoryOptions& options) {
  if (options.weights == MemoryWeights::sigmoid) return (gradient * weights * (1 - weights)).value();
  const double factor = options.weights == MemoryWeights::softmax ? 1 : static_cast<double>(options.slots);
  const Var mean = sum(weights * gradient, {.dims = {-1}, .keepdims = true}) * (1 / factor);
  return (weights * (gradient - mean)).value();
}

/// What multiplies the rows that were read.
Var gate_factor(const Var& logits, MemoryGate gate) {
  return gate == MemoryGate::scalar ? sigmoid(logits) : silu(logits);
}

/// Its derivative.
Var gate_slope(const Var& logits, MemoryGate gate) {
  const Var s = sigmoid(logits);
  return gate == MemoryGate::scalar ? s * (1 - s) : s * (1 + logits * (1 - s));
}

struct ProductKeyMemoryRule {
  static constexpr std::string_view name = kName;
  ProductKeyMemoryOptions options;
  kernels::ProductKeyPlan choice;
  kernels::BagPlan bags;
  Shape values_shape;
  Saved queries, keys, values, gate, slots, weights, pooled;

  void backward(BackwardContext& g) const {
    Tensor gradient = g.cotangent(0);
    if (options.gate != MemoryGate::none) {
      const Var logits = gate.get(), whole = gradient;
      if (g.needs(3)) {
        Var read = whole * Var(pooled.get());
        if (options.gate == MemoryGate::scalar) read = sum(read, {.dims = {-1}, .keepdims = true});
        g.give(3, (read * gate_slope(logits, options.gate)).value());
      }
      gradient = (whole * gate_factor(logits, options.gate)).value();
    }
    if (g.needs(2)) g.give(2, detail::bag_gradient(bags, slots.get(), weights.get(), gradient, values_shape));
    if (!g.needs(0) && !g.needs(1)) return;
    Tensor of_weights(weights.get().shape(), gradient.dtype());
    dispatch_floating(gradient.dtype(), name, [&]<class T>(T) {
      kernels::bag_weights_backward(bags, values.get().data<T>(), slots.get().data<std::int64_t>(), gradient.data<T>(),
                                    of_weights.mutable_data<T>());
    });
    const Var all = Var(of_weights) + Var(g.cotangent(1));
    detail::give_product_keys(g, choice, queries.get(), keys.get(), slots.get(),
                              slope_of_scores(weights.get(), all, options));
  }
};

void check_call(const Var& queries, const Var& keys, const Var& values, const Var& gate,
                const ProductKeyMemoryOptions& options) {
  check<ShapeError>(keys.rank() == 4 && values.rank() == 2 && values.dim(0) == keys.dim(2) * keys.dim(2), kName,
                    "needs keys [heads, 2, n, w] and values [n^2, D]; got ", keys.shape(), " and ", values.shape());
  check<DTypeError>(values.dtype() == keys.dtype() && (!gate.defined() || gate.dtype() == keys.dtype()), kName,
                    "needs all inputs of one type, ", keys.dtype(), "; got values ", values.dtype());
  check<ValueError>(gate.defined() == (options.gate != MemoryGate::none), kName,
                    options.gate == MemoryGate::none ? "needs no gate logits without a gate; got some"
                                                     : "needs gate logits; got none");
  check<ValueError>(options.gate == MemoryGate::none || options.output == MemoryOutput::pooled, kName,
                    "needs pooled output for a gate; got separate rows");
  if (!gate.defined()) return;
  const Shape wanted{queries.rank() > 0 ? queries.dim(0) : 0, options.gate == MemoryGate::scalar ? 1 : values.dim(1)};
  check<ShapeError>(gate.shape() == wanted, kName, "needs gate logits ", wanted, "; got ", gate.shape());
}

}  // namespace

ProductKeyMemoryResult product_key_memory(const Var& queries, const Var& keys, const Var& values, const Var& gate,
                                          const ProductKeyMemoryOptions& options) {
  check_call(queries, keys, values, gate, options);
  const Tensor q = queries.value().contiguous(), c = keys.value().contiguous(), table = values.value().contiguous();
  const ProductKeyChoice choice = product_keys(q, c, {options.heads, options.slots});
  const Tensor weights = weights_of(choice.scores, options).contiguous();
  const std::int64_t rows = q.dim(0), chosen = options.heads * options.slots, width = table.dim(1);
  const bool separate = options.output == MemoryOutput::rows;
  // Separate rows are sums of one.
  const kernels::BagPlan bags{separate ? rows * chosen : rows, separate ? 1 : chosen, width};
  Tensor read(separate ? Shape{rows, chosen, width} : Shape{rows, width}, table.dtype());
  dispatch_floating(table.dtype(), kName, [&]<class T>(T) {
    kernels::sum_bags(bags, table.data<T>(), choice.slots.data<std::int64_t>(), weights.data<T>(),
                      read.mutable_data<T>());
  });
  const Tensor logits = gate.defined() ? gate.value().contiguous() : Tensor();
  const Tensor output = gate.defined() ? (Var(read) * gate_factor(logits, options.gate)).value() : read;
  const kernels::ProductKeyPlan plan{rows, options.heads, c.dim(2), c.dim(3), options.slots};
  ProductKeyMemoryRule rule{options,
                            plan,
                            bags,
                            values.shape(),
                            Saved(q),
                            Saved(c),
                            Saved(table),
                            Saved(logits, gate.defined()),
                            Saved(choice.slots),
                            Saved(weights),
                            Saved(read, gate.defined())};
  const Var* inputs[] = {&queries, &keys, &values, &gate};
  std::vector<Var> outputs = record(std::move(rule), inputs, {output, weights});
  return {std::move(outputs[0]), std::move(outputs[1]), choice.slots};
}

namespace {

/// One of the words of an option, in the order of its values.
template <class Enum, std::size_t count>
Enum word_of(const OpOptions& options, const std::string& name, const std::string (&words)[count]) {
  const std::string word = options.text(name, words[0]);
  for (std::size_t i = 0; i < count; ++i) {
    if (word == words[i]) return static_cast<Enum>(i);
  }
  std::string all;
  for (const std::string& each : words) all += (all.empty() ? "'" : ", '") + each + "'";
  fail<ConfigError>("option", "'", name, "' needs one of ", all, "; got '", word, "'");
}

ProductKeyMemoryOptions options_of(const OpOptions& options) {
  return {.heads = options.integer("heads", 1),
          .slots = options.integer("slots", 32),
          .weights = word_of<MemoryWeights>(options, "weights", {"softmax", "scaled_softmax", "sigmoid"}),
          .gate = word_of<MemoryGate>(options, "gate", {"none", "scalar", "swilu"}),
          .output = word_of<MemoryOutput>(options, "output", {"pooled", "rows"})};
}

std::vector<Tensor> inputs_of(std::int64_t rows, std::int64_t heads, std::int64_t n, std::int64_t width,
                              std::int64_t columns, std::uint64_t stream, std::int64_t gates = 0) {
  return {sample_normal({rows, heads * 2 * width}, stream), sample_normal({heads, 2, n, width}, stream + 1),
          sample_normal({n * n, columns}, stream + 2), gates > 0 ? sample_normal({rows, gates}, stream + 3) : Tensor()};
}

std::vector<OpSample> samples() {
  const auto of = [](std::int64_t heads, std::int64_t slots,
                     std::initializer_list<std::pair<std::string, std::string>> words = {}) {
    OpOptions options{{"heads", heads}, {"slots", slots}};
    for (const auto& [name, word] : words) options.set(name, word);
    return options;
  };
  return {
      {"odd", inputs_of(5, 2, 6, 3, 5, 1), of(2, 4)},
      {"scaled", inputs_of(4, 3, 4, 2, 3, 5), of(3, 5, {{"weights", "scaled_softmax"}})},
      {"sigmoid", inputs_of(4, 1, 5, 2, 3, 9), of(1, 3, {{"weights", "sigmoid"}})},
      {"scalar gate", inputs_of(4, 2, 4, 2, 3, 13, 1), of(2, 3, {{"gate", "scalar"}})},
      {"swilu gate", inputs_of(4, 2, 4, 2, 3, 17, 3), of(2, 3, {{"gate", "swilu"}})},
      {"rows", inputs_of(3, 2, 4, 2, 3, 21), of(2, 3, {{"output", "rows"}})},
      {"rows by sigmoid", inputs_of(3, 1, 4, 2, 3, 25), of(1, 5, {{"output", "rows"}, {"weights", "sigmoid"}})},
      {"one", inputs_of(1, 1, 1, 1, 1, 29), of(1, 1)},
      {"no rows", inputs_of(0, 2, 3, 2, 4, 33), of(2, 4)},
      {"wide", inputs_of(3, 1, 5, 4, 67, 37), of(1, 25)},
  };
}

std::vector<OpError> errors() {
  const OpOptions good{{"heads", std::int64_t{2}}, {"slots", std::int64_t{3}}};
  const auto with = [&](const char* name, OptionValue value) {
    OpOptions options = good;
    options.set(name, std::move(value));
    return options;
  };
  const std::vector<Tensor> inputs = inputs_of(2, 2, 3, 2, 4, 1), gated = inputs_of(2, 2, 3, 2, 4, 1, 1);
  std::vector<Tensor> values = inputs;
  values[2] = sample_normal({8, 4}, 1);
  return {
      {"slots", inputs, with("slots", std::int64_t{10}), "1 <= slots <= 3^2; got 10"},
      {"values", values, good, "values [n^2, D]; got [2, 2, 3, 2] and [8, 4]"},
      {"a gate", gated, good, "needs no gate logits"},
      {"no gate", inputs, with("gate", std::string("scalar")), "needs gate logits; got none"},
      {"no gate of swilu", inputs, with("gate", std::string("swilu")), "needs gate logits; got none"},
      {"shape of the gate", gated, with("gate", std::string("swilu")), "gate logits [2, 4]; got [2, 1]"},
      {"weights", inputs, with("weights", std::string("hard")), "'weights' needs one of 'softmax', 'scaled_softmax'"},
      {"gated rows",
       gated,
       {{"heads", std::int64_t{2}},
        {"slots", std::int64_t{3}},
        {"gate", std::string("scalar")},
        {"output", std::string("rows")}},
       "needs pooled output for a gate"},
      {"rows gated by swilu",
       inputs_of(2, 2, 3, 2, 4, 1, 4),
       {{"heads", std::int64_t{2}},
        {"slots", std::int64_t{3}},
        {"gate", std::string("swilu")},
        {"output", std::string("rows")}},
       "needs pooled output for a gate"},
  };
}

}  // namespace

void entries::add_product_key_memory(Catalog& catalog) {
  OpEntry entry;
  entry.name = kName;
  entry.summary = "Rows of a large table, chosen by product keys and weighted by their scores.";
  entry.inputs = {{"queries", "[T, heads * 2 w]"},
                  {"keys", "[heads, 2, n, w]"},
                  {"values", "[n^2, D]"},
                  {.name = "gate",
                   .shape = "[T, 1] or [T, D]",
                   .kind = InputKind::differentiable,
                   .optional = true,
                   .doc = "logits of the gate"}};
  entry.options = {{"heads", std::int64_t{1}, "number of heads, each with keys of its own"},
                   {"slots", std::int64_t{32}, "chosen by each head for each query"},
                   {"weights", std::string("softmax"), "'softmax', 'scaled_softmax' (times slots) or 'sigmoid'"},
                   {"gate", std::string("none"), "'none', 'scalar' or 'swilu'"},
                   {"output", std::string("pooled"), "'pooled' or 'rows'"}};
  entry.outputs = {{"output", "[T, D] or [T, heads * k, D]"}, {"weights", "[T, heads, k]"}, {"slots", "[T, heads, k]"}};
  entry.call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
    ProductKeyMemoryResult result = product_key_memory(in[0], in[1], in[2], in[3], options_of(options));
    return {std::move(result.output), std::move(result.weights), std::move(result.slots)};
  };
  entry.samples = samples;
  entry.variations = [] {
    // Rows of one column, so that logits of either gate have the same shape.
    const auto of = [](const char* name, std::int64_t heads, std::uint64_t stream) {
      return OpVariations{{name, inputs_of(3, heads, 6, 2, 1, stream, 1), {{"heads", heads}}},
                          {{"slots", {OptionValue{std::int64_t{5}}}},
                           {"weights", {std::string("scaled_softmax"), std::string("sigmoid")}},
                           {"gate", {std::string("scalar"), std::string("swilu")}},
                           {"output", {std::string("rows")}}}};
    };
    return std::vector<OpVariations>{of("one head", 1, 61), of("heads", 2, 71)};
  };
  entry.apart = {{"gate=none", "gate given"},    {"gate=scalar", "gate absent"}, {"gate=swilu", "gate absent"},
                 {"gate=scalar", "output=rows"}, {"gate=swilu", "output=rows"},  {"gate given", "output=rows"}};
  entry.errors = errors;
  entry.large = [] {
    return OpSample{
        "large", inputs_of(1024, 4, 256, 64, 64, 1), {{"heads", std::int64_t{4}}, {"slots", std::int64_t{32}}}};
  };
  catalog.add(std::move(entry));
}

}  // namespace tally::ops
