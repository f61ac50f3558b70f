#pragma once

#include <exception>
#include <string_view>

namespace tally {

/// What an error says, without its "[where] ": for the sentence of another error, which has a place of its own.
inline std::string_view said_by(const std::exception& error) {
  const std::string_view text = error.what();
  const std::size_t end = text.starts_with('[') ? text.find("] ") : std::string_view::npos;
  return end == std::string_view::npos ? text : text.substr(end + 2);
}

}  // namespace tally
