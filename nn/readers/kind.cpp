#include "tally/nn/readers/kind.h"

#include <algorithm>
#include <vector>

namespace tally::nn {
namespace {

/// The document that a row belongs to.
std::int64_t document_of(const Offsets& offsets, std::int64_t row) {
  const auto bounds = offsets.bounds();
  return std::upper_bound(bounds.begin(), bounds.end(), row) - bounds.begin() - 1;
}

}  // namespace

Tensor rows_seen(const Lookups& lookups, DType dtype) {
  const auto places = lookups.places.span<std::int64_t>();
  std::vector<double> counts;
  for (const std::int64_t place : places) {
    counts.push_back(static_cast<double>(place + 1 - lookups.offsets.at(document_of(lookups.offsets, place))));
  }
  return Tensor::from(counts, {static_cast<std::int64_t>(counts.size()), 1}).to(dtype);
}

Offsets queries_of_whole_documents(const Lookups& lookups) {
  const auto places = lookups.places.span<std::int64_t>();
  std::vector<std::int64_t> counts(static_cast<std::size_t>(lookups.offsets.count()));
  std::int64_t last = 0;
  for (const std::int64_t place : places) {
    const std::int64_t document = document_of(lookups.offsets, place);
    if (document < last || place + 1 != lookups.offsets.at(document + 1)) return {};
    ++counts[static_cast<std::size_t>(document)];
    last = document;
  }
  return places.empty() ? Offsets() : Offsets::from_lengths(counts);
}

void check_lookups(const Var& rows, const Var& queries, const Lookups& lookups, std::int64_t width) {
  constexpr const char* kReader = "reader";
  check<ShapeError>(rows.defined() && queries.defined() && lookups.places.defined(), kReader,
                    "needs rows, queries and places");
  check<ShapeError>(rows.rank() == 2 && queries.rank() == 2 && rows.dim(1) == width && queries.dim(1) == width, kReader,
                    "needs rows [T, ", width, "] and queries [M, ", width, "]; got ", rows.shape(), " and ",
                    queries.shape());
  check<DTypeError>(lookups.places.dtype() == DType::i64, kReader, "needs places of type i64");
  check<ShapeError>(lookups.places.rank() == 1 && lookups.places.dim(0) == queries.dim(0), kReader,
                    "needs a place for each query; got places ", lookups.places.shape(), " for queries ",
                    queries.shape());
  lookups.offsets.check_rows(rows.dim(0), kReader);
  const auto places = lookups.places.span<std::int64_t>();
  for (std::size_t i = 0; i < places.size(); ++i) {
    check<IndexError>(places[i] >= 0 && places[i] < rows.dim(0), kReader, "needs places in [0, ", rows.dim(0),
                      "); lookup ", i, " has ", places[i]);
  }
}

}  // namespace tally::nn
