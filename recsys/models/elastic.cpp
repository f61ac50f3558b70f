#include "tally/recsys/models/elastic.h"

#include <cmath>
#include <utility>

#include "tally/autograd/tape.h"
#include "tally/nn/attention/dispatcher.h"
#include "tally/nn/initializers.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/recsys/models/sasrec.h"

namespace tally::recsys {
namespace {

/// The options of dispatcher attention, or null for another.
const nn::DispatcherOptions* dispatcher_options(const ElasticOptions& options) {
  const nn::AttentionChoice& attention = options.layers.attention;
  return attention.name() == "dispatcher" ? &attention.options.as<nn::DispatcherOptions>() : nullptr;
}

const nn::DispatcherKind& dispatcher_of(const nn::TransformerBlock& block) {
  const auto* const kind = block.attention.as<nn::DispatcherKind>();
  check<ValueError>(kind != nullptr, "Elastic", "needs dispatcher attention for experts of all layers; got ",
                    block.attention.name());
  return *kind;
}

/// The events before each sequence; where nothing is known of them, there were none.
PackedItems before_of(const Sequences& batch) {
  if (batch.before.items.defined()) return batch.before;
  const std::vector<std::int64_t> none(static_cast<std::size_t>(batch.count()));
  return {Tensor({0}, DType::i32), Offsets::from_lengths(none)};
}

}  // namespace

Var CarriedExperts::operator()(const Var& experts, const Var& gathered) const {
  return norm(experts + output(gathered));
}

Elastic Elastic::make(const ElasticOptions& options, RngKey key) {
  options.check("Elastic");
  SasRecOptions layers = options.layers;
  layers.items = options.items;
  layers.mask = options.causal ? ops::AttentionMask::causal : ops::AttentionMask::bidirectional;
  const nn::DispatcherOptions* const dispatcher = dispatcher_options(options);
  const bool retrieves = options.retrieval.retrieval != Retrieval::none,
             given = retrieves || (dispatcher != nullptr && options.sharing != ExpertSharing::layer);
  if (given) {
    nn::DispatcherOptions without = *dispatcher;
    without.own_experts = false;
    layers.attention.options = without;
  }
  SasRec frame = SasRec::make(layers, key);
  Elastic model{.items = std::move(frame.items),
                .positions = std::move(frame.positions),
                .dropout = frame.dropout,
                .blocks = std::move(frame.blocks),
                .norm = std::move(frame.norm),
                .output = std::move(frame.output),
                .experts = {},
                .retrieval = {},
                .routing = {},
                .carried = {},
                .window = frame.window,
                .alignment = frame.alignment,
                .embeddings = frame.embeddings,
                .causal = options.causal,
                .revive_epochs = options.retrieval.revive_epochs,
                .retrieval_window = retrieves && options.causal ? options.retrieval.events_before : 0};
  if (retrieves && options.retrieval.retrieval == Retrieval::rows &&
      options.retrieval.routing.routing == Routing::codes) {
    model.routing = CodeRouting::make(options.retrieval.routing, dispatcher->experts, layers.width,
                                      dispatcher->deviation, key.fold_in("routing"));
  } else if (retrieves) {
    model.retrieval = InterestRetrieval::make(options.retrieval, dispatcher->experts, layers.width,
                                              options.sharing == ExpertSharing::layer ? layers.blocks : 1,
                                              dispatcher->deviation, key.fold_in("retrieval"));
  } else if (given) {
    model.experts =
        nn::Parameter(nn::normal({dispatcher->experts, layers.width}, dispatcher->deviation, key.fold_in("experts")));
  }
  if (!given || options.sharing != ExpertSharing::carried) return model;
  const nn::LinearOptions square{.in = layers.width, .out = layers.width, .deviation = layers.deviation};
  for (std::int64_t b = 0; b + 1 < layers.blocks; ++b) {
    const RngKey of_layer = key.fold_in("carried").fold_in(static_cast<std::uint64_t>(b));
    model.carried.push_back({.output = nn::Linear::make(square, of_layer.fold_in("output")),
                             .norm = nn::LayerNorm::make({layers.width, layers.epsilon})});
  }
  return model;
}

Var Elastic::item_rows(const Tensor& row_items) const {
  return items(row_items, embeddings.scale(items.table.shape()[1]));
}

Var Elastic::embed(const Tensor& row_items, const Tensor& row_positions, const nn::Context& context) const {
  return dropout(embeddings.embedded(norm, item_rows(row_items) + positions(row_positions)), context);
}

Var Elastic::encode(const Sequences& batch, const nn::Context& context, std::vector<LayerExperts>* seen) const {
  const bool given = experts.defined() || retrieval || routing;
  if (!given && seen == nullptr) return encode_layers(*this, batch, context);
  const nn::Sequence sequence{batch.offsets, batch.times};
  Var x = embed(batch.items, recsys::positions(batch.offsets, window, alignment), context.at("embedding"));
  const PackedItems asking = causal ? before_of(batch) : PackedItems{batch.items, batch.offsets};
  // What came before the window has no position in it.
  const Var asked = retrieval ? retrieval->ask(causal ? item_rows(asking.items) : x, asking.offsets) : Var();
  Var read = experts;
  Tensor slots;
  if (routing) {
    const Tensor rows = [&] {
      const Paused paused;  // codes are of constants
      return item_rows(asking.items).value();
    }();
    read = (*routing)(rows, asking.offsets, context.at("routing"), &slots);
  }
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    if (retrieval && b < retrieval->memories.size()) {
      read = retrieval->experts(asked, b, context.at("retrieval").at(b), &slots);
    }
    const nn::DispatcherKind& dispatcher = dispatcher_of(blocks[b]);
    if (!given) read = dispatcher.experts;
    nn::DispatcherKind::Dispatched dispatched;
    const auto attend = [&](const Var& queries, const Var& source) {
      if (seen != nullptr) seen->push_back({read, queries, source, std::exchange(slots, {})});
      dispatched = dispatcher.dispatch(queries, source, read, sequence);
      return dispatched.output;
    };
    x = blocks[b].around(attend, x, context.at("blocks").at(b));
    if (b < carried.size()) read = carried[b](read, dispatched.experts);
  }
  return finish(x);
}

void Elastic::epoch_begins(std::int64_t epoch, RngKey key) {
  if (retrieval && revive_epochs > 0 && epoch % revive_epochs == 0) retrieval->revive(key);
}

std::vector<Measure> Elastic::measures() const {
  if (routing) return {{"codewords_used", routing->share_used()}, {"codeword_divergence", routing->divergence()}};
  if (!retrieval) return {};
  const MemoryUse use = retrieval->use();
  return {{"memory_read", use.read},
          {"memory_divergence", use.divergence},
          {"memory_query_norm", use.query_norm},
          {"memory_key_norm", use.key_norm}};
}

std::string Elastic::layout() const {
  std::string words = embeddings.layout();
  words += retrieval ? retrieval->layout() : routing ? "experts by codes, " : "";
  if (retrieval_window > 0) words += detail::join("of up to ", retrieval_window, " events before the window, ");
  return words;
}

Elastic Elastic::for_events() const {
  Elastic copy = *this;
  if (!experts.defined()) return copy;
  for (nn::TransformerBlock& block : copy.blocks) {
    nn::DispatcherKind kind = dispatcher_of(block);
    kind.experts = experts;
    block.attention = nn::Attention(block.attention.name(), std::move(kind));
  }
  copy.experts = {};
  return copy;
}

}  // namespace tally::recsys
