#include "examples/question_answering/associative_retrieval.h"

namespace question_answering {

void AssociativeRetrievalOptions::check(const std::string& section) const {
  tally::check<tally::ConfigError>(pairs <= kLetters && drawn.questions <= pairs, section, "needs at most ", kLetters,
                                   " pairs and no more questions than pairs; got ", pairs, " and ", drawn.questions);
}

QuestionSet draw_associative_retrieval(const AssociativeRetrievalOptions& options) {
  options.check("data");
  QuestionSet set;
  set.name = "associative retrieval";
  set.tasks = {"associative retrieval"};
  std::vector<std::int32_t> letters, digits, answers;
  for (char letter = 'a'; letter <= 'z'; ++letter) letters.push_back(set.words.add(std::string(1, letter)));
  for (char digit = '0'; digit <= '9'; ++digit) {
    digits.push_back(set.words.add(std::string(1, digit)));
    answers.push_back(set.answers.add(std::string(1, digit)));
  }
  const std::int32_t mark = set.words.add("?");
  const auto write = [&](tally::RngKey key) {
    const auto order = tally::random_permutation(key.fold_in("letters"), AssociativeRetrievalOptions::kLetters);
    KeyedDraws draws(key.fold_in("digits"));
    Document document;
    std::vector<Question> about;
    for (std::int64_t i = 0; i < options.pairs; ++i) {
      const std::int32_t letter = letters[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
      const auto digit = static_cast<std::size_t>(draws.below(AssociativeRetrievalOptions::kDigits));
      document.words.insert(document.words.end(), {letter, digits[digit]});
      about.push_back({{letter}, 0, answers[digit]});
    }
    document.words.insert(document.words.end(), {mark, mark});
    const auto asked = tally::random_permutation(key.fold_in("questions"), options.pairs);
    for (std::int64_t i = 0; i < options.drawn.questions; ++i) {
      document.questions.push_back(about[static_cast<std::size_t>(asked[static_cast<std::size_t>(i)])]);
      document.questions.back().place = static_cast<std::int64_t>(document.words.size()) - 1;
    }
    return document;
  };
  draw_documents(options.drawn, write, set);
  return set;
}

}  // namespace question_answering
