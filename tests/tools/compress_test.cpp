// tally compress: what it writes of a run, and what it says of one that it can't compress.
#include <catch2/catch.hpp>

#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/json.h"
#include "tally/recsys/models/lisa_serving.h"
#include "tests/tools/small_runs.h"

namespace compress_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

const Workshop& trained(const std::string& variant) {
  static std::map<std::string, Workshop> workshops;
  Workshop& workshop = workshops[variant];
  if (workshop.run().empty()) {
    // Only mini has codewords for targets; elsewhere the key would have no effect.
    const std::string further = variant == "mini" ? "--model.target_codewords=6" : "--model.codebooks=2";
    const CommandResult result =
        workshop.train({"--model.name=lisa", "--model.lisa_variant=" + variant, "--model.codebooks=2",
                        "--model.codewords=5", further, "--train.epochs=2"});
    INFO(result.error);
    REQUIRE(result.exit_code == 0);
  }
  return workshop;
}

}  // namespace

TEST_CASE("tally compress writes a served model that ranks as the trained one", "[compress]") {
  for (const std::string variant : {"base", "mini"}) {
    INFO(variant);
    const TemporaryDirectory files;
    const fs::path output = files / "served";
    const CommandResult result = tally_command({"compress", trained(variant).run(), "--output", output});
    INFO(result.error);
    REQUIRE(result.exit_code == 0);
    CHECK_THAT(result.out, Contains("codes of items") && Contains("lisa-" + variant + "-codes"));

    verify_directory(output);
    const Json report = read_json(output / "compression.json");
    const Json &full = report.at("test").at(std::size_t{0}), &served = report.at("test").at(std::size_t{1});
    for (const char* metric : {"HR@10", "NDCG@10", "MRR@10"}) {
      CHECK(full.at(metric).as_double() == served.at(metric).as_double());
      CHECK(full.at(metric).as_double() > 0);
    }
    CHECK(report.at("targets_of_another_rank").as_integer() == 0);
    const Json& bytes = report.at("bytes");
    CHECK(bytes.at("codes").as_integer() == kItems * 2 * (variant == "mini" ? 2 : 1));
    CHECK(bytes.at("embedding_table").as_integer() == 4 * kItems * 16);
    CHECK(bytes.at("total").as_integer() < bytes.at("trained_model").as_integer());

    const recsys::LisaServing model = recsys::LisaServing::load(output / "model.safetensors");
    CHECK(model.num_items() == kItems);
    CHECK(model.size().total() == bytes.at("total").as_integer());
    const std::string items = read_file(output / "items.tsv");
    CHECK(std::count(items.begin(), items.end(), '\n') == kItems + 1);  // and the head

    // It answers as the run does, without run and data.
    const auto answers = [&](const std::string& from, const std::vector<std::string>& asking) {
      std::vector<std::string> words{"recommend", from};
      words.insert(words.end(), asking.begin(), asking.end());
      const CommandResult got = tally_command(words);
      CHECK(got.exit_code == 0);
      std::istringstream in(got.out);
      std::vector<std::string> places;  // without the scores, which rounding may change
      for (std::string rank, item, score, rest; std::getline(in, rank, '\t');) {
        std::getline(in, item, '\t'), std::getline(in, score, '\t'), std::getline(in, rest);
        places.push_back(rank + ' ' + item + ' ' + rest);
      }
      return places;
    };
    const std::string histories = files / "histories.csv";  // with the run's names of columns
    write_file_atomically(histories, "userId,movieId\nann,1\nbob,7\nann,2\n");
    for (const std::vector<std::string>& asking :
         {std::vector<std::string>{"--history", "1,2,3", "--k", "5"}, {"--input", histories, "--k", "3"}}) {
      CHECK(answers(output, asking) == answers(trained(variant).run(), asking));
      CHECK(answers(output, asking).size() >= 6);
    }

    // Once more replaces it; other directories are left alone.
    CHECK(tally_command({"compress", trained(variant).run(), "--output", output}).exit_code == 0);
    check_refused(tally_command({"compress", trained(variant).run(), "--output", files / "."}), 2,
                  {"is there already"});
    CHECK(fs::exists(output / "model.safetensors"));
  }
}

TEST_CASE("a directory of tally compress that is damaged is refused", "[compress]") {
  const TemporaryDirectory files;
  const fs::path output = files / "served";
  REQUIRE(tally_command({"compress", trained("base").run(), "--output", output}).exit_code == 0);
  const std::string items = read_file(output / "items.tsv");
  write_file_atomically(output / "items.tsv", "x" + items);
  check_refused(tally_command({"recommend", output, "--history", "1"}), 1, {"items.tsv"});
  fs::remove(output / "items.tsv");
  check_refused(tally_command({"recommend", output, "--history", "1"}), 1, {"items.tsv"});
}

TEST_CASE("tally compress refuses models without hard codes", "[compress]") {
  const TemporaryDirectory files;
  check_refused(tally_command({"compress", trained("soft").run(), "--output", files / "served"}), 2,
                {"needs hard codes", "base or mini"});
  check_refused(tally_command({"compress", finished().run(), "--output", files / "served"}), 2,
                {"needs a run of LISA", "sasrec"});
  check_refused(tally_command({"compress", files / "none", "--output", files / "served"}), 1, {"none"});
  CHECK_FALSE(fs::exists(files / "served"));
}

}  // namespace compress_test
