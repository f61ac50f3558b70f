#include "examples/question_answering/babi.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "tally/core/io/line_reader.h"

namespace question_answering {
namespace {

namespace fs = std::filesystem;
using tally::check;
using tally::ConfigError;
using tally::LineReader;

constexpr std::size_t kLongestLine = 1 << 16;
constexpr std::size_t kLongestStory = 1 << 20;  // words
constexpr std::size_t kMostStories = 1 << 20;

/// A number from 1 to a billion, nothing for other text.
std::optional<std::int64_t> number_of(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 1'000'000'000) return {};
  return value;
}

/// What stands before the first `separator`; `text` keeps what follows.
std::string_view take_until(std::string_view& text, char separator) {
  const std::size_t end = text.find(separator);
  const std::string_view part = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return part;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

/// In lower case, less a full stop or question mark at its end.
std::string word_of(std::string_view text, const LineReader& reader) {
  if (text.ends_with('.') || text.ends_with('?')) text.remove_suffix(1);
  std::string word(text);
  for (char& c : word) {
    const bool upper = c >= 'A' && c <= 'Z';
    const bool plain = upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '\'' || c == ',';
    if (!plain) reader.refuse("needs words of letters, digits, hyphens, commas and apostrophes");
    if (upper) c = static_cast<char>(c - 'A' + 'a');
  }
  return word;
}

std::vector<std::string> words_of(std::string_view text, const LineReader& reader) {
  std::vector<std::string> words;
  while (!text.empty()) {
    std::string word = word_of(take_until(text, ' '), reader);
    if (!word.empty()) words.push_back(std::move(word));
  }
  if (words.empty()) reader.refuse("needs at least one word");
  return words;
}

/// Reads the lines of a file into stories.
class StoryReader {
 public:
  explicit StoryReader(const fs::path& file) : reader_(file, kLongestLine) {}

  std::vector<BabiStory> read() {
    for (std::string_view line; reader_.next(line);) {
      const std::optional<std::int64_t> id = number_of(take_until(line, ' '));
      if (!id) reader_.refuse("needs the number of a sentence, a space and text");
      begin_line(*id);
      if (line.find('\t') == std::string_view::npos) {
        add_sentence(line);
      } else {
        add_question(line);
      }
    }
    if (stories_.empty()) reader_.refuse("needs at least one story");
    end_story();
    return std::move(stories_);
  }

 private:
  void begin_line(std::int64_t id) {
    if (id == 1) {
      if (!stories_.empty()) end_story();
      if (stories_.size() == kMostStories) reader_.refuse("needs at most ", kMostStories, " stories");
      stories_.emplace_back();
      sentences_.clear();
    } else if (stories_.empty() || id != last_id_ + 1) {
      reader_.refuse("needs the number ", stories_.empty() ? 1 : last_id_ + 1, stories_.empty() ? "" : " or 1",
                     "; got ", id);
    }
    last_id_ = id;
  }
  void end_story() const {
    if (stories_.back().questions.empty()) reader_.refuse("needs a question in the story that ends here");
  }

  void add_sentence(std::string_view text) {
    std::vector<std::string>& words = stories_.back().words;
    for (std::string& word : words_of(text, reader_)) words.push_back(std::move(word));
    if (words.size() > kLongestStory) reader_.refuse("needs stories of at most ", kLongestStory, " words");
    sentences_.insert(last_id_);
  }
  void add_question(std::string_view text) {
    BabiStory& story = stories_.back();
    if (story.words.empty()) reader_.refuse("needs a sentence before a question");
    BabiQuestion question;
    question.words = words_of(take_until(text, '\t'), reader_);
    std::string_view answer = trimmed(take_until(text, '\t'));
    question.answer = word_of(answer, reader_);
    if (question.answer.empty()) reader_.refuse("needs an answer behind the question's tab");
    question.words_before = static_cast<std::int64_t>(story.words.size());
    for (text = trimmed(text); !text.empty();) {
      const std::optional<std::int64_t> fact = number_of(take_until(text, ' '));
      if (!fact || !sentences_.contains(*fact)) reader_.refuse("needs facts that are sentences before the question");
      question.facts.push_back(*fact);
    }
    story.questions.push_back(std::move(question));
  }

  LineReader reader_;
  std::vector<BabiStory> stories_;
  std::set<std::int64_t> sentences_;  ///< of the story
  std::int64_t last_id_ = 0;
};

struct TaskFiles {
  std::string name;  ///< "qa1_single-supporting-fact"
  fs::path training, test;
};

/// The tasks of a directory by number.
std::map<std::int64_t, TaskFiles> find_tasks(const fs::path& directory) {
  check<ConfigError>(fs::is_directory(directory), "directory", "needs a directory of bAbI tasks; there is none at \"",
                     directory.string(), '"');
  std::map<std::int64_t, TaskFiles> tasks;
  for (const auto& entry : fs::directory_iterator(directory)) {
    std::string name = entry.path().filename().string();
    if (name.ends_with(".gz")) name.resize(name.size() - 3);
    const bool training = name.ends_with("_train.txt"), test = name.ends_with("_test.txt");
    if (!name.starts_with("qa") || (!training && !test)) continue;
    name.resize(name.rfind('_'));
    const std::string_view digits = std::string_view(name).substr(2, name.find('_') - 2);
    const std::optional<std::int64_t> number = number_of(digits);
    if (!number) continue;
    TaskFiles& files = tasks[*number];
    fs::path& place = training ? files.training : files.test;
    check<ConfigError>(place.empty() && (files.name.empty() || files.name == name), "directory", "has task ", *number,
                       " twice: ", entry.path().string());
    files.name = name;
    place = entry.path();
  }
  return tasks;
}

/// Adds stories to a part of the set. With `learn` new words are added to the vocabularies.
void add_stories(const std::vector<BabiStory>& stories, std::int64_t task, bool learn, QuestionSet& set,
                 std::vector<Document>& part) {
  const auto ids_of = [&](const std::vector<std::string>& words) {
    std::vector<std::int32_t> ids;
    for (const std::string& word : words) ids.push_back(learn ? set.words.add(word) : set.words.find(word));
    return ids;
  };
  for (const BabiStory& story : stories) {
    Document document{ids_of(story.words), {}, task};
    for (const BabiQuestion& question : story.questions) {
      document.questions.push_back({ids_of(question.words), question.words_before - 1,
                                    learn ? set.answers.add(question.answer) : set.answers.find(question.answer)});
    }
    part.push_back(std::move(document));
  }
}

}  // namespace

std::vector<BabiStory> read_babi_stories(const fs::path& file) { return StoryReader(file).read(); }

QuestionSet read_babi(const BabiOptions& options) {
  const std::map<std::int64_t, TaskFiles> there = find_tasks(options.directory);
  std::set<std::int64_t> wanted(options.tasks.begin(), options.tasks.end());
  if (wanted.empty()) {
    for (const auto& [number, files] : there) wanted.insert(number);
  }
  check<ConfigError>(!wanted.empty(), "directory", "needs files qaN_NAME_train.txt in \"", options.directory, '"');
  QuestionSet set;
  set.name = "bAbI";
  const tally::RngKey key{static_cast<std::uint64_t>(options.data_seed)};
  std::vector<std::pair<std::int64_t, std::vector<BabiStory>>> not_learned, tests;
  for (const std::int64_t number : wanted) {
    const auto found = there.find(number);
    check<ConfigError>(found != there.end() && !found->second.training.empty() && !found->second.test.empty(), "tasks",
                       "needs files qa", number, "_NAME_train.txt and qa", number, "_NAME_test.txt in \"",
                       options.directory, '"');
    const auto task = static_cast<std::int64_t>(set.tasks.size());
    set.tasks.push_back(found->second.name);
    std::vector<BabiStory> stories = read_babi_stories(found->second.training);
    const auto total = static_cast<std::int64_t>(stories.size());
    auto apart = static_cast<std::int64_t>(options.validation_share * static_cast<double>(total));
    if (options.validation_share > 0) apart = std::max<std::int64_t>(apart, 1);
    check<ConfigError>(apart < total, "validation_share", "leaves task ", number, " no story to learn from");
    const auto order = random_permutation(key.fold_in(static_cast<std::uint64_t>(number)), total);
    std::vector<std::uint8_t> is_apart(stories.size());
    for (std::int64_t i = 0; i < apart; ++i) is_apart[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = 1;
    std::vector<BabiStory> learned, kept_apart;
    for (std::size_t i = 0; i < stories.size(); ++i) {
      (is_apart[i] != 0 ? kept_apart : learned).push_back(std::move(stories[i]));
    }
    add_stories(learned, task, true, set, set.training);
    not_learned.emplace_back(task, std::move(kept_apart));
    tests.emplace_back(task, read_babi_stories(found->second.test));
  }
  for (const auto& [task, stories] : not_learned) add_stories(stories, task, false, set, set.validation);
  for (const auto& [task, stories] : tests) add_stories(stories, task, false, set, set.test);
  return set;
}

}  // namespace question_answering
