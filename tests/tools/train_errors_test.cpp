// What `tally train` says when its config, its command line or its data are wrong: one sentence, an exit code, and no
// run directory.

#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tally/core/io/gzip.h"
#include "tests/tools/small_runs.h"

namespace train_errors_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

using Parts = std::initializer_list<std::string>;

void check_untouched(const Workshop& workshop) { CHECK_FALSE(std::filesystem::exists(workshop.output())); }

/// A config file of the given text is refused.
void refuse_config(const std::string& text, Parts parts) {
  const Workshop workshop;
  workshop.files().write("config.json", text);
  check_refused(workshop.train(), 2, parts);
  check_untouched(workshop);
}

void refuse_override(const std::string& override_text, Parts parts) {
  const Workshop workshop;
  INFO(override_text);
  check_refused(workshop.train({override_text}), 2, parts);
  check_untouched(workshop);
}

/// A data file of the given bytes is refused.
void refuse_data(const std::string& bytes, Parts parts, std::initializer_list<std::string> overrides = {}) {
  const Workshop workshop;
  workshop.files().write("ratings.csv", bytes);
  check_refused(workshop.train(overrides), 1, parts);
  check_untouched(workshop);
}

}  // namespace

TEST_CASE("a wrong config is refused by the name of its key", "[train]") {
  refuse_config(R"({"data": {"path": "ratings.csv"}, "train": {"lerning_rate": 0.1}})",
                {"[train.lerning_rate] is not a known key", "did you mean \"learning_rate\"?"});
  refuse_config(R"({"data": {"path": "ratings.csv"}, "trian": {}})", {"[trian]", "did you mean \"train\"?"});
  refuse_config(R"({"data": {"path": "ratings.csv"}, "train": {"epochs": "ten"}})",
                {"[train.epochs] needs an integer; got string \"ten\""});
  refuse_config(R"({"data": {"path": "ratings.csv"}, "train": 3})", {"[train] needs an object"});
  refuse_config(R"({"data": {"path": "ratings.csv"}, "model": {"hidden_dropout_prob": 1}})",
                {"[model.hidden_dropout_prob] needs a value in [0, 1); got 1"});
  refuse_config(R"({"data": {"path": "ratings.csv"}, "model": {"n_layers": 9223372036854775807}})",
                {"[model.n_layers] needs a value in [1, 1000]; got 9223372036854775807"});
  refuse_config(R"({"data": {"path": "ratings.csv"}, "train": {"learner": "adm"}})",
                {"[train.learner]", "did you mean \"adam\"?"});
  refuse_config("{}", {"[data.path] is missing"});
  refuse_config("[1, 2]", {"config.json] needs a JSON object {...} of sections; got array"});
}

TEST_CASE("what a config asks of parameters is refused under its own name alone", "[train]") {
  const auto refuse_groups = [](const std::string& groups, Parts parts) {
    const Workshop workshop;
    Json config = read_json(workshop.config());
    config.set_at("train.parameter_groups", parse_json(groups));
    workshop.files().write("config.json", config.dump());
    check_refused(workshop.train(), 2, parts);
  };
  refuse_groups(R"([{"paths": "nothing"}])", {"[train.parameter_groups] needs groups of parameters that are there"});
  refuse_groups(R"([{"paths": "*", "frozen": true}])", {"[trainer] needs a parameter that is not frozen"});
}

TEST_CASE("a config file that is no JSON is refused with line and column", "[train]") {
  refuse_config("{\n  \"data\": {\"path\": \"ratings.csv\"},\n  \"train\": {epochs: 3}\n}", {"config.json:3:13]"});
  refuse_config("", {"config.json:1:1]"});
  refuse_config("{\"data\": {}, \"data\": {}}", {"config.json:1:", "duplicate key"});
  const Workshop workshop;
  check_refused(tally_command({"train", workshop.files() / "none.json"}), 2,
                {"none.json] cannot open: No such file or directory"});
}

TEST_CASE("a wrong override is refused", "[train]") {
  refuse_override("--lerning_rate=0.1", {"[--lerning_rate] is no key of a config; did you mean \"learning_rate\"?"});
  refuse_override("--train.lerning_rate=0.1", {"[train.lerning_rate] is not a known key", "\"learning_rate\""});
  refuse_override("--epochs=ten", {"[train.epochs] needs an integer; got string \"ten\""});
  refuse_override("--epochs=0", {"[train.epochs] needs at least 1; got 0"});
  refuse_override("--train=3", {"[--train] is a section", "train.epochs"});
  refuse_override("--train.epochs.x=3", {"[--train.epochs.x]", "no section"});
  refuse_override("--epochs", {"[--epochs] needs the form --key=value"});
  refuse_override("epochs=3", {"[epochs=3] is neither an option nor --key=value"});
  refuse_override("--valid_metric=NDCG@20", {"[train.valid_metric]", "evaluation.topk", "\"NDCG@20\""});
  refuse_override("--min_rating=3", {"[data.min_rating] needs data.RATING_FIELD"});
  refuse_override("--clip_grad_norm=-1", {"[train.clip_grad_norm] needs at least 0; got -1"});
  refuse_override("--show_user=nobody", {"[show_user] needs a user of ", "ratings.csv; got \"nobody\""});
  refuse_override("--threads=0", {"[--threads] needs at least 1; got 0"});
  refuse_override("--threads=many", {"--threads"});
  check_refused(tally_command({"train"}), 2, {"[train] needs a config file, or --resume RUN"});
}

TEST_CASE("wrong data is refused with file and line", "[train]") {
  const std::string header = "userId,movieId,rating,timestamp\n";
  refuse_data("userId,item,rating,timestamp\n1,2,3,4\n",
              {"ratings.csv] needs a column 'movieId'; the columns are userId, item, rating, timestamp"});
  refuse_data(header + "1,2,3,4\n1,3,3\n", {"ratings.csv:3] needs 4 fields as the header has; got 3"});
  refuse_data(header + "1,2,3,4\n1,3,3,noon\n", {"ratings.csv:3:7] needs a finite number as timestamp; got 'noon'"});
  refuse_data(header + "1,2,3,4\n1,,3,5\n", {"ratings.csv:3:3] needs a movieId; got an empty field"});
  refuse_data(header + "1,2,3,4\n1,3,nan,5\n", {"ratings.csv:3:5] needs a finite number as rating; got 'nan'"},
              {"--RATING_FIELD=rating"});
  refuse_data(header + "1,2,3,4\n1,3,1e999,5\n", {"ratings.csv:3:5] needs a finite number as rating"},
              {"--RATING_FIELD=rating"});
  refuse_data("", {"ratings.csv] is empty; needs a header line"});
  refuse_data(header, {"ratings.csv] has no rows"});
  refuse_data(header + "1,2,3,4\n1,3,3,5\n2,2,3,4\n2,3,3,5\n", {"ratings.csv] has no user with 3 events"});
  refuse_data(header + "1,2,3,4\n1,3,3,5\n1,4,3,6\n", {"ratings.csv] has no user with two training events"});
  const std::string bytes = gzip(walks_csv());
  refuse_data(bytes.substr(0, bytes.size() / 2), {"ratings.csv:", "ends within its gzip data: it was cut off"});
}

TEST_CASE("missing files and places that cannot be written are refused", "[train]") {
  const Workshop workshop;
  check_refused(workshop.train({"--data.path=/none/ratings.csv"}), 1,
                {"[/none/ratings.csv] cannot open: No such file or directory"});
  check_refused(workshop.train({"--titles=/none/movies.csv"}), 1, {"[/none/movies.csv] cannot open"});
  workshop.files().write("movies.csv", "movieId,name\n1,x\n");
  check_refused(workshop.train(), 1, {"movies.csv] needs a column 'title'"});
  check_untouched(workshop);
  workshop.files().write("movies.csv", titles_csv());
  const std::string blocked = workshop.data() / "runs";
  check_refused(workshop.train({"--output=" + blocked}), 1, {blocked, "cannot be created: Not a directory"});
}

TEST_CASE("users with one event and rows that are skipped are counted", "[train]") {
  const Workshop workshop;
  workshop.files().write("ratings.csv", walks_csv() + "lonely,1,5,1000\n7,oops\n");
  const CommandResult result = workshop.train({"--epochs=1", "--bad_rows=skip"});
  CHECK(result.exit_code == 0);
  CHECK(result.error.empty());
  CHECK_THAT(result.out, Contains("users 61 ") && Contains("users with one event 1  with fewer than three 1 "));
  CHECK_THAT(result.out, Contains("left out: 1 malformed rows") && Contains("needs 4 fields as the header has; got 2"));
}

TEST_CASE("epochs, batches and numbers of items of any size do not overflow", "[train]") {
  const std::string most = "9223372036854775807";
  const Workshop workshop;
  const CommandResult result =
      workshop.train({"--train.epochs=1", "--train.train_batch_size=" + most, "--train.accumulate_batches=" + most,
                      "--train.checkpoint_steps=" + most, "--train.eval_step=" + most, "--train.stopping_step=" + most,
                      "--evaluation.topk=[10," + most + "]"});
  CHECK(result.error == "");
  CHECK(result.exit_code == 0);
  CHECK(said({"recommend", workshop.run(), "--history", "1", "--k", most}).size() > 100);
  // A schedule over all steps of so many epochs.
  const CommandResult many =
      workshop.train({"--train.epochs=" + most, "--train.decay=cosine", "--train.stopping_step=1"});
  CHECK(many.error == "");
  CHECK(many.exit_code == 0);
}

TEST_CASE("a long name of data makes no run that cannot be named", "[train]") {
  const Workshop workshop;
  const std::string name = "\xC3\xA9" + std::string(97, 'd') + "\xC3\xA9" + std::string(140, 'e');
  std::filesystem::create_directory(workshop.files() / name);
  const std::string path = workshop.files() / name / "ratings.csv";
  std::filesystem::copy(workshop.data(), path);
  const CommandResult result = workshop.train({"--data.path=" + path, "--epochs=1"});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  CHECK_THAT(workshop.run().filename(), Catch::StartsWith("\xC3\xA9" + std::string(97, 'd') + "_sasrec_"));
}

}  // namespace train_errors_test
