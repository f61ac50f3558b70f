#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Every reader of bytes from outside, as a fuzzer drives it: tools/fuzz.sh looks for bytes that break one, and the
/// replay test goes through those that are kept.
namespace tally::fuzz {

struct Reader {
  std::string_view name;
  /// Reads the bytes and holds what came of it to its properties: written again and read again it is the same. Errors
  /// of the library are an answer; everything else that is thrown is a finding.
  void (*run)(std::string_view bytes);
  /// Well-formed bytes to begin with.
  std::vector<std::string> (*seeds)();
};

std::span<const Reader> readers();
/// Null for a name that there is not.
const Reader* find_reader(std::string_view name);

}  // namespace tally::fuzz
