#pragma once

#include <string>
#include <vector>

#include "tally/core/offsets.h"
#include "tally/nn/memory/product_key_memory.h"
#include "tally/recsys/models/elastic_options.h"

namespace tally::recsys {

/// What a memory has to say of its use in training, for the log.
struct MemoryUse {
  double read = 0;        ///< share of the slots that were read
  double divergence = 0;  ///< of reads from uniform ones: nn::divergence_from_uniform
  double query_norm = 0;  ///< mean length of a head's query; 0 before the first
  double key_norm = 0;    ///< of a sub-key
};

/// Interest memory retrieval (ELASTIC, arXiv 2408.09380; docs/elastic.md): a user's history is pooled and asks a
/// product-key memory for the experts of dispatcher attention, which are rows of its values, each weighted by its
/// score; or base experts, which all ask, each with the history added, and to which what each read is added.
struct InterestRetrieval {
  nn::Linear hidden;                           ///< of the pooled history, before the memories' query networks
  std::vector<nn::ProductKeyMemory> memories;  ///< one, or one for each layer
  nn::Parameter values;                        ///< [slots, width], of all memories
  nn::Parameter base;                          ///< [k, width] of pooled reads; else absent
  QueryPooling pooling = QueryPooling::multi_scale;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("hidden", self.hidden);
    visit("memories", self.memories);
    visit("values", self.values);
    visit("base", self.base);
    visit("pooling", self.pooling);
  }
  /// For k experts [width] of so many layers that ask by themselves. `deviation`: of initial experts.
  static InterestRetrieval make(const RetrievalOptions& options, std::int64_t experts, std::int64_t width,
                                std::int64_t layers, double deviation, RngKey key);

  /// [N, width] of each history, from its rows [T, width]; an empty history is as one row of zeros.
  Var ask(const Var& rows, const Offsets& offsets) const;
  /// Experts [N, k, width] of a layer, for what ask() gave. `slots`, if given, becomes what was read of the memory:
  /// i64.
  Var experts(const Var& asked, std::size_t layer, const nn::Context& context, Tensor* slots = nullptr) const;

  /// Dead slots and sub-keys begin anew: nn::ProductKeyMemory::revive. Returns how many.
  std::int64_t revive(RngKey key);
  /// Since the last revival; means over the memories.
  MemoryUse use() const;
  /// Settings in words that no tensor shows.
  std::string layout() const;
};

/// Means [N, width] of the last rows of each sequence, `most` of them or as many as there are; 0: all. Zeros of none.
Var mean_of_last(const Var& rows, const Offsets& offsets, std::int64_t most);

}  // namespace tally::recsys
