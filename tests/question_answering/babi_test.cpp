#include "examples/question_answering/babi.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "tally/core/error.h"
#include "tally/core/io/gzip.h"
#include "tests/support/temporary_directory.h"

namespace babi_test {

using namespace question_answering;
using Catch::Matchers::Contains;
using tally::test::message_of;
using tally::test::TemporaryDirectory;
using Words = std::vector<std::string>;

namespace {

const std::string kData = std::string(TALLY_SOURCE_DIR) + "/examples/question_answering/data/babi";

constexpr const char* kStories =
    "1 Mary moved to the bathroom.\n"
    "2 John took 3 apples there.\n"
    "3 Where is Mary?\tbathroom\t1\n"
    "4 Daniel left.\n"
    "5 What is John carrying? \tapple,football\t2 4\n"
    "1 It's Sandra-Ann.\r\n"
    "2 Who is it? \tSandra-Ann\t1\r\n";

}  // namespace

TEST_CASE("stories of bAbI are documents with questions at places", "[babi]") {
  const TemporaryDirectory directory;
  const auto stories = read_babi_stories(directory.write("plain.txt", kStories));
  REQUIRE(stories.size() == 2);
  CHECK(stories[0].words ==
        Words{"mary", "moved", "to", "the", "bathroom", "john", "took", "3", "apples", "there", "daniel", "left"});
  REQUIRE(stories[0].questions.size() == 2);
  CHECK(stories[0].questions[0].words == Words{"where", "is", "mary"});
  CHECK(stories[0].questions[0].answer == "bathroom");
  CHECK(stories[0].questions[0].words_before == 10);
  CHECK(stories[0].questions[0].facts == std::vector<std::int64_t>{1});
  CHECK(stories[0].questions[1].answer == "apple,football");
  CHECK(stories[0].questions[1].words_before == 12);
  CHECK(stories[0].questions[1].facts == std::vector<std::int64_t>{2, 4});
  CHECK(stories[1].words == Words{"it's", "sandra-ann"});
  CHECK(stories[1].questions[0].answer == "sandra-ann");

  const auto packed = read_babi_stories(directory.write("packed.txt.gz", tally::gzip(kStories)));
  REQUIRE(packed.size() == 2);
  CHECK(packed[0].words == stories[0].words);
  CHECK(packed[1].questions[0].words == stories[1].questions[0].words);
}

TEST_CASE("a file that is not bAbI's is refused by file and line", "[babi]") {
  const TemporaryDirectory directory;
  const auto refused = [&](const std::string& text, const std::string& line, const std::string& what) {
    INFO(text.substr(0, 80));
    const auto file = directory.write("bad.txt", text);
    CHECK_THAT(message_of<tally::IoError>([&] { read_babi_stories(file); }),
               Contains(file.string() + ":" + line + "]") && Contains(what));
  };
  refused("", "0", "at least one story");
  refused("Mary moved.\n", "1", "number of a sentence");
  refused("1 \n", "1", "at least one word");
  refused("1\n", "1", "at least one word");
  refused("1 .\n", "1", "at least one word");
  refused("-1 Mary moved.\n", "1", "number of a sentence");
  refused("99999999999999999999 Mary moved.\n", "1", "number of a sentence");
  refused("2 Mary moved.\n", "1", "needs the number 1; got 2");
  refused("1 Mary moved.\n3 Where?\tx\t1\n", "2", "needs the number 2 or 1; got 3");
  refused("1 Mary moved.\n1 John moved.\n", "2", "a question in the story that ends here");
  refused("1 Mary moved.\n", "1", "a question in the story that ends here");
  refused("1 Where is Mary?\tbathroom\t1\n", "1", "a sentence before a question");
  refused("1 Mary moved.\n2 Where?\t\t1\n", "2", "an answer");
  refused("1 Mary moved.\n2 Where?\tx\t2\n", "2", "facts that are sentences before");
  refused("1 Mary moved.\n2 Where?\tx\t1\n3 Where?\tx\t2\n", "3", "facts that are sentences before");
  refused("1 Mary moved.\n2 Where?\tx\tone\n", "2", "facts that are sentences before");
  refused("1 Mary\x01moved.\n", "1", "words of letters");
  refused("1 M\xC3\xA4ry moved.\n", "1", "words of letters");
  refused("1 " + std::string(1 << 17, 'a') + "\n", "1", "");
  std::string long_story;
  for (int i = 1; i <= 40; ++i) {
    long_story += std::to_string(i);
    for (int word = 0; word < 30000; ++word) long_story += " a";
    long_story += '\n';
  }
  refused(long_story, "35", "at most 1048576 words");
  CHECK_THROWS_AS(read_babi_stories(directory / "absent.txt"), tally::IoError);
}

TEST_CASE("the tasks that ship have the figures that are known of them", "[babi]") {
  struct Known {
    std::string file;
    std::size_t stories;
    double words_before;  ///< a question, on average
    double majority;      ///< share of the most frequent answer
  };
  // Counted by other means: 1,000 questions each.
  for (const Known& known :
       {Known{"qa1_single-supporting-fact", 200, 31, 0.177}, Known{"qa2_two-supporting-facts", 200, 79, 0.210},
        Known{"qa4_two-arg-relations", 1000, 14, 0.180}, Known{"qa15_basic-deduction", 250, 36, 0.290}}) {
    INFO(known.file);
    const auto stories = read_babi_stories(kData + "/" + known.file + "_train.txt.gz");
    CHECK(stories.size() == known.stories);
    double words = 0, questions = 0;
    std::map<std::string, double> answers;
    for (const BabiStory& story : stories) {
      for (const BabiQuestion& question : story.questions) {
        words += static_cast<double>(question.words_before);
        ++questions;
        ++answers[question.answer];
        CHECK_FALSE(question.facts.empty());
      }
    }
    CHECK(questions == 1000);
    CHECK(words / questions == Approx(known.words_before).margin(0.5));
    const auto most = std::max_element(answers.begin(), answers.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    CHECK(most->second / questions == Approx(known.majority));
  }
}

TEST_CASE("stories are set apart by a key, and words are those that were learned", "[babi]") {
  BabiOptions options{.directory = kData, .tasks = {1, 15}, .validation_share = 0.1, .data_seed = 3};
  const QuestionSet set = read_babi(options);
  CHECK(set.tasks == Words{"qa1_single-supporting-fact", "qa15_basic-deduction"});
  CHECK(set.training.size() == 180 + 225);
  CHECK(set.validation.size() == 20 + 25);
  CHECK(count_questions(set.training) + count_questions(set.validation) == 2000);
  CHECK(count_questions(set.test) == 2000);
  for (const auto* part : {&set.training, &set.validation, &set.test}) {
    for (const Document& document : *part) {
      for (const Question& question : document.questions) {
        REQUIRE(question.place >= 0);
        REQUIRE(question.place < static_cast<std::int64_t>(document.words.size()));
        REQUIRE(question.answer != Vocabulary::kUnknown);  // bAbI's test has no new answers
      }
    }
  }
  // Set apart is not learned from: no story is in both parts, and together they are the file.
  std::multiset<std::vector<std::int32_t>> apart;
  for (const Document& document : set.validation) apart.insert(document.words);
  for (const Document& document : set.training) CHECK(apart.count(document.words) == 0);

  const QuestionSet again = read_babi(options);
  CHECK(again.validation.front().words == set.validation.front().words);
  options.data_seed = 4;
  const QuestionSet other = read_babi(options);
  std::multiset<std::vector<std::int32_t>> others;
  const auto text = [](const QuestionSet& from, const Document& document) {
    std::string all;
    for (const std::int32_t word : document.words) all += from.words.word(word) + ' ';
    return all;
  };
  std::set<std::string> first, second;
  for (const Document& document : set.validation) first.insert(text(set, document));
  for (const Document& document : other.validation) second.insert(text(other, document));
  CHECK(first != second);

  options.validation_share = 0;
  CHECK(read_babi(options).validation.empty());
  CHECK(count_questions(read_babi(options).training) == 2000);
}

TEST_CASE("words and answers that were not learned are unknown", "[babi]") {
  const TemporaryDirectory directory;
  directory.write("qa7_made_train.txt", "1 Mary moved.\n2 Who moved?\tMary\t1\n1 Mary ran.\n2 Who ran?\tMary\t1\n");
  directory.write("qa7_made_test.txt", "1 John moved.\n2 Who moved?\tJohn\t1\n");
  directory.write("notes.txt", "of no account");
  const QuestionSet set = read_babi({.directory = directory.path().string(), .validation_share = 0});
  REQUIRE(set.test.size() == 1);
  CHECK(set.test[0].words[0] == Vocabulary::kUnknown);
  CHECK(set.test[0].words[1] == set.words.find("moved"));
  CHECK(set.test[0].questions[0].answer == Vocabulary::kUnknown);
  CHECK(set.answers.size() == 2);  // Mary, and the unknown

  const auto refused = [&](const BabiOptions& options) {
    return message_of<tally::ConfigError>([&] { read_babi(options); });
  };
  CHECK_THAT(refused({.directory = directory.path().string(), .tasks = {8}}), Contains("qa8_NAME_train.txt"));
  CHECK_THAT(refused({.directory = (directory / "absent").string()}), Contains("there is none at"));
  directory.write("qa7_made_train.txt.gz", tally::gzip("1 Mary moved.\n2 Who moved?\tMary\t1\n"));
  CHECK_THAT(refused({.directory = directory.path().string()}), Contains("has task 7 twice"));
  std::filesystem::remove(directory / "qa7_made_train.txt");
  CHECK_THAT(refused({.directory = directory.path().string()}), Contains("leaves task 7 no story to learn from"));
}

}  // namespace babi_test
