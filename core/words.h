#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tally/core/error.h"

namespace tally {

/// A value of an enum and the word that stands for it in configs, files and messages. An enum with words has, beside
/// it, a function that lists them:
///
///     enum class Core { iterative, one_pass };
///     constexpr auto words(Core) {
///       return std::array{Word<Core>{"iterative", Core::iterative}, Word<Core>{"one_pass", Core::one_pass}};
///     }
template <class E>
struct Word {
  std::string_view word;
  E value;
};

template <class E>
concept HasWords = std::is_enum_v<E> && requires(E value) {
  words(value);
};

/// Throws ValueError for a value without a word.
template <HasWords E>
constexpr std::string_view word_of(E value) {
  for (const Word<E>& each : words(E{})) {
    if (each.value == value) return each.word;
  }
  fail<ValueError>("word_of", "needs a value with a word; got ", static_cast<std::int64_t>(value));
}

/// Throws ConfigError, beginning with `where`, for a word that stands for nothing.
template <HasWords E>
E value_of(std::string_view word, std::string_view where) {
  for (const Word<E>& each : words(E{})) {
    if (each.word == word) return each.value;
  }
  fail<ConfigError>(where, "knows no \"", word, '"');
}

template <HasWords E>
std::vector<std::string> words_of() {
  std::vector<std::string> all;
  for (const Word<E>& each : words(E{})) all.emplace_back(each.word);
  return all;
}

}  // namespace tally
