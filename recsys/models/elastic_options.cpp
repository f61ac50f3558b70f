#include "tally/recsys/models/elastic_options.h"

#include "tally/nn/attention/dispatcher.h"

namespace tally::recsys {

ElasticOptions elastic_options(const nn::AttentionKinds& attentions) {
  return {.layers = {.heads = 2,
                     .attention = {attentions, "dispatcher"},
                     .inner = 256,
                     .hidden_dropout = 0.2,
                     .activation = ops::Activation::gelu,
                     .norm = nn::NormPlacement::pre}};
}

void ElasticOptions::check(const std::string& section) const {
  const nn::AttentionRow& attention = layers.attention.row();
  tally::check<ConfigError>(attention.causal || !causal, section + ".mask", "needs bidirectional with attention ",
                            attention.name, ", which has no causal form");
  tally::check<ConfigError>(!causal || sharing != ExpertSharing::carried, section + ".expert_sharing",
                            "needs mask bidirectional for carried: the experts of a causal layer differ from row to "
                            "row");
  if (retrieval.retrieval == Retrieval::none) return;
  const auto key = [&](const char* name) { return section + '.' + name; };
  tally::check<ConfigError>(attention.name == "dispatcher", key("retrieval"), "needs attention dispatcher; got ",
                            attention.name);
  const nn::ProductKeyMemoryOptions& memory = retrieval.memory;
  const std::int64_t all = checked_multiply(memory.sub_keys, memory.sub_keys),
                     experts = layers.attention.options.as<nn::DispatcherOptions>().experts;
  if (retrieval.retrieval == Retrieval::rows && retrieval.routing.routing == Routing::codes) {
    const std::int64_t codes = checked_multiply(retrieval.routing.codebooks, retrieval.routing.codewords);
    tally::check<ConfigError>(experts <= codes, key("experts"), "needs at most as many as there are codewords, ", codes,
                              "; got ", experts);
  } else if (retrieval.retrieval == Retrieval::rows) {
    tally::check<ConfigError>(experts % memory.heads == 0 && experts / memory.heads <= all, key("experts"),
                              "needs a multiple of memory_heads ", memory.heads, ", at most ", all,
                              " slots for each of them; got ", experts);
  } else {
    tally::check<ConfigError>(memory.slots <= all, key("memory_slots"), "needs at most ", all, " slots; got ",
                              memory.slots);
  }
}

}  // namespace tally::recsys
