#pragma once

#include <string_view>

namespace tally::tools {

/// Everything that commands say goes through these two, as printable() text that keeps its tabs and line breaks.
void print(std::string_view text);     ///< to standard output
void complain(std::string_view text);  ///< to the error stream

/// Hands on what was printed. Throws IoError when standard output could not be written.
void flush_printed();

}  // namespace tally::tools
