#pragma once

#include <string>

#include "examples/question_answering/drawn_sets.h"

// Associative retrieval (Ba et al., "Using Fast Weights to Attend to the Recent Past", arXiv 1610.06258): letters, each
// with a digit, then a letter again, whose digit is asked for: "c9k8j3f1??c" -> 9. The letter at the end is the
// question, and what stands before it the document.

namespace question_answering {

struct AssociativeRetrievalOptions {
  static constexpr std::int64_t kLetters = 26, kDigits = 10;
  DrawnSetOptions drawn{.training = 20000, .validation = 1000, .test = 2000};
  std::int64_t pairs = 8;
  static void keys(auto& o, auto&& key) {
    key(o.drawn);
    key("pairs", o.pairs, tally::at_least(1),
        "letters of a document, each with a digit; at most 26; no more are asked for");
  }
  void check(const std::string& section) const;
};

QuestionSet draw_associative_retrieval(const AssociativeRetrievalOptions& options);

}  // namespace question_answering
