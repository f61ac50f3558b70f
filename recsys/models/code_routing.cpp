#include "tally/recsys/models/code_routing.h"

#include <algorithm>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/nn/initializers.h"
#include "tally/nn/memory/memory_use.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/embedding.h"

namespace tally::recsys {

FrequentCodes most_frequent(const Tensor& codes, std::int64_t codewords, const Offsets& offsets, std::int64_t k) {
  const std::int64_t books = codes.dim(1), all = books * codewords;
  check<ValueError>(k >= 1 && k <= all, "most_frequent", "needs 1 to ", all, " codewords; got ", k);
  FrequentCodes frequent{Tensor({offsets.count(), k}, DType::i64), Tensor({offsets.count(), k}, DType::f64)};
  const std::vector<double> of_rows = codes.to_doubles();
  std::vector<std::int64_t> order(static_cast<std::size_t>(all));
  for (std::int64_t i = 0; i < offsets.count(); ++i) {
    std::vector<std::int64_t> counts(order.size());
    for (std::int64_t at = offsets.at(i) * books; at < offsets.at(i + 1) * books; ++at) {
      ++counts[static_cast<std::size_t>(at % books * codewords +
                                        static_cast<std::int64_t>(of_rows[static_cast<std::size_t>(at)]))];
    }
    std::iota(order.begin(), order.end(), std::int64_t{0});
    const auto count = [&](std::int64_t slot) { return counts[static_cast<std::size_t>(slot)]; };
    std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](std::int64_t a, std::int64_t b) {
      return count(a) != count(b) ? count(a) > count(b) : a < b;
    });
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int64_t slot = order[static_cast<std::size_t>(j)];
      frequent.slots.mutable_data<std::int64_t>()[i * k + j] = slot;
      frequent.counts.mutable_data<double>()[i * k + j] = static_cast<double>(count(slot));
    }
  }
  return frequent;
}

CodeRouting CodeRouting::make(const RoutingOptions& options, std::int64_t experts, std::int64_t width, double deviation,
                              RngKey key) {
  const std::int64_t all = checked_multiply(options.codebooks, options.codewords);
  check<ValueError>(experts >= 1 && experts <= all, "CodeRouting", "needs 1 to ", all, " experts; got ", experts);
  return {
      .quantizer = nn::VectorQuantizer::make({.codebooks = options.codebooks,
                                              .codewords = options.codewords,
                                              .width = width,
                                              .quantization = {.similarity = ops::CodewordSimilarity::squared_distance},
                                              .count_usage = true,
                                              .averaged = true},
                                             key.fold_in("quantizer")),
      .values = nn::Parameter(nn::normal({all, width}, deviation, key.fold_in("values"))),
      .experts = experts};
}

Var CodeRouting::operator()(const Tensor& rows, const Offsets& offsets, const nn::Context& context,
                            Tensor* slots) const {
  Tensor codes;
  {
    const Paused paused;
    codes = quantizer(Var(rows.to(quantizer.codewords().dtype())), context).codes;
  }
  FrequentCodes frequent = most_frequent(codes, quantizer.options.codewords, offsets, experts);
  // Shares of what was chosen, times their number: rows keep about their size. All are equal before the first event.
  auto* counts = frequent.counts.mutable_data<double>();
  for (std::int64_t i = 0; i < offsets.count(); ++i) {
    double* const of_history = counts + i * experts;
    const double total = std::accumulate(of_history, of_history + experts, 0.0);
    for (std::int64_t j = 0; j < experts; ++j) {
      of_history[j] = total > 0 ? of_history[j] * static_cast<double>(experts) / total : 1;
    }
  }
  if (slots != nullptr) {
    std::vector<std::int64_t> chosen;
    for (std::int64_t i = 0; i < frequent.slots.numel(); ++i) {
      if (counts[i] > 0) chosen.push_back(frequent.slots.data<std::int64_t>()[i]);
    }
    *slots = Tensor::from(chosen, {static_cast<std::int64_t>(chosen.size())});
  }
  const Tensor weights = frequent.counts.reshape(Shape{offsets.count(), experts, 1}).to(values.value().dtype());
  return ops::embedding(values, frequent.slots) * Var(weights);
}

double CodeRouting::share_used() const { return nn::share_used(quantizer.usage.value()); }
double CodeRouting::divergence() const { return nn::divergence_from_uniform(quantizer.usage.value()); }

}  // namespace tally::recsys
