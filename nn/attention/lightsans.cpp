#include "tally/nn/attention/lightsans.h"

#include <cmath>
#include <vector>

#include "tally/nn/initializers.h"
#include "tally/ops/lookup/softmax_lookup.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {

LightSansCore LightSansCore::make(const LightSansOptions& options, const AttentionSettings& settings, RngKey key) {
  check<ValueError>(options.interests >= 1, "lightsans attention", "needs at least one interest; got ",
                    options.interests);
  // Of deviation 1, as in the released code.
  const Shape shape{options.interests, settings.width};
  return {.heads = settings.heads,
          .key_interests = Parameter(normal(shape, 1, key.fold_in("keys"))),
          .value_interests = Parameter(normal(shape, 1, key.fold_in("values")))};
}

Var LightSansCore::operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence,
                              const Context&) const {
  const Offsets& offsets = sequence.offsets;
  const std::int64_t count = key_interests.shape()[0], d = q.dim(1) / heads;
  // Interests of the sequences that have rows, one sequence after the other: each looks at all rows of its sequence,
  // and each row looks at all interests of its sequence.
  std::vector<std::int64_t> interests, last_rows, last_interests, lengths;
  for (std::int64_t i = 0; i < offsets.count(); ++i) {
    const std::int64_t rows = offsets.length(i);
    if (rows == 0) continue;
    for (std::int64_t j = 0; j < count; ++j) interests.push_back(j);
    last_rows.insert(last_rows.end(), static_cast<std::size_t>(count), offsets.at(i + 1) - 1);
    last_interests.insert(last_interests.end(), static_cast<std::size_t>(rows),
                          static_cast<std::int64_t>(interests.size()) - 1);
    lengths.push_back(count);
  }
  const auto all = static_cast<std::int64_t>(interests.size());
  const Tensor repeated = Tensor::from(interests, {all}), rows_of_interests = Tensor::from(last_rows, {all}),
               interests_of_rows = Tensor::from(last_interests, {q.dim(0)});
  const auto gathered = [&](const Parameter& by, const Var& rows) {
    return ops::softmax_lookup(ops::gather(by, repeated), rows, rows, rows_of_interests, offsets);
  };
  const Var keys = gathered(key_interests, k), values = gathered(value_interests, v);
  const Offsets of_interests = Offsets::from_lengths(lengths);
  std::vector<Var> read;
  for (std::int64_t first = 0; first < q.dim(1); first += d) {
    const auto head = [&](const Var& x) { return ops::slice(x, 1, first, first + d); };
    read.push_back(ops::softmax_lookup(head(q), head(keys), head(values), interests_of_rows, of_interests,
                                       {.scale = 1 / std::sqrt(static_cast<double>(d))}));
  }
  return ops::concat(read, 1);
}

std::string LightSansCore::layout() const { return " of " + std::to_string(heads) + " heads"; }

}  // namespace tally::nn
