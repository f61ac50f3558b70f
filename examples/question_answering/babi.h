#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "examples/question_answering/question_set.h"
#include "tally/core/options/options.h"
#include "tally/core/random.h"

// The bAbI tasks (Weston et al., arXiv 1502.05698), version 1.2. A file is a list of lines
//
//   ID text
//   ID question<TAB>answer<TAB>IDs of supporting facts
//
// with IDs that count from 1 within a story. A story with its questions is one document: a question sees the sentences
// before it, and its own words are no part of the document.

namespace question_answering {

struct BabiQuestion {
  std::vector<std::string> words;
  std::string answer;               ///< several in one, joined by commas, as the file has them
  std::int64_t words_before = 0;    ///< of the story, all that it may be answered from
  std::vector<std::int64_t> facts;  ///< IDs of the sentences that answer it; for statistics, models do not see them
};

struct BabiStory {
  std::vector<std::string> words;  ///< of all its sentences, in lower case
  std::vector<BabiQuestion> questions;
};

/// The stories of a file, plain or gzip'd. Throws IoError naming file and line: for an ID that does not follow, text
/// that is no words, a question without a sentence before it, without an answer or with a fact that no sentence before
/// it is, a story without a question, a file without a story, and for a story or a word beyond reason.
std::vector<BabiStory> read_babi_stories(const std::filesystem::path& file);

struct BabiOptions {
  std::string directory = "data/babi";
  std::vector<std::int64_t> tasks = {};
  double validation_share = 0.1;
  std::int64_t data_seed = 1;
  static void keys(auto& o, auto&& key) {
    key("directory", o.directory, "that holds qaN_NAME_train.txt and qaN_NAME_test.txt, or .txt.gz; from the config's");
    key("tasks", o.tasks, tally::at_least(1),
        "numbers of the tasks that are learned together; none: all that are there");
    key("validation_share", o.validation_share, tally::rate(), "of the training stories of each task, set apart");
    key("data_seed", o.data_seed, tally::at_least(0), "draws the stories that are set apart");
  }
};

/// The tasks as one set: words and answers are those of the stories that are trained on. Throws ConfigError for a
/// directory without the files, and as read_babi_stories().
QuestionSet read_babi(const BabiOptions& options);

}  // namespace question_answering
