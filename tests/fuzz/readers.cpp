#include "tests/fuzz/readers.h"

#include <array>

#include "tests/fuzz/all_readers.h"

namespace tally::fuzz {

std::span<const Reader> readers() {
  static const std::array all{kSafetensors, kNpy,  kJson,    kConfig, kManifest,
                              kDelimited,   kGzip, kServing, kState,  kSessionLog};
  return all;
}

const Reader* find_reader(std::string_view name) {
  for (const Reader& reader : readers()) {
    if (reader.name == name) return &reader;
  }
  return nullptr;
}

}  // namespace tally::fuzz
