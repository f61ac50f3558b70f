// libFuzzer's entry. TALLY_FUZZ_READER names the reader; with TALLY_FUZZ_SEEDS, a directory, its seeds are written
// there first.
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "tests/fuzz/readers.h"

namespace {

const tally::fuzz::Reader* chosen = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* name = std::getenv("TALLY_FUZZ_READER");
  chosen = tally::fuzz::find_reader(name == nullptr ? "" : name);
  if (chosen == nullptr) {
    std::fputs("TALLY_FUZZ_READER needs one of:", stderr);
    for (const auto& each : tally::fuzz::readers()) std::fprintf(stderr, " %s", std::string(each.name).c_str());
    std::fputs("\n", stderr);
    std::exit(2);
  }
  if (const char* folder = std::getenv("TALLY_FUZZ_SEEDS")) {
    int number = 0;
    for (const std::string& seed : chosen->seeds()) {
      std::ofstream(std::string(folder) + "/seed-" + std::to_string(number++), std::ios::binary) << seed;
    }
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  chosen->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
