#pragma once

#include <cstdint>
#include <vector>

namespace tally::tools {

/// What `bench lookups` measures.
struct LookupBenchmark {
  std::int64_t width = 128;  ///< k
  std::vector<std::int64_t> lengths{100, 1'000, 10'000, 100'000, 1'000'000};
  std::int64_t documents = 10'000;  ///< of the collection
  int rounds = 7;
};

/// Seconds of one lookup in a document of `length` rows.
struct LengthFigures {
  std::int64_t length = 0;
  std::vector<double> linear = {};   ///< a round each: of a Representation
  std::vector<double> softmax = {};  ///< ops::softmax_lookup over all rows
};

/// Seconds of one query of a whole collection, a round each.
struct CollectionFigures {
  std::int64_t document_bytes = 0;
  std::vector<double> products, scores;
};

struct LookupFigures {
  std::vector<LengthFigures> lengths;
  CollectionFigures f32, int8;
  std::vector<double>
      copy_rate;  ///< bytes read and written per second, a round each, by copies of the f32 collection's size
};

/// All timings of a round follow one another, so that a slow spell of the machine meets all.
LookupFigures measure_lookups(const LookupBenchmark& benchmark);

}  // namespace tally::tools
