#pragma once

#include <string>

#include "tally/core/words.h"
#include "tally/nn/memory/product_key_memory.h"
#include "tally/recsys/models/sasrec_options.h"

namespace tally::recsys {

/// Whose the experts of dispatcher attention are.
enum class ExpertSharing {
  layer,    ///< every layer has its own
  shared,   ///< all layers read the same, each through a projection of its own
  carried,  ///< what a layer's experts gathered, added to them and normed, are the next layer's: the paper's P^{i+1}
};
constexpr auto words(ExpertSharing) {
  using W = Word<ExpertSharing>;
  return std::array{W{"layer", ExpertSharing::layer}, W{"shared", ExpertSharing::shared},
                    W{"carried", ExpertSharing::carried}};
}

/// Whether a memory gives a user's experts.
enum class Retrieval {
  none,    ///< experts are the same for all
  rows,    ///< they are rows of the memory, each weighted by its own score
  pooled,  ///< base experts ask, and what each reads is added to it
};
constexpr auto words(Retrieval) {
  using W = Word<Retrieval>;
  return std::array{W{"none", Retrieval::none}, W{"rows", Retrieval::rows}, W{"pooled", Retrieval::pooled}};
}

/// What of a history asks the memory.
enum class QueryPooling {
  mean,         ///< the mean of its rows
  mean_last,    ///< that, and the last row
  multi_scale,  ///< that, and the means of the last 4, 16 and 64
};
constexpr auto words(QueryPooling) {
  using W = Word<QueryPooling>;
  return std::array{W{"mean", QueryPooling::mean}, W{"mean_last", QueryPooling::mean_last},
                    W{"multi_scale", QueryPooling::multi_scale}};
}

/// How rows are chosen.
enum class Routing {
  product_keys,  ///< by scores of a memory's keys
  codes,         ///< by the tally of the codewords of the history: code_routing.h
};
constexpr auto words(Routing) {
  using W = Word<Routing>;
  return std::array{W{"product_keys", Routing::product_keys}, W{"codes", Routing::codes}};
}

struct RoutingOptions {
  Routing routing = Routing::product_keys;
  std::int64_t codebooks = 4;
  std::int64_t codewords = 64;
};

struct RetrievalOptions {
  Retrieval retrieval = Retrieval::none;
  QueryPooling pooling = QueryPooling::multi_scale;
  nn::ProductKeyMemoryOptions memory = {.slots = 8};  ///< k of rows follows from the experts
  std::int64_t revive_epochs = 0;
  RoutingOptions routing = {};
  std::int64_t events_before = 1000;  ///< of the causal model

  static void keys(auto& o, auto&& key) {
    const auto with = [&](std::initializer_list<Retrieval> kinds) {
      return only_with("retrieval", o.retrieval, kinds);
    };
    const bool by_codes = o.retrieval == Retrieval::rows && o.routing.routing == Routing::codes;
    const auto routed = [&](Routing by) { return only_with("routing", o.routing.routing, {by}); };
    const Effect on = by_codes ? routed(Routing::product_keys) : with({Retrieval::rows, Retrieval::pooled}),
                 of_rows = by_codes ? on : with({Retrieval::rows}),
                 of_codes = by_codes ? Effect{} : routed(Routing::codes);
    key("retrieval", o.retrieval,
        "whether a product-key memory gives a user's experts: `rows` of it, each weighted, or what base experts read "
        "of it, `pooled`");
    key("routing", o.routing.routing, with({Retrieval::rows}),
        "how rows are chosen: by `product_keys`, or by `codes`: the most frequent codewords of the history");
    key("routing_codebooks", o.routing.codebooks, at_least(1), of_codes,
        "codebooks that a history's items are quantized by");
    key("routing_codewords", o.routing.codewords, at_least(2), of_codes, "codewords of each codebook");
    key("query_pooling", o.pooling, on,
        "what of a history asks: its `mean`, the last row too, or means of the last "
        "1, 4, 16, 64 and all rows");
    key("memory_sub_keys", o.memory.sub_keys, at_least(1), on, "n: sub-keys of each half; the memory has n^2 slots");
    key("memory_key_size", o.memory.key_width, at_least(2), even(), on, "width of a head's query: two halves");
    key("memory_heads", o.memory.heads, at_least(1), on,
        "heads of retrieval, each with keys of its own; of rows, a divisor of experts");
    key("memory_norm", o.memory.norm, on, "of queries: `layer` norm, or of length 1 as the keys (`unit`)");
    key("memory_weights", o.memory.weights, of_rows,
        "what scores become: `softmax` over a head's, that times their number, or `sigmoid` of each");
    key("memory_slots", o.memory.slots, at_least(1), with({Retrieval::pooled}), "slots that each head reads");
    key("memory_gate", o.memory.gate, with({Retrieval::pooled}), "of what was read: `scalar`, or `swilu` of its width");
    key("memory_query_dropout", o.memory.query_dropout, rate(), on, "dropout of queries");
    key("memory_values_init", o.memory.deviation, at_least(0), on,
        "deviation of the values' initial rows; 0: experts_init of rows, hidden_size^-1/2 of pooled ones");
    key("memory_revive_epochs", o.revive_epochs, at_least(0), on,
        "epochs after which slots that were not read begin anew; 0: never");
  }
};

/// docs/elastic.md has what the paper leaves open, and the reasons for the defaults.
struct ElasticOptions {
  std::int64_t items = 0;
  SasRecOptions layers = {};
  bool causal = true;
  ExpertSharing sharing = ExpertSharing::shared;
  RetrievalOptions retrieval = {};

  static void keys(auto& o, auto&& key) {
    key(o.layers);
    key("mask", o.causal, one_of({"bidirectional", "causal"}),
        "`causal`: rows see what came before, all are trained at once; `bidirectional`: the paper's, which needs "
        "train_samples prefix");
    key("expert_sharing", o.sharing, only_with("attention", o.layers.attention.name(), {"dispatcher"}),
        "experts of each `layer`, `shared` by all, or `carried` from layer to layer (bidirectional only)");
    key(o.retrieval);
    const std::string mask = o.causal ? "causal" : "bidirectional";
    key("retrieval_window", o.retrieval.events_before, at_least(1),
        o.causal ? only_with("retrieval", o.retrieval.retrieval, {Retrieval::rows, Retrieval::pooled})
                 : only_with("mask", mask, {"causal"}),
        "events before the window that choose a causal model's experts, as many as there are of them");
  }
  void check(const std::string& section) const;
};

/// The defaults, with these attentions to choose from.
ElasticOptions elastic_options(const nn::AttentionKinds& attentions = nn::attention_kinds());

}  // namespace tally::recsys
