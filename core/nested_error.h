#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace tally {

/// What an error says, without its "[where] ": for the sentence of another error, which has a place of its own.
inline std::string_view said_by(const std::exception& error) {
  const std::string_view text = error.what();
  const std::size_t end = text.starts_with('[') ? text.find("] ") : std::string_view::npos;
  return end == std::string_view::npos ? text : text.substr(end + 2);
}

/// The same with its place in front, as words: for errors whose place says which part of the other's place is meant
/// ("settings.decay is missing").
inline std::string placed_by(const std::exception& error) {
  const std::string_view text = error.what(), said = said_by(error);
  if (said.size() == text.size()) return std::string(text);
  std::string place(text.substr(1, text.size() - said.size() - 3));
  return place.append(" ").append(said);
}

}  // namespace tally
