// A file of ten million rows must be read within ten seconds of processor time and 1 GB of memory.
#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <ctime>
#include <fstream>

#include "tally/core/random.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tests/support/temporary_directory.h"

namespace tally::recsys {
namespace {

constexpr std::int64_t kRows = 10'000'000;

/// Rows in no order of users or times, as a log of events has them.
void write_rows(const std::filesystem::path& path) {
  std::ofstream out(path, std::ios::binary);
  out << "userId,movieId,rating,timestamp\r\n";
  std::vector<std::uint32_t> bits(4 * 100'000);
  for (std::int64_t block = 0; block < kRows / 100'000; ++block) {
    random_bits(RngKey{31}, static_cast<std::uint64_t>(block), 0, static_cast<std::int64_t>(bits.size()), bits.data());
    std::string text;
    for (std::size_t i = 0; i < bits.size(); i += 4) {
      text += std::to_string(bits[i] % 140'000) + ',' + std::to_string(bits[i + 1] % 60'000) + ',' +
              std::to_string(1 + bits[i + 2] % 5) + ".0," + std::to_string(900'000'000 + bits[i + 3] % 600'000'000) +
              "\r\n";
    }
    out << text;
  }
}

}  // namespace

TEST_CASE("ten million rows are read in under ten seconds and 1 GB", "[data][slow]") {
  const tally::test::TemporaryDirectory directory;
  const std::filesystem::path path = directory / "ratings.csv";
  write_rows(path);
  const std::clock_t start = std::clock();
  const Interactions data = read_interactions(path, movielens_csv_options());
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  CHECK(data.size() == kRows);
  CHECK(data.num_users() == 140'000);
  CHECK(data.num_items() == 60'000);
  rusage usage{};
  REQUIRE(::getrusage(RUSAGE_SELF, &usage) == 0);
  WARN("ten million rows: " << seconds << " s of processor time, peak " << usage.ru_maxrss / 1024 << " MiB");
  CHECK(seconds < 10);
  CHECK(usage.ru_maxrss < 1'000'000);  // KiB
}

}  // namespace tally::recsys
