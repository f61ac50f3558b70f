// A run of a protocol without a validation part, with a sampled loss and pieces for samples.
#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tests/tools/small_runs.h"

namespace no_validation_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

TEST_CASE("without a validation part the last epoch's weights are tested", "[train]") {
  const Workshop workshop;
  const CommandResult result =
      workshop.train({"--protocol=lisa", "--epochs=2", "--loss_type=BCE", "--negative_exclude=history"});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  CHECK_THAT(result.out,
             Contains("loss: binary cross-entropy, 1 uniform negative for each position, outside the user's "
                      "training items"));
  CHECK_THAT(result.out, Contains(" pieces samples and "));
  CHECK_THAT(result.out, Contains("no validation") && Contains("last of 2 epochs"));
  const Json report = read_json(workshop.run() / "test_metrics.json");
  CHECK(report.at("best_epoch").as_integer() == 2);
  CHECK(report.find("best_validation") == nullptr);
  CHECK(std::filesystem::exists(workshop.run() / "checkpoints" / "best"));
}

}  // namespace no_validation_test
