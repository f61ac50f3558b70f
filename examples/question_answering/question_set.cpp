#include "examples/question_answering/question_set.h"

#include <numeric>

namespace question_answering {

Vocabulary::Vocabulary() { add("(unknown)"); }

std::int32_t Vocabulary::add(std::string_view word) {
  const auto known = ids_.find(word);
  if (known != ids_.end()) return known->second;
  const auto id = static_cast<std::int32_t>(words_.size());
  words_.emplace_back(word);
  ids_.emplace(word, id);
  return id;
}

std::int32_t Vocabulary::find(std::string_view word) const {
  const auto known = ids_.find(word);
  return known == ids_.end() ? kUnknown : known->second;
}

std::int64_t count_questions(const std::vector<Document>& documents) {
  return std::accumulate(documents.begin(), documents.end(), std::int64_t{0},
                         [](std::int64_t sum, const Document& document) {
                           return sum + static_cast<std::int64_t>(document.questions.size());
                         });
}

std::int64_t count_words(const std::vector<Document>& documents) {
  return std::accumulate(documents.begin(), documents.end(), std::int64_t{0},
                         [](std::int64_t sum, const Document& document) {
                           return sum + static_cast<std::int64_t>(document.words.size());
                         });
}

}  // namespace question_answering
