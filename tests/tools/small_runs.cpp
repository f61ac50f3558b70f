#include "tests/tools/small_runs.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tally/core/random.h"

namespace tally::test {

namespace fs = std::filesystem;

std::string walks_csv() {
  std::string text = "userId,movieId,rating,timestamp\n";
  const RngKey key{20, 26};
  for (std::uint64_t user = 0; user < kUsers; ++user) {
    std::uint64_t item = uniform_below(key, user, 0, kItems);
    const std::uint64_t length = 15 + uniform_below(key, user, 1, 10);
    for (std::uint64_t i = 0; i < length; ++i) {
      text += detail::join(user + 1, ',', item + 1, ",4.0,", 1000 + i, '\n');
      item = (item + 1 + uniform_below(key, user, 2 + i, 2)) % kItems;
    }
  }
  return text;
}

std::string titles_csv() {
  std::string text = "movieId,title,genres\n";
  for (int item = 1; item <= kItems; ++item) text += detail::join(item, ",\"Film, number ", item, "\",Drama\n");
  return text;
}

Workshop::Workshop() {
  files_.write("ratings.csv", walks_csv());
  files_.write("movies.csv", titles_csv());
  files_.write("config.json", R"({
  "data": {
    "path": "ratings.csv",
    "USER_ID_FIELD": "userId",
    "ITEM_ID_FIELD": "movieId",
    "TIME_FIELD": "timestamp",
    "titles": "movies.csv"
  },
  "model": {
    "hidden_size": 16,
    "n_layers": 1,
    "MAX_ITEM_LIST_LENGTH": 20
  },
  "train": {
    "epochs": )" + std::to_string(kEpochs) +
                                  R"(,
    "train_batch_size": 8,
    "checkpoint_steps": 3
  }
}
)");
}

std::vector<std::string> Workshop::train_arguments(std::initializer_list<std::string> overrides) const {
  std::vector<std::string> arguments{"train", config().string(), "--output=" + output().string()};
  arguments.insert(arguments.end(), overrides);
  return arguments;
}

CommandResult Workshop::train(std::initializer_list<std::string> overrides) const {
  return tally_command(train_arguments(overrides));
}

fs::path Workshop::run() const {
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(output(), none)) return entry.path();
  return {};
}

CommandResult tally_command(const std::vector<std::string>& arguments) { return run_command(TALLY_COMMAND, arguments); }

const Workshop& finished() {
  static const Workshop workshop;
  static const CommandResult result = workshop.train();
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  return workshop;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string said(const std::vector<std::string>& arguments) {
  const CommandResult result = tally_command(arguments);
  INFO(arguments.front() << ": " << result.error);
  CHECK(result.exit_code == 0);
  return result.out;
}

std::string column(const std::string& table, const std::string& name) {
  const std::vector<std::string> lines = lines_of(table);
  std::string text;
  std::size_t at = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::istringstream in(lines[i]);
    std::vector<std::string> cells;
    for (std::string cell; std::getline(in, cell, '\t');) cells.push_back(cell);
    if (i == 0) {
      const auto found = std::find(cells.begin(), cells.end(), name);
      REQUIRE(found != cells.end());
      at = static_cast<std::size_t>(found - cells.begin());
    } else {
      text += (text.empty() ? "" : " ") + cells.at(at);
    }
  }
  return text;
}

std::map<std::string, std::string> trained_files(const fs::path& run) {
  std::map<std::string, std::string> files;
  for (const char* name : {"best/model.safetensors", "last/model.safetensors", "last/optimizer.safetensors"}) {
    files[name] = read_file(run / "checkpoints" / name);
  }
  return files;
}

std::vector<std::string> logged(const fs::path& run) {
  std::vector<std::string> records{read_file(run / "test_metrics.json"), read_file(run / "ranks.tsv"),
                                   read_file(run / "recommendations.tsv")};
  const std::string text = read_file(run / "metrics.jsonl");
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const Json record = parse_json(text.substr(begin, end - begin));
    Json kept = Json::object();
    for (const auto& [name, value] : record.members()) {
      if (name != "seconds" && name != "tokens_per_second" && name != "sgemm_share" &&
          name != "sgemm_operations_per_second" && name != "peak_memory")
        kept.set(name, value);
    }
    records.push_back(kept.dump());
    begin = end + 1;
  }
  return records;
}

void check_refused(const CommandResult& result, int exit_code, std::initializer_list<std::string> parts) {
  INFO(result.error);
  CHECK(result.exit_code == exit_code);
  CHECK(result.error.starts_with("tally: "));
  CHECK(std::count(result.error.begin(), result.error.end(), '\n') == 1);
  CHECK_THAT(result.error, !Catch::Contains("] ["));  // one place, and what is wrong there
  for (const std::string& part : parts) CHECK_THAT(result.error, Catch::Contains(part));
}

void check_as_uninterrupted(const fs::path& run) {
  const auto expected = trained_files(finished().run()), got = trained_files(run);
  for (const auto& [name, bytes] : expected) {
    INFO(name);
    CHECK(got.at(name) == bytes);
  }
  CHECK(logged(run) == logged(finished().run()));
}

std::size_t leftovers(const fs::path& directory) {
  std::size_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    count += entry.path().filename().string().starts_with(".");
  }
  return count;
}

}  // namespace tally::test
