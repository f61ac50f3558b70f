// What tools/fuzz.sh begins with and what it found, as ordinary tests.
#include <algorithm>
#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tally/core/random.h"
#include "tests/fuzz/readers.h"

namespace replay_test {

using namespace tally;

namespace {

std::vector<std::filesystem::path> corpus_of(const fuzz::Reader& reader) {
  std::vector<std::filesystem::path> paths;
  std::error_code none;
  const std::string folder = TALLY_SOURCE_DIR "/tests/fuzz/corpus/" + std::string(reader.name);
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// A few bytes changed, cut off, or doubled.
std::string changed(std::string bytes, RngKey key) {
  const auto below = [&](std::uint64_t draw, std::size_t n) {
    return static_cast<std::size_t>(uniform_below(key, draw, 0, std::max<std::size_t>(n, 1)));
  };
  const std::size_t kind = below(0, 4);
  if (bytes.empty()) return bytes;
  if (kind == 0) return bytes.substr(0, below(1, bytes.size()));
  if (kind == 1) return bytes.insert(below(1, bytes.size()), bytes.substr(below(2, bytes.size()), 9));
  for (std::uint64_t i = 0; i < kind; ++i)
    bytes[below(3 + 2 * i, bytes.size())] = static_cast<char>(below(4 + 2 * i, 256));
  return bytes;
}

}  // namespace

TEST_CASE("readers take or refuse what is kept of fuzzing, and write it as they read it", "[fuzz]") {
  for (const fuzz::Reader& reader : fuzz::readers()) {
    INFO(reader.name);
    for (const std::string& seed : reader.seeds()) CHECK_NOTHROW(reader.run(seed));
    for (const std::filesystem::path& path : corpus_of(reader)) {
      INFO(path);
      CHECK_NOTHROW(reader.run(read_file(path)));
    }
  }
}

TEST_CASE("readers take or refuse their seeds with bytes changed", "[fuzz]") {
  for (const fuzz::Reader& reader : fuzz::readers()) {
    INFO(reader.name);
    std::uint64_t stream = 0;
    for (const std::string& seed : reader.seeds()) {
      for (int i = 0; i < 60; ++i) {
        const std::string bytes = changed(seed, RngKey{31}.fold_in(stream++));
        CHECK_NOTHROW(reader.run(bytes));
      }
    }
  }
}

}  // namespace replay_test
