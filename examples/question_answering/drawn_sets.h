#pragma once

#include <cstdint>
#include <functional>

#include "examples/question_answering/question_set.h"
#include "tally/core/options/options.h"
#include "tally/core/random.h"

// What sets that are drawn, not read, have in common.

namespace question_answering {

struct DrawnSetOptions {
  std::int64_t training = 1000, validation = 100, test = 200;
  std::int64_t questions = 1;
  std::int64_t data_seed = 1;
  static void keys(auto& o, auto&& key) {
    key("training", o.training, tally::at_least(1), "documents to learn from");
    key("validation", o.validation, tally::at_least(1), "documents that the best epoch is chosen by");
    key("test", o.test, tally::at_least(1), "documents of the figures");
    key("questions", o.questions, tally::at_least(1), "asked of each document, when it has been read");
    key("data_seed", o.data_seed, tally::at_least(0), "of all that is drawn");
  }
};

/// Draws the documents of all three parts, each by a key of its own.
void draw_documents(const DrawnSetOptions& options, const std::function<Document(tally::RngKey)>& draw,
                    QuestionSet& set);

/// Draws one after the other, all of one key.
class KeyedDraws {
 public:
  explicit KeyedDraws(tally::RngKey key) : key_(key) {}
  /// In [0, bound).
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(tally::uniform_below(key_, 0, count_++, static_cast<std::uint64_t>(bound)));
  }
  /// In [least, most].
  std::int64_t between(std::int64_t least, std::int64_t most) { return least + below(most - least + 1); }

 private:
  tally::RngKey key_;
  std::uint64_t count_ = 0;
};

}  // namespace question_answering
