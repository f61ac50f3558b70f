// tally bench step: figures are what their names say, and two results can be compared.
#include "tools/step_benchmark.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/core/io/file.h"
#include "tally/core/io/safetensors.h"
#include "tally/core/parallel.h"
#include "tests/support/run_command.h"

namespace step_benchmark_test {

using namespace tally;
using namespace tally::tools;
using Catch::Matchers::Contains;

namespace {

recsys::RunConfig config_of(const std::string& loss) {
  return recsys::load_config(parse_json(R"({"data": {"path": "drawn.tsv"},
      "model": {"name": "sasrec", "hidden_size": 16, "n_layers": 1, "n_heads": 2, "MAX_ITEM_LIST_LENGTH": 10},
      "train": {"train_batch_size": 12}})",
                                        "test"),
                             ".", {"train.loss_type=" + loss, "train.shard_tokens=40"});
}

}  // namespace

TEST_CASE("a step's products are counted, and its ops make up its time", "[bench-step]") {
  const int threads = num_threads();
  const StepFigures figures =
      measure_step(config_of("CE"), DrawnHistories{.items = 60}, StepOptions{.threads = 2, .rounds = 2});
  set_num_threads(threads);
  CHECK(figures.rows == 12 * 10);
  CHECK(figures.threads == 2);
  // Three products of every row with every item, by the definition of the loss.
  REQUIRE(figures.ops.contains("item_cross_entropy"));
  CHECK(figures.ops.at("item_cross_entropy").forward_operations == 3 * 2.0 * 120 * 60 * 16);
  CHECK(figures.ops.at("item_cross_entropy").calls == 3);  // a shard has 40 rows
  // Six linear maps of its width a block: queries, keys, values, output and two of feed-forward.
  const OpFigures& linear = figures.ops.at("linear");
  CHECK(linear.forward_operations == 6 * 2.0 * 120 * 16 * 16);
  CHECK(linear.backward_operations == 2 * linear.forward_operations);
  double operations = 0, seconds = 0;
  for (const auto& [name, op] : figures.ops) {
    operations += op.forward_operations + op.backward_operations;
    seconds += op.forward_seconds + op.backward_seconds;
    CHECK(op.bytes > 0);
  }
  CHECK(operations == figures.operations);
  CHECK(seconds <= figures.profiled_seconds);
  CHECK(figures.blocks.calls >= 1);
  CHECK(figures.blocks.speedup.at(2) >= 1);
  CHECK(figures.blocks.speedup.at(64) >= figures.blocks.speedup.at(2));
  CHECK(figures.seconds >= figures.fastest);
  CHECK(figures.peak_bytes > 0);
  CHECK(figures.allocations > 0);
  CHECK_THAT(step_table(figures), Contains("item_cross_entropy") && Contains("Expected speed-up"));
}

TEST_CASE("bench step writes what a step was given and what it gave", "[bench-step][command]") {
  const test::TemporaryDirectory scratch;
  const std::string config = scratch / "config.json", file = scratch / "step.safetensors";
  write_file_atomically(config, R"({"model": {"name": "gru4rec", "hidden_size": 8, "MAX_ITEM_LIST_LENGTH": 5},
                                    "train": {"train_batch_size": 3, "shard_tokens": 5}})");
  const auto result = test::run_command(
      TALLY_COMMAND, {"bench", "step", config, "--rounds", "1", "--items", "7", "--threads", "1", "--tensors", file});
  CHECK(result.error == "");
  REQUIRE(result.exit_code == 0);
  const auto tensors = load_safetensors(file);
  CHECK(tensors.at("items").shape() == Shape({15}));
  CHECK(tensors.at("targets").shape() == Shape({15}));
  CHECK(tensors.at("offsets").to_doubles() == std::vector<double>{0, 5, 10, 15});
  CHECK(tensors.at("parameter.items.table").shape() == Shape({7, 8}));
  CHECK(tensors.at("gradient.items.table").shape() == Shape({7, 8}));
  CHECK(tensors.at("loss").item() == Approx(std::log(7)).epsilon(0.05));  // of a model that knows nothing yet
}

TEST_CASE("bench step writes its figures, and compares two files of them", "[bench-step][command]") {
  const test::TemporaryDirectory scratch;
  const std::string before = scratch / "before.json", after = scratch / "after.json";
  const std::vector<std::string> small = {"bench",
                                          "step",
                                          "--rounds",
                                          "1",
                                          "--threads",
                                          "1",
                                          "--items",
                                          "50",
                                          "--length",
                                          "6",
                                          "--json",
                                          before,
                                          "--model.hidden_size=16",
                                          "--train.train_batch_size=4"};
  const auto first = test::run_command(TALLY_COMMAND, small);
  CHECK(first.error == "");
  REQUIRE(first.exit_code == 0);
  CHECK_THAT(first.out, Contains("a batch of 20 rows in 1 shards"));
  write_file_atomically(after, read_file(before));
  const auto compared = test::run_command(TALLY_COMMAND, {"bench", "step", "--compare", before, after});
  CHECK(compared.exit_code == 0);
  CHECK_THAT(compared.out, Contains("| step, ms ") && Contains("1.00 |"));
  write_file_atomically(after, "{\"seconds\": 1}");
  const auto other = test::run_command(TALLY_COMMAND, {"bench", "step", "--compare", before, after});
  CHECK(other.exit_code == 1);
  CHECK_THAT(other.error, Contains("is no result of tally bench step"));
  CHECK(test::run_command(TALLY_COMMAND, {"bench", "step", "--rounds", "0"}).exit_code == 2);
  CHECK(test::run_command(TALLY_COMMAND, {"bench", "step", "--items", "0"}).exit_code == 2);
  for (const char* length : {"576460752303423488", "9223372036854775807"}) {
    const auto long_ones = test::run_command(TALLY_COMMAND, {"bench", "step", "--length", length});
    CHECK(long_ones.exit_code == 1);
    CHECK_THAT(long_ones.error, Contains("[bench step] needs at most 4294967296 events in all"));
  }
}

TEST_CASE("bench sessions takes the name of an attention", "[command]") {
  for (const std::string attention : {"retnet", "time_decay"}) {
    const auto result = test::run_command(
        TALLY_COMMAND, {"bench", "sessions", "--model", "sasrec", "--attention", attention, "--width", "8", "--items",
                        "20", "--users", "3", "--late", "200", "--rounds", "3", "--threads", "1"});
    CHECK(result.error == "");
    CHECK(result.exit_code == 0);
    CHECK_THAT(result.out, Contains(attention + " of 1 heads"));
  }
}

}  // namespace step_benchmark_test
