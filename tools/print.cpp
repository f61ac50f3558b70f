#include "tools/print.h"

#include <iostream>

#include "tally/core/error.h"
#include "tally/core/io/printable.h"

namespace tally::tools {
namespace {

constexpr std::string_view kKept = "\n\t";

}  // namespace

void print(std::string_view text) { std::cout << printable(text, kKept); }

void complain(std::string_view text) { std::cerr << printable(text, kKept); }

void flush_printed() {
  std::cout.flush();
  check<IoError>(static_cast<bool>(std::cout), "standard output", "could not be written");
}

}  // namespace tally::tools
