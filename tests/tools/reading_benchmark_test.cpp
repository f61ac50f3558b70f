#include "tools/reading_benchmark.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>

#include "tests/support/temporary_directory.h"

namespace tally::tools::reading_benchmark_test {
namespace {

using tally::test::TemporaryDirectory;

}  // namespace

TEST_CASE("a file of random ratings has the rows, users and items asked for", "[data]") {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory / "ratings.csv";
  // Not a whole number of blocks; so many rows that every user and item is drawn.
  write_random_ratings(path, {.rows = 123'456, .users = 500, .items = 30});
  recsys::Interactions data;
  const ReadingFigures figures = measure_reading(path, 2, data);
  CHECK(data.size() == 123'456);
  CHECK(data.num_users() == 500);
  CHECK(data.num_items() == 30);
  CHECK(figures.read.size() == 2);
  CHECK(figures.scan.size() == 2);
}

TEST_CASE("ten million rows are read in less than 1 GB", "[data][slow]") {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory / "ratings.csv";
  write_random_ratings(path, {});
  recsys::Interactions data;
  measure_reading(path, 1, data);
  CHECK(data.size() == 10'000'000);
  CHECK(data.num_users() == 140'000);
  CHECK(data.num_items() == 60'000);
  rusage usage{};
  REQUIRE(::getrusage(RUSAGE_SELF, &usage) == 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which take memory of their own
  CHECK(usage.ru_maxrss < 1'000'000);                                // KiB
#endif
}

}  // namespace tally::tools::reading_benchmark_test
