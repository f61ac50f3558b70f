#include "tally/recsys/models/interest_retrieval.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tally/nn/initializers.h"
#include "tally/nn/memory/memory_use.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/shape.h"

namespace tally::recsys {
namespace {

/// How many last rows are meaned; 0: all.
std::vector<std::int64_t> scales(QueryPooling pooling) {
  switch (pooling) {
    case QueryPooling::mean:
      return {0};
    case QueryPooling::mean_last:
      return {1, 0};
    case QueryPooling::multi_scale:
      return {1, 4, 16, 64, 0};
  }
  fail<ValueError>("InterestRetrieval", "unknown pooling");
}

}  // namespace

Var mean_of_last(const Var& rows, const Offsets& offsets, std::int64_t most) {
  std::vector<std::int64_t> taken, sequences;
  Tensor shares({offsets.count(), 1}, DType::f64);
  for (std::int64_t i = 0; i < offsets.count(); ++i) {
    const std::int64_t length = offsets.length(i), count = most == 0 ? length : std::min(most, length);
    shares.mutable_data<double>()[i] = count == 0 ? 0 : 1 / static_cast<double>(count);
    for (std::int64_t t = offsets.at(i + 1) - count; t < offsets.at(i + 1); ++t) {
      taken.push_back(t);
      sequences.push_back(i);
    }
  }
  const auto count = static_cast<std::int64_t>(taken.size());
  const Var used = count == rows.dim(0) ? rows : ops::gather(rows, Tensor::from(taken, {count}));
  const Var sums = ops::index_add(Var(Tensor::zeros({offsets.count(), rows.dim(1)}, rows.dtype())),
                                  Tensor::from(sequences, {count}), used);
  return sums * Var(shares.to(rows.dtype()));
}

InterestRetrieval InterestRetrieval::make(const RetrievalOptions& options, std::int64_t experts, std::int64_t width,
                                          std::int64_t layers, double deviation, RngKey key) {
  const bool rows = options.retrieval == Retrieval::rows;
  nn::ProductKeyMemoryOptions memory = options.memory;
  memory.in = memory.width = width;
  memory.own_values = false;
  memory.output = rows ? ops::MemoryOutput::rows : ops::MemoryOutput::pooled;
  if (rows) {
    check<ValueError>(experts % memory.heads == 0, "InterestRetrieval",
                      "needs a number of experts that divides by the memory's heads; got ", experts, " and ",
                      memory.heads);
    memory.slots = experts / memory.heads;
  } else {
    memory.weights = ops::MemoryWeights::softmax;
  }
  // Rows are experts themselves; else they are added to some.
  const double of_values = memory.deviation > 0 ? memory.deviation
                           : rows               ? deviation
                                                : 1 / std::sqrt(static_cast<double>(width));
  const auto pooled = static_cast<std::int64_t>(scales(options.pooling).size()) * width;
  InterestRetrieval retrieval{
      .hidden = nn::Linear::make({.in = pooled, .out = width}, key.fold_in("hidden")),
      .memories = {},
      .values = nn::Parameter(nn::normal({memory.sub_keys * memory.sub_keys, width}, of_values, key.fold_in("values"))),
      .base = {},
      .pooling = options.pooling};
  if (!rows) retrieval.base = nn::Parameter(nn::normal({experts, width}, deviation, key.fold_in("base")));
  for (std::int64_t b = 0; b < layers; ++b) {
    retrieval.memories.push_back(
        nn::ProductKeyMemory::make(memory, key.fold_in("memories").fold_in(static_cast<std::uint64_t>(b))));
  }
  return retrieval;
}

Var InterestRetrieval::ask(const Var& rows, const Offsets& offsets) const {
  std::vector<Var> parts;
  for (const std::int64_t most : scales(pooling)) parts.push_back(mean_of_last(rows, offsets, most));
  return hidden(ops::concat(parts, 1), ops::Activation::gelu);
}

Var InterestRetrieval::experts(const Var& asked, std::size_t layer, const nn::Context& context, Tensor* slots) const {
  const auto read_by = [&](const Var& rows) {
    const ops::ProductKeyMemoryResult result = memories.at(layer)(rows, values, context);
    if (slots != nullptr) *slots = result.slots;
    return result.output;
  };
  if (!base.defined()) return read_by(asked);
  const std::int64_t count = asked.dim(0), k = base.shape()[0], width = base.shape()[1];
  const Var asking = ops::reshape(asked, Shape{count, 1, width}) + ops::reshape(base.var(), Shape{1, k, width});
  const Var read = read_by(ops::reshape(asking, Shape{count * k, width}));
  return ops::reshape(read, Shape{count, k, width}) + base;
}

std::int64_t InterestRetrieval::revive(RngKey key) {
  std::vector<std::int64_t> reads(static_cast<std::size_t>(values.shape()[0]));
  std::int64_t revived = 0;
  for (std::size_t b = 0; b < memories.size(); ++b) {
    const auto of_memory = memories[b].slot_reads.value().span<std::int64_t>();
    std::transform(reads.begin(), reads.end(), of_memory.begin(), reads.begin(), std::plus());
    revived += memories[b].revive(key.fold_in(static_cast<std::uint64_t>(b)));
  }
  return revived + nn::revive_rows(values.mutable_value(), reads, key.fold_in("values"));
}

MemoryUse InterestRetrieval::use() const {
  MemoryUse use;
  const double share = 1 / static_cast<double>(memories.size());
  for (const nn::ProductKeyMemory& memory : memories) {
    use.read += share * nn::share_used(memory.slot_reads.value());
    use.divergence += share * nn::divergence_from_uniform(memory.slot_reads.value());
    use.query_norm += share * memory.mean_query_norm();
    use.key_norm += share * memory.mean_key_norm();
  }
  return use;
}

std::string InterestRetrieval::layout() const {
  const nn::ProductKeyMemory& memory = memories.front();
  return tally::detail::join("experts retrieved ", base.defined() ? "to base ones" : "as rows", " by ",
                             word_of(pooling), ", norm ", word_of(memory.norm), ", weights ",
                             word_of(memory.options.weights), ", gate ", word_of(memory.options.gate), ", ");
}

}  // namespace tally::recsys
