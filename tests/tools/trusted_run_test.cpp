// A run matches items and users by id: what its commands say when the data file has been put in another order, has
// grown, or is not there at all, and what they recommend without it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <sstream>

#include "tally/core/io/directory_lock.h"
#include "tally/core/io/file.h"
#include "tally/core/io/line_reader.h"
#include "tally/core/io/npy.h"
#include "tests/support/process.h"
#include "tests/tools/small_runs.h"

namespace trusted_run_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

/// The rows of a csv with the last user's first: each user's in their order still, but users and items appear in
/// another one.
std::string users_reversed(const std::string& csv) {
  std::vector<std::string> lines = lines_of(csv);
  std::vector<std::vector<std::string>> users;
  std::string last;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const std::string user = lines[i].substr(0, lines[i].find(','));
    if (users.empty() || user != last) users.emplace_back();
    users.back().push_back(lines[i]);
    last = user;
  }
  std::string text = lines[0] + '\n';
  for (auto user = users.rbegin(); user != users.rend(); ++user) {
    for (const std::string& line : *user) text += line + '\n';
  }
  return text;
}

/// The rows by time alone, as an export may have them.
std::string by_time(const std::string& csv) {
  std::vector<std::string> lines = lines_of(csv);
  std::stable_sort(lines.begin() + 1, lines.end(), [](const std::string& a, const std::string& b) {
    return a.substr(a.rfind(',')) < b.substr(b.rfind(','));
  });
  std::string text;
  for (const std::string& line : lines) text += line + '\n';
  return text;
}

std::vector<std::string> reordered() { return {users_reversed(walks_csv()), by_time(walks_csv())}; }

/// A workshop whose run is finished, for tests that write there.
Workshop& trained(Workshop& workshop, std::initializer_list<std::string> overrides = {"--epochs=3"}) {
  const CommandResult result = workshop.train(overrides);
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  return workshop;
}

}  // namespace

TEST_CASE("a run gives the same figures whatever the order of its data has become", "[trust]") {
  Workshop workshop;
  trained(workshop, {"--epochs=3", "--mode=uni10", "--valid_users=20", "--test_users=30"});
  const std::string run = workshop.run();
  const std::vector<std::vector<std::string>> commands{
      {"evaluate", run},
      {"evaluate", run, "--part", "validation"},
      {"recommend", run, "--history", "5,6,8"},
      {"recommend", run, "--input", workshop.data(), "--k", "3"},
      {"recommend", run, "--user", "7"},
      {"similar", run, "--item", "12"},
  };
  std::vector<std::string> before;
  for (const auto& command : commands) before.push_back(said(command));
  const auto files = trained_files(run);
  const auto records = logged(run);
  for (const std::string& csv : reordered()) {
    workshop.files().write("ratings.csv", csv);
    for (std::size_t c = 0; c < commands.size(); ++c) {
      INFO(commands[c].front());
      if (commands[c].size() > 2 && commands[c][2] == "--input") {  // users come in the order of the file
        CHECK(said(commands[c]).size() == before[c].size());
      } else {
        CHECK(said(commands[c]) == before[c]);
      }
    }
    CHECK(tally_command({"train", "--resume", run}).exit_code == 0);
    CHECK(trained_files(run) == files);
    CHECK(logged(run) == records);
  }
}

TEST_CASE("an interrupted run goes on to the same bytes when its data has been put in another order", "[trust]") {
  Workshop whole;
  trained(whole, {});
  Workshop workshop;
  {
    Process process(TALLY_COMMAND, workshop.train_arguments());
    REQUIRE(process.wait_until(
        [&] { return !workshop.run().empty() && is_there(workshop.run() / "checkpoints" / "last"); }));
    process.signal(SIGTERM);
    REQUIRE(process.wait().exit_code == 128 + SIGTERM);
  }
  workshop.files().write("ratings.csv", users_reversed(walks_csv()));
  const CommandResult result = tally_command({"train", "--resume", workshop.run()});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  CHECK(trained_files(workshop.run()) == trained_files(whole.run()));
  CHECK(logged(workshop.run()) == logged(whole.run()));
}

TEST_CASE("compress, start_from and studies match items by id", "[trust]") {
  Workshop workshop;
  trained(workshop, {"--model.name=lisa", "--model.codebooks=2", "--model.codewords=5", "--epochs=2"});
  const std::string run = workshop.run();
  const auto compressed = [&](const char* name) {
    said({"compress", run, "--output", workshop.files() / name});
    return read_json(fs::path(workshop.files() / name) / "compression.json").dump();
  };
  const std::string before = compressed("a");
  const auto answers = [&](const char* name) {
    return said({"recommend", workshop.files() / name, "--history", "5,6,8"});
  };
  workshop.files().write("ratings.csv", by_time(walks_csv()));
  CHECK(compressed("b") == before);
  CHECK(answers("a") == answers("b"));

  // Steps too small to change a weight: the test result is that of the weights begun with.
  const fs::path second = workshop.files() / "second";
  const CommandResult result = tally_command({"train", workshop.config(), "--output=" + second.string(),
                                              "--model.name=lisa", "--model.codebooks=2", "--model.codewords=5",
                                              "--epochs=1", "--learning_rate=1e-30", "--start_from=" + run});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  CHECK_THAT(result.out, Contains("items: 40 known to that run, 0 new; 0 of its items are not in the data"));
  const fs::path other = fs::directory_iterator(second)->path();
  const auto metrics = [](const fs::path& of) {
    return read_json(of / "test_metrics.json").at("test").at(std::size_t{2}).at("NDCG@10").as_double();
  };
  CHECK(metrics(other) == Approx(metrics(run)).epsilon(1e-12));
}

TEST_CASE("a study whose data has been put in another order goes on", "[trust][study]") {
  const Workshop workshop;
  const auto study = workshop.files().write("study.json", R"({"name": "s", "base": "config.json", "seeds": [1],
    "runs": [{"name": "first", "overrides": {"epochs": 1}}, {"name": "second", "overrides": {"epochs": 2}}]})");
  const std::string output = workshop.files() / "study";
  REQUIRE(tally_command({"study", study, "--output", output, "--only", "first"}).exit_code == 0);
  workshop.files().write("ratings.csv", users_reversed(walks_csv()));
  const std::string again = said({"study", study, "--output", output});
  CHECK_THAT(again, Contains("first-seed1: finished before"));
  workshop.files().write("ratings.csv", walks_csv() + "1,2,4.0,9000\n");
  check_refused(tally_command({"study", study, "--output", output}), 2,
                {"was trained on other data than", "remove it, or choose another --output"});
}

TEST_CASE("data that has grown is refused with its figures, and recommendations go on", "[trust]") {
  Workshop workshop;
  trained(workshop);
  const std::string run = workshop.run();
  const std::string list = said({"recommend", run, "--user", "1"});
  const std::string then = std::to_string(lines_of(walks_csv()).size() - 1) + " events of 60 users with 40 items then";
  for (const std::string& more :
       {std::string("1,2,4.0,9000\n"), std::string("1,new,4.0,9000\n"), std::string("somebody,1,4.0,9000\n")}) {
    workshop.files().write("ratings.csv", walks_csv() + more);
    for (const std::vector<std::string>& command :
         {std::vector<std::string>{"evaluate", run}, {"train", "--resume", run}}) {
      check_refused(tally_command(command), 1, {"was trained on other data than", "ratings.csv", then, "start_from"});
    }
    CHECK(said({"recommend", run, "--user", "1"}) == list);
    CHECK(tally_command({"recommend", run, "--input", workshop.data(), "--unknown-items", "skip"}).exit_code == 0);
  }
  // As many of everything, but another last item.
  std::string other = walks_csv();
  other.replace(other.rfind("\n60,") + 4, other.rfind(",4.0") - other.rfind("\n60,") - 4, "1");
  workshop.files().write("ratings.csv", other);
  check_refused(tally_command({"evaluate", run}), 1, {"as many now, but others, or in another order"});
}

TEST_CASE("a run needs no data to be used", "[trust]") {
  Workshop workshop;
  trained(workshop, {"--model.name=lisa", "--model.codebooks=2", "--model.codewords=5", "--epochs=2"});
  const TemporaryDirectory elsewhere;
  const fs::path run = elsewhere / "run";
  fs::copy(workshop.run(), run, fs::copy_options::recursive);
  const std::string list = said({"recommend", workshop.run(), "--user", "3"});
  fs::remove_all(workshop.files().path() / "runs");
  fs::remove(workshop.data());
  fs::remove(workshop.files().path() / "movies.csv");
  CHECK(said({"recommend", run, "--user", "3"}) == list);
  CHECK_THAT(said({"recommend", run, "--history", "5,6"}), Contains("Film, number"));
  said({"similar", run, "--item", "5"});
  said({"report", run});
  CHECK_THAT(said({"compress", run, "--output", elsewhere / "served"}),
             Contains("not evaluated: " + workshop.data().string() + " is not there"));
  CHECK(column(said({"recommend", elsewhere / "served", "--user", "3"}), "item_id") == column(list, "item_id"));
  check_refused(tally_command({"evaluate", run}), 1, {"ratings.csv] cannot open"});
}

TEST_CASE("a directory of a build that kept no items is used where its order is proven, and else refused", "[trust]") {
  Workshop workshop;
  trained(workshop);
  const std::string run = workshop.run();
  const std::string evaluated = said({"evaluate", run}), list = said({"recommend", run, "--history", "5,6,8"});
  for (const char* name : {"items.tsv", "users.txt.gz"}) fs::remove(fs::path(run) / name);
  CHECK(said({"evaluate", run}) == evaluated);
  CHECK(said({"recommend", run, "--history", "5,6,8"}) == list);
  said({"report", run});
  check_refused(tally_command({"recommend", run, "--user", "1"}), 1, {"holds no users"});
  check_refused(tally_command({"train", "--resume", run}), 1,
                {"did not keep the order of its items", "train it again"});
  for (const std::string& csv : reordered()) {
    workshop.files().write("ratings.csv", csv);
    for (const std::vector<std::string>& command :
         {std::vector<std::string>{"evaluate", run}, {"recommend", run, "--history", "5"}}) {
      check_refused(tally_command(command), 1, {"did not keep the order of its items", "gives other scores"});
    }
  }
  workshop.files().write("ratings.csv", walks_csv());
  fs::remove(fs::path(run) / "recommendations.tsv");
  check_refused(tally_command({"evaluate", run}), 1, {"the run is not finished"});
}

TEST_CASE("histories stay out of a run that is told so", "[trust]") {
  Workshop workshop;
  trained(workshop, {"--epochs=2", "--keep_histories=false"});
  const fs::path run = workshop.run();
  check_refused(tally_command({"recommend", run, "--user", "1"}), 1, {"keep_histories was false"});
  LineReader users(run / "users.txt.gz");
  std::string_view line;
  std::size_t count = 0;
  while (users.next(line)) {
    CHECK(line.find('\t') == std::string_view::npos);
    ++count;
  }
  CHECK(count == kUsers);
  CHECK_THAT(read_file(run / "samples.json"), !Contains("history"));
  // Users are still matched by id.
  const std::string evaluated = said({"evaluate", run});
  workshop.files().write("ratings.csv", users_reversed(walks_csv()));
  CHECK(said({"evaluate", run}) == evaluated);
}

TEST_CASE("items that were never trained on are not recommended where candidates are the trained ones", "[trust]") {
  Workshop workshop;
  // The last item of some users occurs nowhere else.
  std::string csv = walks_csv();
  for (int user = 1; user <= 5; ++user) csv += detail::join(user, ",new", user, ",4.0,9000\n");
  workshop.files().write("ratings.csv", csv);
  trained(workshop, {"--epochs=2", "--candidates=train"});
  const std::string run = workshop.run();
  const auto check_none = [](const std::string& table) { CHECK_THAT(table, !Contains("new")); };
  check_none(column(read_file(fs::path(run) / "recommendations.tsv"), "item_id"));
  check_none(column(said({"recommend", run, "--history", "5,6", "--k", "100"}), "item_id"));
  check_none(column(said({"recommend", run, "--history", "", "--k", "100"}), "item_id"));
  check_none(column(said({"recommend", run, "--user", "1", "--k", "100"}), "item_id"));
  check_none(column(said({"recommend", run, "--input", workshop.data(), "--k", "100"}), "item_id"));
  check_none(column(said({"similar", run, "--item", "5", "--k", "100"}), "item_id"));
  const CommandResult stream = run_command("/bin/sh", {"-c", "printf 'a\\t5\\nb\\t?\\n' | \"$@\"", "sh", TALLY_COMMAND,
                                                       "recommend", run, "--stream", "--k", "100"});
  CHECK(stream.exit_code == 0);
  check_none(column(stream.out, "item_id"));
  Workshop all;
  all.files().write("ratings.csv", csv);
  trained(all, {"--epochs=2"});
  CHECK_THAT(said({"recommend", all.run(), "--history", "5,6", "--k", "100"}), Contains("new"));
}

TEST_CASE("a run that starts from another takes over the items that both have", "[trust]") {
  Workshop workshop;
  trained(workshop, {"--epochs=2"});
  const fs::path first = workshop.run();
  workshop.files().write("ratings.csv", users_reversed(walks_csv()) + "1,new,4.0,9000\n61,other,4.0,1\n61,1,4.0,2\n");
  const fs::path second = workshop.files() / "second";
  const CommandResult result = tally_command({"train", workshop.config(), "--output=" + second.string(), "--epochs=1",
                                              "--learning_rate=1e-30", "--start_from=" + first.string()});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  CHECK_THAT(result.out, Contains("items: 40 known to that run, 2 new; 0 of its items are not in the data"));
  const auto vectors = [&](const fs::path& run, const char* name) {
    said({"embed", run, "--output", workshop.files() / name});
    const fs::path output = workshop.files() / name;
    const Tensor rows = load_npy(output / "items.npy");
    std::map<std::string, std::vector<float>> of;
    const std::vector<std::string> lines = lines_of(read_file(output / "items.tsv"));
    for (std::size_t i = 1; i < lines.size(); ++i) {
      const float* row = rows.data<float>() + static_cast<std::int64_t>(i - 1) * rows.dim(1);
      of[lines[i].substr(0, lines[i].find('\t'))] = std::vector<float>(row, row + rows.dim(1));
    }
    return of;
  };
  const auto before = vectors(first, "v1"), after = vectors(fs::directory_iterator(second)->path(), "v2");
  CHECK(before.size() == 40);
  CHECK(after.size() == 42);
  for (const auto& [id, row] : before) {
    INFO(id);
    CHECK(after.at(id) == row);
  }
}

TEST_CASE("of two processes that write one directory the second is refused, and readers are not", "[trust]") {
  Workshop workshop;
  trained(workshop, {"--epochs=1"});
  const std::string run = workshop.run();
  {
    const DirectoryLock lock = DirectoryLock::inside(run);
    check_refused(tally_command({"train", "--resume", run}), 1, {run, "written by"});
    check_refused(tally_command({"report", run}), 1, {run, "written by"});
    said({"report", run, "--output", workshop.files() / "page.html"});
    said({"evaluate", run});
    said({"recommend", run, "--user", "1"});
  }
  said({"report", run});
  const std::string output = workshop.files() / "vectors";
  {
    const DirectoryLock lock = DirectoryLock::beside(output);
    check_refused(tally_command({"embed", run, "--output", output}), 1, {output, "written by"});
  }
  said({"embed", run, "--output", output});
}

TEST_CASE("of two resumes at once one goes on to the end and one is refused", "[trust][slow]") {
  const Workshop workshop;
  for (int trial = 0; trial < 20; ++trial) {
    INFO("trial " << trial);
    // An interrupted run: it still has steps to do, however fast the machine is.
    if (trial == 0) {
      Process process(TALLY_COMMAND, workshop.train_arguments({"--epochs=100000", "--stopping_step=0"}));
      REQUIRE(process.wait_until(
          [&] { return !workshop.run().empty() && is_there(workshop.run() / "checkpoints" / "last"); }));
      process.signal(SIGTERM);
      REQUIRE(process.wait().exit_code == 128 + SIGTERM);
    }
    Process first(TALLY_COMMAND, {"train", "--resume", workshop.run()});
    Process second(TALLY_COMMAND, {"train", "--resume", workshop.run()});
    // One ends at once; the other works until it is stopped.
    first.wait_until([&] { return !second.is_running(); });
    const bool second_refused = !second.is_running();
    Process& refused = second_refused ? second : first;
    Process& working = second_refused ? first : second;
    check_refused(refused.wait(), 1, {"written by"});
    CHECK(working.is_running());
    working.signal(SIGTERM);
    CHECK(working.wait().exit_code == 128 + SIGTERM);
  }
}

}  // namespace trusted_run_test
