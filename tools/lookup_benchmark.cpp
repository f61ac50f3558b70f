#include "tools/lookup_benchmark.h"

#include <algorithm>
#include <cstring>

#include "tally/core/random.h"
#include "tally/ops/lookup/representation_collection.h"
#include "tally/ops/lookup/softmax_lookup.h"
#include "tools/timing.h"

namespace tally::tools {
namespace {

constexpr double kLookupSeconds = 5e-3;  // seconds of a timing
constexpr std::int64_t kQueries = 64;

/// Seconds of one call, the mean of as many as a timing needs.
double seconds_of_call(const auto& body) {
  const double once = std::max(1e-9, seconds_of(body));
  const int calls = std::max(1, static_cast<int>(kLookupSeconds / once));
  return seconds_of([&] {
           for (int i = 0; i < calls; ++i) body();
         }) /
         calls;
}

/// Rows of a document, and both ways to ask it.
struct Document {
  Tensor rows, places;
  Offsets offsets;
  ops::Representation representation;

  Document(std::int64_t length, std::int64_t width)
      : rows({length, width}),
        places(Tensor::full({1}, static_cast<double>(length - 1), DType::i64)),
        offsets(Offsets::single(length)),
        representation(width) {
    fill_uniform(RngKey{3}.fold_in(static_cast<std::uint64_t>(length)), rows, -1, 1);
    for (std::int64_t t = 0; t < length; ++t) representation.append(row(t));
  }
  std::span<const float> row(std::int64_t t) const {
    return {rows.data<float>() + t * rows.dim(1), static_cast<std::size_t>(rows.dim(1))};
  }
};

/// Queries in turn, so that no call repeats the last.
class Queries {
 public:
  explicit Queries(std::int64_t width) : queries_({kQueries, width}) { fill_uniform(RngKey{4}, queries_, -1, 1); }
  Tensor next() {
    place_ = (place_ + 1) % kQueries;
    return queries_.slice(0, place_, place_ + 1);
  }

 private:
  Tensor queries_;
  std::int64_t place_ = 0;
};

ops::RepresentationCollection filled(const LookupBenchmark& benchmark, ops::RepresentationStorage storage) {
  ops::RepresentationCollection collection(benchmark.width, storage);
  // Different numbers at different addresses are what counts; a few documents made in full, then repeated.
  std::vector<ops::Representation> made;
  for (std::uint64_t d = 0; d < 16; ++d) {
    ops::Representation document(benchmark.width);
    Tensor rows({benchmark.width, benchmark.width});
    fill_uniform(RngKey{5}.fold_in(d), rows, -1, 1);
    for (std::int64_t t = 0; t < benchmark.width; ++t) {
      document.append({rows.data<float>() + t * benchmark.width, static_cast<std::size_t>(benchmark.width)});
    }
    made.push_back(std::move(document));
  }
  for (std::int64_t d = 0; d < benchmark.documents; ++d) collection.add(d, made[static_cast<std::size_t>(d % 16)]);
  return collection;
}

/// A collection with room for its answers.
struct AskedCollection {
  ops::RepresentationCollection collection;
  CollectionFigures& figures;
  std::vector<float> products, scores;

  AskedCollection(const LookupBenchmark& benchmark, ops::RepresentationStorage storage, CollectionFigures& to)
      : collection(filled(benchmark, storage)),
        figures(to),
        products(static_cast<std::size_t>(benchmark.documents * benchmark.width)),
        scores(static_cast<std::size_t>(benchmark.documents)) {
    figures.document_bytes = collection.document_bytes();
  }
  void time(std::span<const float> query) {
    figures.products.push_back(seconds_of_call([&] { collection.products(query, products); }));
    figures.scores.push_back(seconds_of_call([&] { collection.scores(query, scores); }));
  }
};

}  // namespace

LookupFigures measure_lookups(const LookupBenchmark& benchmark) {
  LookupFigures figures;
  std::vector<Document> documents;
  for (const std::int64_t length : benchmark.lengths) {
    documents.emplace_back(length, benchmark.width);
    figures.lengths.push_back({.length = length});
  }
  AskedCollection f32(benchmark, ops::RepresentationStorage::f32, figures.f32);
  AskedCollection int8(benchmark, ops::RepresentationStorage::int8, figures.int8);
  const auto bytes = static_cast<std::size_t>(benchmark.documents * f32.collection.document_bytes());
  std::vector<char> from(bytes, 1), to(bytes, 2);
  Queries queries(benchmark.width);
  std::vector<float> answer(static_cast<std::size_t>(benchmark.width));
  for (int round = 0; round < benchmark.rounds; ++round) {
    for (std::size_t i = 0; i < documents.size(); ++i) {
      Document& document = documents[i];
      figures.lengths[i].linear.push_back(
          seconds_of_call([&] { document.representation.look_up(queries.next().span<float>(), answer); }));
      figures.lengths[i].softmax.push_back(seconds_of_call([&] {
        const Var rows(document.rows);
        ops::softmax_lookup(Var(queries.next()), rows, rows, document.places, document.offsets);
      }));
    }
    const Tensor query = queries.next();
    f32.time(query.span<float>());
    int8.time(query.span<float>());
    figures.copy_rate.push_back(2 * static_cast<double>(bytes) /
                                seconds_of_call([&] { std::memcpy(to.data(), from.data(), bytes); }));
  }
  return figures;
}

}  // namespace tally::tools
