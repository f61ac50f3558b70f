#include "tally/nn/readers/fixed_memory.h"

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/lookup/causal_lookup.h"
#include "tally/ops/tensor/softmax.h"

namespace tally::nn {
namespace {

/// (1 - k/K)(1 - t/n) + (k/K)(t/n) of row t of each document, [T, K].
Tensor position_weights(const Offsets& offsets, std::int64_t contexts, DType dtype) {
  std::vector<double> weights;
  for (std::int64_t document = 0; document < offsets.count(); ++document) {
    const auto n = static_cast<double>(offsets.length(document));
    for (std::int64_t t = 1; t <= offsets.length(document); ++t) {
      for (std::int64_t k = 1; k <= contexts; ++k) {
        const double place = static_cast<double>(t) / n, share = static_cast<double>(k) / static_cast<double>(contexts);
        weights.push_back((1 - share) * (1 - place) + share * place);
      }
    }
  }
  return Tensor::from(weights, {offsets.total(), contexts}).to(dtype);
}

}  // namespace

FixedMemoryReader FixedMemoryReader::make(const FixedMemoryOptions& options, std::int64_t width, RngKey key) {
  const LinearOptions to_contexts{.in = width, .out = options.contexts, .bias = false};
  return {.memory = Linear::make(to_contexts, key.fold_in("memory")),
          .read = Linear::make(to_contexts, key.fold_in("read")),
          .positions = options.positions,
          .normalization = options.answers.normalization};
}

Var FixedMemoryReader::operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context&) const {
  Var shares = ops::softmax(memory(rows));
  if (positions) {
    check<ValueError>(queries.dim(0) == 0 || queries_of_whole_documents(lookups).count() > 0, "fixed_memory",
                      "needs lookups at the ends of documents, in their order, for its weights of positions, which "
                      "depend on a document's length");
    shares = shares * Var(position_weights(lookups.offsets, memory.weight.value().dim(0), rows.dtype()));
  }
  const Var contexts =
      ops::causal_lookup(ops::softmax(read(queries)), shares, rows, Var(), Var(), lookups.places, lookups.offsets);
  return normalized(contexts, normalization, lookups);
}

}  // namespace tally::nn
