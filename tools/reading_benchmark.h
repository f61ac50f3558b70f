#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "tally/recsys/data/interactions.h"

namespace tally::tools {

/// A file of ratings for `bench reading`, in MovieLens' form.
struct RandomRatings {
  std::int64_t rows = 10'000'000, users = 140'000, items = 60'000;
};

/// Writes rows in no order of users or times, as a log of events has them; the same for every call.
void write_random_ratings(const std::filesystem::path& path, const RandomRatings& ratings);

/// Seconds of each round.
struct ReadingFigures {
  std::vector<double> read;  ///< read_interactions of the file
  std::vector<double> scan;  ///< its lines counted, and nothing done with them: what no reader can beat
};

/// Reads the file `rounds` times, each time after a scan, and leaves the last reading in `data`.
ReadingFigures measure_reading(const std::filesystem::path& path, int rounds, recsys::Interactions& data);

}  // namespace tally::tools
