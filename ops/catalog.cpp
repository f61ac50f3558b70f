#include "tally/ops/catalog.h"

#include <algorithm>

#include "tally/core/io/json_fields.h"
#include "tally/core/random.h"
#include "tally/ops/entries.h"
#include "tally/ops/sample_coverage.h"

namespace tally::ops {

void Catalog::add(OpEntry entry) {
  check<ValueError>(!contains(entry.name), "catalog", "an op named '", entry.name, "' is there already");
  check<ValueError>(!entry.name.empty() && entry.call && entry.samples && !entry.outputs.empty(), "catalog",
                    "an entry needs a name, a call, samples and outputs; got '", entry.name, "'");
  if (entry.variations) {
    entry.samples = [given = entry] {
      std::vector<OpSample> all = given.samples();
      for (const OpVariations& each : given.variations()) {
        for (OpSample& sample : paired_samples(given, each)) all.push_back(std::move(sample));
      }
      return all;
    };
    entry.variations = nullptr;  // a copy of the entry that is added again must not make them twice
  }
  entries_.push_back(std::move(entry));
}

bool Catalog::contains(std::string_view name) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const OpEntry& entry) { return entry.name == name; });
}

const OpEntry& Catalog::find(std::string_view name) const {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const OpEntry& entry) { return entry.name == name; });
  if (found != entries_.end()) return *found;
  std::vector<std::string> names;
  for (const OpEntry& entry : entries_) names.push_back(entry.name);
  const std::string nearest = nearest_name(name, names);
  fail<ConfigError>("catalog", "no op named '", name, "'", nearest.empty() ? "" : "; did you mean '" + nearest + "'?");
}

const Catalog& standard_catalog() {
  static const Catalog catalog = [] {
    Catalog all;
#define TALLY_ADD(name) entries::add_##name(all);
    TALLY_OP_ENTRIES(TALLY_ADD)
#undef TALLY_ADD
    return all;
  }();
  return catalog;
}

Tensor sample_normal(const Shape& shape, std::uint64_t stream, double deviation) {
  Tensor tensor(shape, DType::f64);
  fill_normal(RngKey{20210527, stream}, tensor, 0, deviation);
  return tensor;
}

Tensor sample_integers(const Shape& shape, std::uint64_t stream, std::int64_t bound) {
  Tensor tensor(shape, DType::i64);
  auto* out = tensor.mutable_data<std::int64_t>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    out[i] = static_cast<std::int64_t>(
        uniform_below(RngKey{20210527, stream}, 0, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(bound)));
  }
  return tensor;
}

}  // namespace tally::ops
