#include "tally/recsys/models/expert_use.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "tally/autograd/tape.h"
#include "tally/nn/attention/dispatcher.h"
#include "tally/nn/memory/memory_use.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {
namespace {

constexpr std::int64_t kHistories = 64;  // encoded together

/// Over log of their number; 1 of one.
double entropy_of(std::span<const double> shares) {
  if (shares.size() < 2) return 1;
  double entropy = 0;
  for (const double share : shares) entropy -= share > 0 ? share * std::log(share) : 0;
  return entropy / std::log(static_cast<double>(shares.size()));
}

/// The mean cosine of two of the rows [k, width]; a row of zeros has none with any.
double mean_cosine(std::span<const double> rows, std::size_t k) {
  if (k < 2) return 0;
  // The square of the sum of unit rows has every pair twice, and the squares of the rows.
  std::vector<double> sum(rows.size() / k);
  double squares = 0;
  for (std::size_t e = 0; e < k; ++e) {
    const auto row = rows.subspan(e * sum.size(), sum.size());
    const double length = std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
    if (length == 0) continue;
    squares += 1;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += row[i] / length;
  }
  const double all = std::inner_product(sum.begin(), sum.end(), sum.begin(), 0.0);
  return (all - squares) / static_cast<double>(k * (k - 1));
}

/// The sum over sets of experts [sets, k, width].
double sum_of_cosines(const Tensor& experts) {
  const std::vector<double> all = experts.to_doubles();
  const auto k = static_cast<std::size_t>(experts.dim(-2)), size = k * static_cast<std::size_t>(experts.dim(-1));
  double sum = 0;
  for (std::size_t first = 0; first < all.size(); first += size) {
    sum += mean_cosine(std::span(all).subspan(first, size), k);
  }
  return sum;
}

/// Adds what these histories read to sums; entropies of reads are means over heads.
void add_layer(LayerExpertUse& use, const nn::DispatcherKind& kind, const LayerExperts& seen,
               const nn::Sequence& sequence) {
  const nn::DispatcherKind::LastRead read = kind.last_read(seen.queries, seen.source, seen.experts, sequence);
  const auto k = static_cast<std::size_t>(read.shares.dim(2));
  const double of_head = 1 / static_cast<double>(read.shares.dim(1));
  use.shares.resize(k);
  const auto shares = read.shares.span<double>();
  for (std::size_t first = 0; first < shares.size(); first += k) {
    const auto of_row = shares.subspan(first, k);
    for (std::size_t e = 0; e < k; ++e) use.shares[e] += of_head * of_row[e];
    use.entropy_of_reads += of_head * entropy_of(of_row);
  }
  const auto histories = static_cast<double>(sequence.offsets.count());
  const double cosines = sum_of_cosines(seen.experts.value());
  use.cosine += seen.experts.value().rank() == 3 ? cosines : cosines * histories;
  use.cosine_gathered += sum_of_cosines(read.gathered);
}

/// Rows that are chosen from; 0 where none are.
std::int64_t rows_to_choose(const Elastic& model) {
  return model.retrieval ? model.retrieval->values.shape()[0] : model.routing ? model.routing->values.shape()[0] : 0;
}

}  // namespace

ExpertUse expert_use(const Elastic& model, const Sequences& histories) {
  const Paused paused;
  const std::size_t tables = model.retrieval ? model.retrieval->memories.size() : model.routing ? 1 : 0;
  std::vector<Tensor> choices;
  for (std::size_t m = 0; m < tables; ++m) choices.push_back(Tensor::zeros({rows_to_choose(model)}, DType::i64));
  ExpertUse use;
  use.layers.resize(model.blocks.size());
  std::vector<std::int64_t> with_rows;
  for (std::int64_t i = 0; i < histories.count(); ++i) {
    if (histories.offsets.length(i) > 0) with_rows.push_back(i);
  }
  use.histories = static_cast<std::int64_t>(with_rows.size());
  check<ValueError>(use.histories > 0, "expert_use", "needs a history that is not empty");
  for (std::int64_t first = 0; first < use.histories; first += kHistories) {
    std::vector<Sequences> parts;
    for (std::int64_t i = first; i < std::min(first + kHistories, use.histories); ++i) {
      const std::int64_t at = with_rows[static_cast<std::size_t>(i)];
      parts.push_back(histories.slice(at, at + 1));
    }
    const Sequences batch = cut_to_window(concatenate(parts), model.window, model.events_before());
    std::vector<LayerExperts> seen;
    model.encode(batch, {}, &seen);
    for (std::size_t b = 0; b < seen.size(); ++b) {
      add_layer(use.layers[b], *model.blocks[b].attention.as<nn::DispatcherKind>(), seen[b],
                {batch.offsets, batch.times});
      if (!seen[b].slots.defined()) continue;
      auto counts = choices.at(b).mutable_span<std::int64_t>();
      for (const std::int64_t slot : seen[b].slots.span<std::int64_t>()) ++counts[static_cast<std::size_t>(slot)];
    }
  }
  const double each = 1 / static_cast<double>(use.histories);
  for (LayerExpertUse& layer : use.layers) {
    for (double& share : layer.shares) share *= each;
    layer.entropy = entropy_of(layer.shares);
    layer.entropy_of_reads *= each;
    layer.cosine *= each;
    layer.cosine_gathered *= each;
  }
  for (const Tensor& counts : choices) {
    use.chosen.push_back({counts.numel(), nn::share_used(counts), nn::divergence_from_uniform(counts)});
  }
  return use;
}

}  // namespace tally::recsys
