#include "tools/reading_benchmark.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "tally/core/error.h"
#include "tally/core/random.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tools/timing.h"

namespace tally::tools {
namespace {

constexpr std::int64_t kRowsOfBlock = 100'000;  // drawn and written at once
constexpr std::size_t kScanBytes = 1 << 20;

std::int64_t count_lines(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<char> buffer(kScanBytes);
  std::int64_t lines = 0;
  while (in.read(buffer.data(), kScanBytes), in.gcount() > 0) {
    lines += std::count(buffer.data(), buffer.data() + in.gcount(), '\n');
  }
  return lines;
}

}  // namespace

void write_random_ratings(const std::filesystem::path& path, const RandomRatings& ratings) {
  const auto below = [](std::uint32_t bits, std::int64_t n) { return std::to_string(bits % n); };
  std::ofstream out(path, std::ios::binary);
  out << "userId,movieId,rating,timestamp\r\n";
  std::vector<std::uint32_t> bits(4 * kRowsOfBlock);
  for (std::int64_t begin = 0, block = 0; begin < ratings.rows; begin += kRowsOfBlock, ++block) {
    random_bits(RngKey{31}, static_cast<std::uint64_t>(block), 0, static_cast<std::int64_t>(bits.size()), bits.data());
    const auto words = static_cast<std::size_t>(4 * std::min(kRowsOfBlock, ratings.rows - begin));
    std::string text;
    for (std::size_t i = 0; i < words; i += 4) {
      text += below(bits[i], ratings.users) + ',' + below(bits[i + 1], ratings.items) + ',' +
              std::to_string(1 + bits[i + 2] % 5) + ".0," + std::to_string(900'000'000 + bits[i + 3] % 600'000'000) +
              "\r\n";
    }
    out << text;
    check<IoError>(!out.fail(), path.string(), "could not be written");
  }
  out.close();
  check<IoError>(!out.fail(), path.string(), "could not be written");
}

ReadingFigures measure_reading(const std::filesystem::path& path, int rounds, recsys::Interactions& data) {
  ReadingFigures figures;
  for (int round = 0; round < rounds; ++round) {
    figures.scan.push_back(seconds_of([&] { check<IoError>(count_lines(path) > 0, path.string(), "has no lines"); }));
    figures.read.push_back(
        seconds_of([&] { data = recsys::read_interactions(path, recsys::movielens_csv_options()); }));
  }
  return figures;
}

}  // namespace tally::tools
