// tally convert-weights: a run of weights from elsewhere. That they give PyTorch's scores is tests/recsys's to see.
#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tally/core/io/npz.h"
#include "tally/core/io/safetensors.h"
#include "tests/tools/small_runs.h"

namespace convert_weights_test {

using namespace tally;
using namespace tally::test;

TEST_CASE("a run is made of weights by name", "[convert_weights]") {
  const Workshop workshop;
  const std::filesystem::path run = finished().run();
  // The run's own weights under other names, its items in another order.
  std::map<std::string, Tensor> weights, theirs;
  weights = load_safetensors(run / "checkpoints/best/model.safetensors").tensors;
  for (const auto& [path, tensor] : weights) theirs["model." + path] = tensor;
  const Tensor& table = weights.at("items.table");
  Tensor turned(table.shape());
  std::string ids;
  const std::vector<std::string> lines = lines_of(read_file(run / "items.tsv"));
  const std::int64_t items = table.dim(0), width = table.dim(1);
  REQUIRE(static_cast<std::int64_t>(lines.size()) == items + 1);
  for (std::int64_t i = 0; i < items; ++i) {
    std::copy_n(table.data<float>() + (items - 1 - i) * width, width, turned.mutable_data<float>() + i * width);
    const std::string& line = lines[static_cast<std::size_t>(items - i)];
    ids += line.substr(0, line.find('\t')) + '\n';
  }
  theirs["model.items.table"] = turned;
  save_safetensors(workshop.files() / "weights.safetensors", theirs);
  save_npz(workshop.files() / "weights.npz", theirs);
  workshop.files().write("map.json", R"({"tensors": {"*": "model.*"}})");
  workshop.files().write("rows.txt", ids);
  const auto convert = [&](const std::string& file, const std::string& to) {
    return tally_command({"convert-weights", workshop.files() / file, "--map", workshop.files() / "map.json", "--run",
                          run, "--output", workshop.files() / to, "--items", workshop.files() / "rows.txt"});
  };
  const std::string expected = said({"recommend", run, "--user", "1", "--user", "2"});
  for (const char* file : {"weights.safetensors", "weights.npz"}) {
    const CommandResult result = convert(file, std::string("of-") + file);
    INFO(result.error);
    REQUIRE(result.exit_code == 0);
    CHECK(said({"recommend", workshop.files() / ("of-" + std::string(file)), "--user", "1", "--user", "2"}) ==
          expected);
  }
  // It was not trained, so there is nothing to go on with; and its weights stay.
  const std::filesystem::path made = workshop.files() / "of-weights.npz",
                              of_made = made / "checkpoints/best/model.safetensors";
  const std::string before = read_file(of_made);
  check_refused(tally_command({"train", "--resume", made}), 1,
                {"weights that were not trained there", "train.start_from"});
  CHECK(read_file(of_made) == before);
  workshop.files().write("empty.txt", "");
  check_refused(
      tally_command({"convert-weights", workshop.files() / "weights.npz", "--map", workshop.files() / "map.json",
                     "--run", run, "--output", workshop.files() / "other", "--items", workshop.files() / "empty.txt"}),
      1, {"empty.txt", "needs the id of each row"});
  check_refused(convert("weights.txt", "other"), 2, {"needs a file of safetensors or npz"});
  check_refused(convert("weights.npz", "of-weights.npz"), 1, {"holds a run"});
  theirs.erase("model.norm.weight");
  save_npz(workshop.files() / "less.npz", theirs);
  check_refused(convert("less.npz", "other"), 1, {"[weights] are not those of sasrec; missing: norm.weight"});
  CHECK_FALSE(is_there(workshop.files() / "other"));
}

}  // namespace convert_weights_test
