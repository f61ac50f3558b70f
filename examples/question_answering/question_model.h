#pragma once

#include "examples/question_answering/question_batches.h"
#include "tally/core/options/options.h"
#include "tally/nn/layers.h"
#include "tally/nn/readers/reader_kinds.h"
#include "tally/nn/recurrent.h"

namespace question_answering {

struct QuestionModelOptions {
  std::int64_t embedding_size = 64;
  std::int64_t hidden_size = 64;
  bool shared_embedding = true;
  double dropout = 0;
  static void keys(auto& o, auto&& key) {
    key("embedding_size", o.embedding_size, tally::at_least(1), "of a word");
    key("hidden_size", o.hidden_size, tally::at_least(1), "of both encoders' states, k in the paper");
    key("shared_embedding", o.shared_embedding, "one table of words for documents and questions");
    key("dropout", o.dropout, tally::rate(), "of embeddings, and before the scores of answers");
  }
};

/// Question answering as in de Brébisson & Vincent (arXiv 1609.05866): one GRU over the document gives its rows h_t,
/// another over the question its last state q, a reader looks q up in the rows, and a layer that sees both scores the
/// answers. What differs from reader to reader is the reader alone.
struct QuestionModel {
  tally::nn::Embedding words, question_words;  ///< the second is absent where they share the first
  tally::nn::Gru document, question;
  tally::nn::Reader reader;
  tally::nn::Linear of_reading, of_question;  ///< tanh(W_r R + W_q q + b)
  tally::nn::Linear answers;                  ///< scores
  tally::nn::Dropout dropout;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("words", self.words);
    visit("question_words", self.question_words);
    visit("document", self.document);
    visit("question", self.question);
    visit("reader", self.reader);
    visit("of_reading", self.of_reading);
    visit("of_question", self.of_question);
    visit("answers", self.answers);
    visit("dropout", self.dropout);
  }
  static QuestionModel make(const QuestionModelOptions& options, const tally::nn::ReaderChoice& reader,
                            const QuestionSet& set, tally::RngKey key);

  /// [M, hidden_size] of the questions, what `answers` scores.
  tally::Var operator()(const QuestionShard& shard, const tally::nn::Context& context) const;
  /// The answer of the highest score of each question.
  std::vector<std::int32_t> predict(const QuestionShard& shard) const;
};

}  // namespace question_answering
