#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "examples/question_answering/associative_retrieval.h"
#include "examples/question_answering/entity_cloze.h"
#include "tests/support/temporary_directory.h"

namespace drawn_sets_test {

using namespace question_answering;
using Catch::Matchers::Contains;
using tally::test::message_of;

namespace {

std::vector<std::string> text_of(const QuestionSet& set, const std::vector<std::int32_t>& words) {
  std::vector<std::string> text;
  for (const std::int32_t word : words) text.push_back(set.words.word(word));
  return text;
}

/// Share of the questions of a part that the answer learned most often for their relation and place is right for.
double accuracy_of_habits(const QuestionSet& set) {
  const auto key = [&](const Question& question) {
    return std::pair{question.words[1], set.words.word(question.words[0]) == "@placeholder"};
  };
  std::map<std::pair<std::int32_t, bool>, std::map<std::int32_t, int>> counts;
  for (const Document& document : set.training) {
    for (const Question& question : document.questions) ++counts[key(question)][question.answer];
  }
  double right = 0, asked = 0;
  for (const Document& document : set.test) {
    for (const Question& question : document.questions) {
      std::int32_t best = 0;
      int most = 0;
      for (const auto& [answer, count] : counts[key(question)]) {
        if (count > most) best = answer;
        most = std::max(most, count);
      }
      right += best == question.answer ? 1 : 0;
      ++asked;
    }
  }
  return right / asked;
}

}  // namespace

TEST_CASE("a letter is asked for, and its digit is the answer", "[drawn]") {
  const AssociativeRetrievalOptions options{
      .drawn = {.training = 50, .validation = 5, .test = 7, .questions = 3, .data_seed = 2}, .pairs = 6};
  const QuestionSet set = draw_associative_retrieval(options);
  CHECK(set.training.size() == 50);
  CHECK(set.validation.size() == 5);
  CHECK(set.test.size() == 7);
  std::set<std::string> digits, asked_letters;
  for (const Document& document : set.training) {
    const auto text = text_of(set, document.words);
    REQUIRE(text.size() == 14);
    CHECK(text[12] == "?");
    CHECK(text[13] == "?");
    std::map<std::string, std::string> digit_of;
    for (std::size_t i = 0; i < 12; i += 2) digit_of[text[i]] = text[i + 1];
    CHECK(digit_of.size() == 6);
    REQUIRE(document.questions.size() == 3);
    std::set<std::string> letters;
    for (const Question& question : document.questions) {
      REQUIRE(question.words.size() == 1);
      const std::string letter = set.words.word(question.words[0]);
      CHECK(digit_of.at(letter) == set.answers.word(question.answer));
      CHECK(question.place == 13);
      letters.insert(letter);
      digits.insert(digit_of.at(letter));
      asked_letters.insert(letter);
    }
    CHECK(letters.size() == 3);
  }
  CHECK(digits.size() == 10);
  CHECK(asked_letters.size() == 26);
  CHECK(draw_associative_retrieval(options).test[3].words == set.test[3].words);
  CHECK(set.test[3].words != set.training[3].words);
  AssociativeRetrievalOptions other = options;
  other.drawn.data_seed = 9;
  CHECK(draw_associative_retrieval(other).test[3].words != set.test[3].words);
  other.pairs = 27;
  CHECK_THAT(message_of<tally::ConfigError>([&] { draw_associative_retrieval(other); }), Contains("at most 26"));
}

TEST_CASE("a cloze question has one answer, which its document gives", "[drawn]") {
  const QuestionSet set = draw_entity_cloze({.drawn = {.training = 40, .validation = 3, .test = 5, .questions = 8}});
  CHECK(set.answers.size() == 27);  // and the unknown
  std::set<std::string> markers;
  std::int64_t about_objects = 0;
  for (const Document& document : set.training) {
    const auto text = text_of(set, document.words);
    CHECK(text.size() >= 750);
    CHECK(text.size() < 750 + 33);
    CHECK(document.questions.size() == 8);
    std::set<std::vector<std::int32_t>> asked;
    for (const Question& question : document.questions) {
      CHECK(question.place == static_cast<std::int64_t>(text.size()) - 1);
      const auto words = text_of(set, question.words);
      REQUIRE(words.size() == 3);
      const std::size_t hole = words[0] == "@placeholder" ? 0 : 2;
      CHECK(words[hole] == "@placeholder");
      about_objects += hole == 2 ? 1 : 0;
      // Every place of the document where the question fits, whatever stands at its hole.
      std::vector<std::string> fitting;
      for (std::size_t at = 0; at + 3 <= text.size(); ++at) {
        bool fits = true;
        for (std::size_t i = 0; i < 3; ++i) fits = fits && (i == hole || text[at + i] == words[i]);
        if (fits) fitting.push_back(text[at + hole]);
      }
      REQUIRE(fitting.size() == 1);
      CHECK(fitting[0] == set.answers.word(question.answer));
      markers.insert(fitting[0]);
      asked.insert(question.words);
    }
    CHECK(asked.size() == 8);
  }
  CHECK(markers.size() == 26);
  CHECK(about_objects > 40);
  CHECK(about_objects < 160);
}

TEST_CASE("only the document answers a cloze question where markers are permuted", "[drawn]") {
  const EntityClozeOptions world{.drawn = {.training = 400, .validation = 1, .test = 100, .questions = 8},
                                 .words = 200,
                                 .least_fillers = 3,
                                 .most_fillers = 10,
                                 .permuted = false};
  EntityClozeOptions permuted = world;
  permuted.permuted = true;
  // 26 markers: chance is 0.038, of 800 questions with a deviation of 0.007.
  CHECK(accuracy_of_habits(draw_entity_cloze(permuted)) < 0.07);
  CHECK(accuracy_of_habits(draw_entity_cloze(world)) > 0.12);
}

TEST_CASE("cloze documents are those of their key, and can be drawn or are refused", "[drawn]") {
  EntityClozeOptions options{.drawn = {.training = 2, .validation = 1, .test = 1}, .words = 100};
  options.drawn.questions = 2;
  const QuestionSet first = draw_entity_cloze(options), again = draw_entity_cloze(options);
  CHECK(first.training[1].words == again.training[1].words);
  CHECK(first.training[1].words != first.training[0].words);
  options.drawn.data_seed = 5;
  CHECK(draw_entity_cloze(options).training[1].words != first.training[1].words);
  const auto refused = [](EntityClozeOptions bad) {
    return message_of<tally::ConfigError>([&] { draw_entity_cloze(bad); });
  };
  CHECK_THAT(refused({.relations = 4}), Contains("more relations or entities"));
  CHECK_THAT(refused({.drawn = {.questions = 60}}), Contains("no more questions than sentences"));
  CHECK_THAT(refused({.least_fillers = 31}), Contains("least_fillers; got 31 and 30"));
}

}  // namespace drawn_sets_test
