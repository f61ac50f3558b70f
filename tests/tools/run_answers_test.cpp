// What a run answers with: recommendations of given histories and items, and the vectors behind its scores.
#include <algorithm>
#include <catch2/catch.hpp>
#include <sstream>

#include "tally/core/io/file.h"
#include "tally/core/io/line_reader.h"
#include "tally/core/io/npy.h"
#include "tally/core/io/safetensors.h"
#include "tests/tools/small_runs.h"

namespace run_answers_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

TEST_CASE("an empty history has one answer in every command", "[trust]") {
  const std::string run = finished().run();
  const std::string by_history = said({"recommend", run, "--history", "", "--k", "4"});
  const TemporaryDirectory files;
  const std::string input = files.write("h.tsv", "user_id\titem_id\nnobody\t\nsomebody\t5\n");
  const std::string by_file = said({"recommend", run, "--input", input, "--k", "4"});
  const CommandResult stream = run_command("/bin/sh", {"-c", "printf 'nobody\\t?\\n' | \"$@\"", "sh", TALLY_COMMAND,
                                                       "recommend", run, "--stream", "--k", "4"});
  CHECK(stream.exit_code == 0);
  const std::string items = column(by_history, "item_id");
  CHECK(column(stream.out, "item_id") == items);
  CHECK(column(by_file, "item_id").starts_with(items + ' '));
  CHECK(column(by_history, "ranker") == "popularity popularity popularity popularity");
  CHECK(column(by_file, "ranker") == "popularity popularity popularity popularity model model model model");
  CHECK(column(stream.out, "ranker") == "popularity popularity popularity popularity");
  // Counted here: how often each item stands before a user's last two events.
  std::map<std::string, int> counts;
  const std::vector<std::string> lines = lines_of(walks_csv());
  for (std::size_t i = 1; i + 2 < lines.size(); ++i) {
    const auto user = [&](std::size_t l) { return lines[l].substr(0, lines[l].find(',')); };
    if (user(i) != user(i + 2)) continue;
    const std::string rest = lines[i].substr(lines[i].find(',') + 1);
    ++counts[rest.substr(0, rest.find(','))];
  }
  std::istringstream best(items);
  std::string scores;
  int last = 1 << 30;
  for (std::string item; best >> item;) {
    CHECK(counts[item] <= last);
    last = counts[item];
    scores += (scores.empty() ? "" : " ") + std::to_string(last);
  }
  CHECK(column(by_history, "score") == scores);
  const int most =
      std::max_element(counts.begin(), counts.end(), [](auto& a, auto& b) { return a.second < b.second; })->second;
  CHECK(scores.starts_with(std::to_string(most)));
}

TEST_CASE("recommendations are chosen among items, and without items", "[trust]") {
  const std::string run = finished().run();
  const TemporaryDirectory files;
  const std::string among = files.write("among.txt", "5\n6\n7\n8\n");
  CHECK(column(said({"recommend", run, "--history", "6", "--items", among, "--k", "9"}), "item_id").size() == 5);
  const std::string without = files.write("without.tsv", "item_id\n7\n8\n");
  CHECK(column(said({"recommend", run, "--history", "6", "--items", among, "--exclude", without}), "item_id") == "5");
  const std::string each = files.write("each.csv", "user_id,item_id\n1,5\n1,6\n2,7\n");
  for (const char* how : {"--user", "--input"}) {
    const std::string input = files.write("h.csv", "user_id,item_id\n1,20\n2,20\n");
    std::vector<std::string> words{"recommend", run, "--exclude", each, "--items", among, "--keep-seen", "--k", "9"};
    if (std::string(how) == "--user") {
      words.insert(words.end(), {"--user", "1", "--user", "2"});
    } else {
      words.insert(words.end(), {"--input", input});
    }
    std::map<std::string, std::string> of;
    for (const std::string& row : lines_of(said(words))) of[row.substr(0, 1)] += row.substr(2, 1);
    const auto sorted = [](std::string text) {
      std::sort(text.begin(), text.end());
      return text;
    };
    CHECK(sorted(of["1"]) == "78");
    CHECK(sorted(of["2"]) == "568");
  }
  const std::string unknown = files.write("unknown.txt", "5\nnever\n");
  check_refused(tally_command({"recommend", run, "--history", "6", "--items", unknown}), 1, {"unknown.txt:2", "never"});
  CHECK(column(said({"recommend", run, "--history", "6", "--items", unknown, "--unknown-items", "skip"}), "item_id") ==
        "5");
  check_refused(tally_command({"recommend", run, "--history", "6", "--items", each}), 2, {"--items", "one list"});
  check_refused(tally_command({"recommend", run, "--stream", "--items", among}), 2, {"--items"});
  check_refused(tally_command({"recommend", run, "--user", "nobody"}), 2, {"--user", "nobody"});
}

TEST_CASE("vectors of items and users come with their ids, and their products are the scores", "[trust]") {
  const std::string run = finished().run();
  const TemporaryDirectory files;
  const fs::path output = files / "vectors";
  said({"embed", run, "--output", output, "--users"});
  const TensorFile tensors = load_safetensors(output / "embeddings.safetensors");
  const Tensor items = load_npy(output / "items.npy"), users = load_npy(output / "users.npy");
  CHECK(identical(items, tensors.at("items")));
  CHECK(identical(users, tensors.at("users")));
  CHECK(items.shape() == Shape{kItems, 16});
  CHECK(users.shape() == Shape{kUsers, 16});
  std::vector<std::string> item_ids, user_ids;
  for (const std::string& line : lines_of(read_file(output / "items.tsv")))
    item_ids.push_back(line.substr(0, line.find('\t')));
  user_ids = lines_of(read_file(output / "users.tsv"));
  REQUIRE(item_ids.size() == kItems + 1);
  REQUIRE(user_ids.size() == kUsers + 1);
  const std::string table = said({"recommend", run, "--user", user_ids[8], "--k", "5"});
  std::istringstream ids(column(table, "item_id")), scores(column(table, "score"));
  std::string id;
  double score = 0;
  while (ids >> id && scores >> score) {
    const auto i = std::find(item_ids.begin(), item_ids.end(), id) - item_ids.begin() - 1;
    double product = 0;
    for (std::int64_t d = 0; d < 16; ++d) {
      product += double{items.data<float>()[i * 16 + d]} * double{users.data<float>()[7 * 16 + d]};
    }
    CHECK(product == Approx(score).epsilon(1e-4).margin(1e-5));
  }
  // The nearest by cosine, by hand.
  const auto cosine = [&](std::int64_t a, std::int64_t b) {
    double ab = 0, aa = 0, bb = 0;
    for (std::int64_t d = 0; d < 16; ++d) {
      const double x = items.data<float>()[a * 16 + d], y = items.data<float>()[b * 16 + d];
      ab += x * y, aa += x * x, bb += y * y;
    }
    return ab / std::sqrt(aa * bb);
  };
  std::int64_t best = -1;
  for (std::int64_t i = 1; i < kItems; ++i) {
    if (best < 0 || cosine(0, i) > cosine(0, best)) best = i;
  }
  const std::string alike = said({"similar", run, "--item", item_ids[1], "--k", "1"});
  CHECK(column(alike, "item_id") == item_ids[static_cast<std::size_t>(best) + 1]);
  CHECK(std::stod(column(alike, "score")) == Approx(cosine(0, best)).epsilon(1e-5));
  check_refused(tally_command({"similar", run, "--item", "never"}), 2, {"--item", "never"});
  fs::create_directory(files / "taken");
  check_refused(tally_command({"embed", run, "--output", files / "taken"}), 2, {"--output", "taken"});
}

}  // namespace run_answers_test
