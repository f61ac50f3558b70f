#include "examples/question_answering/question_model.h"

#include <algorithm>

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/shape.h"

namespace question_answering {

using tally::RngKey;
using tally::Tensor;
using tally::Var;
namespace nn = tally::nn;
namespace ops = tally::ops;

namespace {

Tensor last_rows(const tally::Offsets& offsets) {
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < offsets.count(); ++i) rows.push_back(offsets.at(i + 1) - 1);
  return Tensor::from(rows, {offsets.count()});
}

}  // namespace

QuestionModel QuestionModel::make(const QuestionModelOptions& options, const nn::ReaderChoice& reader,
                                  const QuestionSet& set, RngKey key) {
  // Rows of the size that a GRU's uniform weights expect.
  const nn::EmbeddingOptions table{.count = set.words.size(), .width = options.embedding_size, .deviation = 0.3};
  const nn::GruOptions gru{.in = options.embedding_size, .width = options.hidden_size};
  const std::int64_t width = options.hidden_size;
  return {.words = nn::Embedding::make(table, key.fold_in("words")),
          .question_words =
              options.shared_embedding ? nn::Embedding() : nn::Embedding::make(table, key.fold_in("question_words")),
          .document = nn::Gru::make(gru, key.fold_in("document")),
          .question = nn::Gru::make(gru, key.fold_in("question")),
          .reader = nn::make_reader(reader, width, key.fold_in("reader")),
          .of_reading = nn::Linear::make({.in = width, .out = width, .bias = false}, key.fold_in("of_reading")),
          .of_question = nn::Linear::make({.in = width, .out = width}, key.fold_in("of_question")),
          .answers = nn::Linear::make({.in = width, .out = set.answers.size()}, key.fold_in("answers")),
          .dropout = {options.dropout}};
}

Var QuestionModel::operator()(const QuestionShard& shard, const nn::Context& context) const {
  const auto at = [&](std::string_view name, std::int64_t first_row) {
    nn::Context part = context.at(name);
    part.first_row = first_row;
    return part;
  };
  const nn::Embedding& asked_words = question_words.table.defined() ? question_words : words;
  const Var rows = document(dropout(words(shard.words), at("words", shard.first_word)), shard.documents);
  const Var states = question(
      dropout(asked_words(shard.question_words), at("question_words", shard.first_question_word)), shard.questions);
  const Var queries = ops::gather(states, last_rows(shard.questions));
  const Var reading = reader(rows, queries, {shard.documents, shard.places}, context.at("reader"));
  const Var mixed = ops::tanh(of_reading(reading) + of_question(queries));
  return dropout(mixed, at("mixed", shard.first_question));
}

std::vector<std::int32_t> QuestionModel::predict(const QuestionShard& shard) const {
  const Tensor scores = answers((*this)(shard, {})).value();
  const std::int64_t count = scores.dim(1);
  std::vector<std::int32_t> best;
  for (std::int64_t i = 0; i < scores.dim(0); ++i) {
    const float* const row = scores.data<float>() + i * count;
    best.push_back(static_cast<std::int32_t>(std::max_element(row, row + count) - row));
  }
  return best;
}

}  // namespace question_answering
