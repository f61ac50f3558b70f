#include "examples/question_answering/question_batches.h"

#include <numeric>

namespace question_answering {
namespace {

using tally::Offsets;
using tally::Tensor;

template <class T>
Tensor tensor_of(const std::vector<T>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

/// Collects documents until they are packed.
class ShardBuilder {
 public:
  void add(const Document& document) {
    const auto begin = static_cast<std::int64_t>(words_.size());
    words_.insert(words_.end(), document.words.begin(), document.words.end());
    documents_.push_back(static_cast<std::int64_t>(document.words.size()));
    for (const Question& question : document.questions) {
      question_words_.insert(question_words_.end(), question.words.begin(), question.words.end());
      questions_.push_back(static_cast<std::int64_t>(question.words.size()));
      places_.push_back(begin + question.place);
      answers_.push_back(question.answer == Vocabulary::kUnknown ? -1 : question.answer);
      tasks_.push_back(document.task);
    }
  }
  std::int64_t words() const { return static_cast<std::int64_t>(words_.size()); }
  std::int64_t question_words() const { return static_cast<std::int64_t>(question_words_.size()); }
  std::int64_t questions() const { return static_cast<std::int64_t>(questions_.size()); }

  QuestionShard build() const {
    QuestionShard shard;
    shard.words = tensor_of(words_);
    shard.documents = Offsets::from_lengths(documents_);
    shard.question_words = tensor_of(question_words_);
    shard.questions = Offsets::from_lengths(questions_);
    shard.places = tensor_of(places_);
    shard.answers = tensor_of(answers_);
    shard.tasks = tasks_;
    return shard;
  }

 private:
  std::vector<std::int32_t> words_, question_words_, answers_;
  std::vector<std::int64_t> documents_, questions_, places_, tasks_;
};

}  // namespace

std::vector<QuestionShard> make_shards(const std::vector<Document>& documents, std::span<const std::int64_t> order,
                                       std::int64_t shard_words) {
  std::vector<QuestionShard> shards;
  ShardBuilder builder;
  std::int64_t words = 0, question_words = 0, questions = 0;
  const auto finish = [&] {
    QuestionShard shard = builder.build();
    shard.first_word = words;
    shard.first_question_word = question_words;
    shard.first_question = questions;
    words += builder.words();
    question_words += builder.question_words();
    questions += builder.questions();
    shards.push_back(std::move(shard));
    builder = {};
  };
  for (const std::int64_t at : order) {
    const Document& document = documents.at(static_cast<std::size_t>(at));
    const auto length = static_cast<std::int64_t>(document.words.size());
    if (builder.words() > 0 && builder.words() + length > shard_words) finish();
    builder.add(document);
  }
  if (builder.words() > 0) finish();
  return shards;
}

std::vector<QuestionShard> make_shards(const std::vector<Document>& documents, std::int64_t shard_words) {
  std::vector<std::int64_t> order(documents.size());
  std::iota(order.begin(), order.end(), 0);
  return make_shards(documents, order, shard_words);
}

}  // namespace question_answering
