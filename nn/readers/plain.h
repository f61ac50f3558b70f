#pragma once

#include "tally/core/options/option_tables.h"
#include "tally/nn/readers/kind.h"

namespace tally::nn {

/// R = h at the query's place, whatever the query: reading without attention. What a document says must all be in its
/// encoder's last state.
struct StateReader {
  static constexpr void fields(auto&, auto&&) {}
  static StateReader make(const NoOptions&, std::int64_t, RngKey) { return {}; }
  Var operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const;
};

struct SoftmaxReaderOptions {
  double scale = 1;
  static void keys(auto& o, auto&& key) {
    key("softmax_scale", o.scale, above(0), "factor of the products of query and rows; the paper has 1");
  }
};

/// R = H^T softmax(scale H q), the rows that are seen being H: as long as a document is, so long takes a lookup, and
/// all rows must be kept.
struct SoftmaxReader {
  double scale = 1;
  static constexpr void fields(auto& self, auto&& visit) { visit("scale", self.scale); }
  static SoftmaxReader make(const SoftmaxReaderOptions& options, std::int64_t, RngKey) { return {options.scale}; }
  Var operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const;
};

}  // namespace tally::nn
