#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

// What a data set of documents and questions is, whatever it was read from or drawn by.

namespace question_answering {

/// Numbers of words: 0 stands for those that were not met before.
class Vocabulary {
 public:
  static constexpr std::int32_t kUnknown = 0;

  Vocabulary();
  /// The word's number, a new one for a new word.
  std::int32_t add(std::string_view word);
  /// kUnknown for a word that was never added.
  std::int32_t find(std::string_view word) const;
  const std::string& word(std::int32_t id) const { return words_.at(static_cast<std::size_t>(id)); }
  std::int64_t size() const { return static_cast<std::int64_t>(words_.size()); }

 private:
  std::vector<std::string> words_;
  std::map<std::string, std::int32_t, std::less<>> ids_;
};

/// Of one document.
struct Question {
  std::vector<std::int32_t> words;
  std::int64_t place = 0;   ///< last word of the document that may be read for the answer
  std::int32_t answer = 0;  ///< of the vocabulary of answers; unknown ones are always answered wrongly
};

struct Document {
  std::vector<std::int32_t> words;
  std::vector<Question> questions;
  std::int64_t task = 0;
};

struct QuestionSet {
  std::string name;
  Vocabulary words, answers;
  std::vector<std::string> tasks;  ///< names; a document belongs to one
  std::vector<Document> training, validation, test;
};

std::int64_t count_questions(const std::vector<Document>& documents);
std::int64_t count_words(const std::vector<Document>& documents);

}  // namespace question_answering
