// `tally evaluate` and `tally recommend` on a run, and what they and --resume say of a run that is not what it seems.
#include <catch2/catch.hpp>
#include <cstdio>
#include <set>
#include <sstream>

#include "tally/core/io/file.h"
#include "tally/core/io/safetensors.h"
#include "tally/nn/training/checkpoint.h"
#include "tests/tools/small_runs.h"
#include "tests/tools/stream_process.h"

namespace finished_run_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

/// A copy of the finished run that a test may spoil.
class Copy {
 public:
  Copy() { fs::copy(finished().run(), path(), fs::copy_options::recursive); }
  fs::path path() const { return directory_ / "run"; }
  void replace(const std::string& file, const std::string& from, const std::string& to) const {
    std::string text = read_file(path() / file);
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    write_file_atomically(path() / file, text.replace(at, from.size(), to));
  }
  void flip(const std::string& file, double where) const {
    std::string bytes = read_file(path() / file);
    char& byte = bytes[static_cast<std::size_t>(where * static_cast<double>(bytes.size() - 1))];
    byte = static_cast<char>(byte ^ 1);
    write_file_atomically(path() / file, bytes);
  }
  /// Every file with its contents.
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(path())) {
      if (entry.is_regular_file()) all[entry.path().string()] = read_file(entry.path());
    }
    return all;
  }

 private:
  TemporaryDirectory directory_;
};

struct Recommended {
  std::string item, title;
};

std::vector<Recommended> recommended(const std::vector<std::string>& arguments) {
  std::vector<std::string> all{"recommend", finished().run()};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const CommandResult result = tally_command(all);
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  std::istringstream lines(result.out);
  std::string line;
  std::getline(lines, line);
  CHECK(line == "rank\titem_id\tscore\ttitle\tranker");
  std::vector<Recommended> rows;
  double last = std::numeric_limits<double>::infinity();
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string rank, item, score, title;
    std::getline(fields, rank, '\t');
    std::getline(fields, item, '\t');
    std::getline(fields, score, '\t');
    std::getline(fields, title, '\t');
    rows.push_back({item, title});
    CHECK(rank == std::to_string(rows.size()));
    CHECK(std::stod(score) <= last);
    last = std::stod(score);
  }
  return rows;
}

}  // namespace

TEST_CASE("evaluate prints the figures that the run wrote", "[evaluate]") {
  const Json report = read_json(finished().run() / "test_metrics.json");
  const Json& model = report.at("test").at(std::size_t{2});
  char expected[100];
  std::snprintf(expected, sizeof(expected), "HR@10 %.4f  NDCG@10 %.4f  MRR@10 %.4f", model.at("HR@10").as_double(),
                model.at("NDCG@10").as_double(), model.at("MRR@10").as_double());
  const CommandResult result = tally_command({"evaluate", finished().run()});
  CHECK(result.exit_code == 0);
  CHECK(result.error.empty());
  CHECK_THAT(result.out, Contains("sasrec test:") && Contains(expected) && Contains(model.at("protocol").as_string()));
  const CommandResult validation = tally_command({"evaluate", finished().run(), "--part", "validation"});
  std::snprintf(expected, sizeof(expected), "NDCG@10 %.4f", report.at("best_validation").as_double());
  CHECK_THAT(validation.out, Contains("sasrec validation:") && Contains(expected));
}

TEST_CASE("recommend takes the history of a user never seen", "[recommend]") {
  const auto ten = recommended({"--history", "5,6,8"});
  CHECK(ten.size() == 10);
  std::set<std::string> items;
  for (const Recommended& row : ten) {
    items.insert(row.item);
    CHECK(row.title == "Film, number " + row.item);
  }
  CHECK(items.size() == 10);
  // Without the three of the history there are 37; asked for more, all of them are given.
  const auto unseen = recommended({"--history", "5,6,8", "--k", "100"});
  CHECK(unseen.size() == kItems - 3);
  for (const Recommended& row : unseen) CHECK((row.item != "5" && row.item != "6" && row.item != "8"));
  CHECK(recommended({"--history", "5,6,8", "--k", "100", "--keep-seen"}).size() == kItems);
  CHECK(recommended({"--history", "5,6,8", "--k", "1"}).size() == 1);
}

TEST_CASE("a run whose attention reads the times of events ends with recommendations", "[train]") {
  const Workshop workshop;
  const auto result = workshop.train({"--model.attention=time_decay", "--train.epochs=1"});
  CHECK(result.error == "");
  CHECK(result.exit_code == 0);
  REQUIRE(!workshop.run().empty());
  CHECK(lines_of(read_file(workshop.run() / "recommendations.tsv")).size() > kUsers);
}

TEST_CASE("recommend takes the times of a history where the model reads them", "[recommend][stream]") {
  const Workshop workshop;
  REQUIRE(workshop.train({"--model.attention=time_decay", "--model.time_unit=3", "--train.epochs=1"}).exit_code == 0);
  const std::string run = workshop.run();
  // What user 7 did, as the data say.
  std::string items, times, rows = "userId,movieId,timestamp\n", events;
  for (const std::string& line : lines_of(walks_csv())) {
    if (!line.starts_with("7,")) continue;
    const std::string item = line.substr(2, line.find(',', 2) - 2), time = line.substr(line.rfind(',') + 1);
    items += item + ',';
    times += time + ',';
    rows += "7," + item + ',' + time + '\n';
    events += "7\t" + item + '\t' + time + '\n';
  }
  const std::string by_hand = column(said({"recommend", run, "--history", items, "--times", times}), "item_id");
  CHECK(column(said({"recommend", run, "--user", "7"}), "item_id") == by_hand);
  const std::string file = workshop.files().write("history.csv", rows);
  CHECK(column(said({"recommend", run, "--input", file}), "item_id") == by_hand);
  Stream stream({"--answer", "queries"}, run);
  stream.write(events + "7\t?\n");
  const CommandResult end = stream.finish();
  CHECK(end.error == "");
  CHECK(column(end.out, "item_id") == by_hand);

  check_refused(tally_command({"recommend", run, "--history", items}), 2,
                {"[--times] is needed with --history: the model reads when events were"});
  check_refused(tally_command({"recommend", run, "--history", "5,6", "--times", "7"}), 2,
                {"[--times] needs one of each of the 2 events of --history; got 1"});
  check_refused(tally_command({"recommend", run, "--history", "5", "--times", "noon"}), 2,
                {"[--times] needs a time that is a finite number; got 'noon'"});
  const std::string untimed = workshop.files().write("untimed.csv", "userId,movieId\n7,5\n");
  check_refused(tally_command({"recommend", run, "--input", untimed}), 1,
                {"needs the times of the histories' events, which its model reads; these have none"});
  Stream without({}, run);
  without.write("7\t5\n");
  check_refused(without.finish(), 1, {"[standard input:1] needs a third column, the time of the event"});
  // Others pass them over.
  const std::string of_others = finished().run();
  CHECK(said({"recommend", of_others, "--history", "5,6", "--times", "7,8"}) ==
        said({"recommend", of_others, "--history", "5,6"}));
}

TEST_CASE("recommend refuses what is no history", "[recommend]") {
  const std::string run = finished().run();
  check_refused(tally_command({"recommend", run, "--history", "5,4711"}), 2, {"[--history]", "4711", run});
  check_refused(tally_command({"recommend", run}), 2, {"[recommend] needs --history, --input, --user or --stream"});
  check_refused(tally_command({"recommend", run, "--history", "5", "--k", "0"}), 2, {"[--k] needs at least 1; got 0"});
  check_refused(tally_command({"recommend", run, "--history", "5", "--k", "x"}), 2, {"--k"});
}

TEST_CASE("what is no run is refused", "[evaluate][resume]") {
  const TemporaryDirectory empty;
  const std::string path = empty.path();
  for (const std::vector<std::string>& command : {std::vector<std::string>{"evaluate", path},
                                                  {"recommend", path, "--history", "1"},
                                                  {"train", "--resume", path}}) {
    check_refused(tally_command(command), 1, {"[" + path + "] is no run directory: it has no config.resolved.json"});
  }
  check_refused(tally_command({"evaluate", path + "/none"}), 1, {"/none] is no run directory"});
  CHECK(empty.entries() == 0);
  check_refused(tally_command({"train", "--resume", path, "--epochs=3"}), 2, {"[train] takes no --key=value"});
  check_refused(tally_command({"evaluate", path, "--part", "training"}), 2, {"--part", "training"});
}

TEST_CASE("a training does not go on with another one's settings", "[resume]") {
  for (const auto& [was, is, named] : std::vector<std::array<std::string, 3>>{
           {"\"loss_type\": \"CE\"", "\"loss_type\": \"BCE\"", "its train.loss_type is \"CE\", here it is \"BCE\""},
           {"\"train_batch_size\": 8", "\"train_batch_size\": 7", "its train.train_batch_size is 8, here it is 7"},
           {"\"learning_rate\": 0.001", "\"learning_rate\": 0.02", "its train.learning_rate is 0.001, here it is 0.02"},
           {"\"seed\": 42", "\"seed\": 43", "its train.seed is 42, here it is 43"},
           {"\"min_length\": 3", "\"min_length\": 4", "its split.min_length is 3, here it is 4"},
           {"\"mode\": \"full\"", "\"mode\": \"uni20\"", "its evaluation.mode is \"full\", here it is \"uni20\""}}) {
    const Copy copy;
    copy.replace("config.resolved.json", was, is);
    const auto before = copy.files();
    check_refused(tally_command({"train", "--resume", copy.path()}), 1, {"checkpoints/last] is of another run", named});
    CHECK(copy.files() == before);
  }
  // What does not change a step that was made may change.
  const Copy longer;
  longer.replace("config.resolved.json", "\"checkpoint_steps\": 3", "\"checkpoint_steps\": 5");
  longer.replace("config.resolved.json", detail::join("\"epochs\": ", kEpochs),
                 detail::join("\"epochs\": ", kEpochs + 1));
  CHECK(tally_command({"train", "--resume", longer.path()}).exit_code == 0);
}

TEST_CASE("a checkpoint of another model or other data is refused and kept", "[evaluate][resume]") {
  const Copy copy;
  const std::string run = copy.path();
  copy.replace("config.resolved.json", "\"hidden_size\": 16", "\"hidden_size\": 32");
  auto before = copy.files();
  check_refused(tally_command({"train", "--resume", run}), 1,
                {"checkpoints/last] is of another run: its model.hidden_size is 16, here it is 32"});
  check_refused(tally_command({"evaluate", run}), 1, {"checkpoints/best] is of another run", "hidden_size"});
  CHECK(copy.files() == before);

  const TemporaryDirectory other;
  other.write("ratings.csv", walks_csv() + "1,1,4.0,2000\n");
  copy.replace("config.resolved.json", "\"hidden_size\": 32", "\"hidden_size\": 16");
  copy.replace("config.resolved.json", finished().data(), other / "ratings.csv");
  before = copy.files();
  check_refused(tally_command({"train", "--resume", run}), 1, {run + "] was trained on other data than"});
  check_refused(tally_command({"evaluate", run}), 1, {run + "] was trained on other data than"});
  CHECK(copy.files() == before);
}

TEST_CASE("a damaged checkpoint is refused and kept", "[evaluate][resume]") {
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "manifest.json"}) {
    for (const double where : {0.0, 0.3, 0.99}) {
      const Copy copy;
      const std::string file = std::string("checkpoints/last/") + name;
      copy.flip(file, where);
      INFO(file << " at " << where);
      const auto before = copy.files();
      check_refused(tally_command({"train", "--resume", copy.path()}), 1, {"checkpoints/last"});
      CHECK(copy.files() == before);
    }
  }
  const Copy copy;
  copy.flip("checkpoints/best/model.safetensors", 0.5);
  check_refused(tally_command({"evaluate", copy.path()}), 1, {"best/model.safetensors]", "it is damaged"});
  fs::remove(copy.path() / "checkpoints/best/model.safetensors");
  check_refused(tally_command({"evaluate", copy.path()}), 1, {"best/model.safetensors] cannot open"});
  fs::remove_all(copy.path() / "checkpoints/best");
  check_refused(tally_command({"evaluate", copy.path()}), 1, {"has no weights to use yet"});
}

TEST_CASE("a finished run that is resumed stays as it is", "[resume]") {
  const Copy copy;
  const auto files = trained_files(copy.path());
  const auto records = logged(copy.path());
  // Paths of the run hold from any directory.
  const CommandResult result = run_command(
      "/bin/sh", {"-c", "cd / && exec \"$@\"", "sh", TALLY_COMMAND, "train", "--resume", copy.path().string()});
  INFO(result.error);
  CHECK(result.exit_code == 0);
  CHECK(trained_files(copy.path()) == files);
  CHECK(logged(copy.path()) == records);
}

TEST_CASE("a config given by a relative path can be resumed and evaluated from elsewhere", "[resume]") {
  const Workshop workshop;
  const CommandResult result =
      run_command("/bin/sh", {"-c", "cd \"$0\" && exec \"$@\"", workshop.files().path().string(), TALLY_COMMAND,
                              "train", "config.json", "--output=runs", "--epochs=1"});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  CHECK(tally_command({"evaluate", workshop.run()}).exit_code == 0);
}

TEST_CASE("vectors that are not finite are refused, not written or ranked", "[recommend]") {
  const Copy copy;
  const fs::path best = copy.path() / "checkpoints/best";
  std::map<std::string, Tensor> weights = load_safetensors(best / "model.safetensors").tensors;
  weights.at("items.table").mutable_data<float>()[17] = std::numeric_limits<float>::quiet_NaN();
  nn::TensorList state;
  for (auto& [path, tensor] : weights) state.push_back({path, &tensor});
  nn::save_weights(best, state, read_json(best / "manifest.json").at("fields").at("identity"));
  const std::string run = copy.path();
  check_refused(tally_command({"similar", run, "--item", "5"}), 1, {run, "vectors which are not finite"});
  check_refused(tally_command({"embed", run, "--output", run + "-embedded"}), 1, {run, "vectors which are not finite"});
  CHECK_FALSE(is_there(run + "-embedded"));
}

}  // namespace finished_run_test
