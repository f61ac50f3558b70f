#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "examples/question_answering/question_set.h"
#include "tally/core/offsets.h"

namespace question_answering {

/// Documents with their questions, packed: what one core works on at a time.
struct QuestionShard {
  tally::Tensor words;              ///< i32 [T] of all documents
  tally::Offsets documents;         ///< [N + 1]
  tally::Tensor question_words;     ///< i32 [S] of all questions
  tally::Offsets questions;         ///< [M + 1]
  tally::Tensor places;             ///< i64 [M] of T, where each question reads
  tally::Tensor answers;            ///< i32 [M]; -1 for one that is not known, which no prediction is
  std::vector<std::int64_t> tasks;  ///< [M]
  // Of the first row of each kind among those of the batch, so that dropout does not depend on shards.
  std::int64_t first_word = 0, first_question_word = 0, first_question = 0;

  std::int64_t count() const { return questions.count(); }
};

/// Documents, in this order, in shards of at most `shard_words` words (a longer document is a shard of its own).
std::vector<QuestionShard> make_shards(const std::vector<Document>& documents, std::span<const std::int64_t> order,
                                       std::int64_t shard_words);
/// All of them in the order in which they stand.
std::vector<QuestionShard> make_shards(const std::vector<Document>& documents, std::int64_t shard_words);

}  // namespace question_answering
