// Memory of a training step over a large item table (that of Amazon Beauty, 54,542 items): no [tokens, items] buffer.
#include <catch2/catch.hpp>

#include "tally/core/memory.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/training/training_step.h"

namespace tally::recsys::training_memory_test {

TEST_CASE("a step over 54,542 items stays under 64 MB beyond parameters, gradients and optimizer", "[training][slow]") {
  constexpr std::int64_t kItems = 54542, kUsers = 128, kWindow = 50;
  // The largest batch that the settings allow: every history fills its window. Beauty's own are a seventh of it.
  std::vector<std::vector<std::int32_t>> histories(kUsers);
  for (std::uint64_t user = 0; user < kUsers; ++user) {
    for (std::uint64_t i = 0; i <= kWindow; ++i) {
      histories[user].push_back(static_cast<std::int32_t>(uniform_below(RngKey{5}, user, i, kItems)));
    }
  }
  SasRec model = SasRec::make({.items = kItems, .width = 64, .blocks = 2, .window = kWindow}, RngKey{1});
  std::int64_t parameter_bytes = 0;
  for (const auto& [path, parameter] : nn::parameters(model)) parameter_bytes += parameter->value().bytes();
  const SequenceModelOf<SasRec> sasrec("sasrec", std::move(model));
  const TrainingBatches batches({histories.begin(), histories.end()},
                                {.batch_size = kUsers, .window = kWindow, .shard_tokens = 2048}, RngKey{2});
  const TrainingBatch batch = batches.batch(0, 0);
  REQUIRE(batch.targets == kUsers * kWindow);
  const MemoryScope scope;
  const StageResult result = training_step(sasrec, batch, RngKey{3});
  CHECK(std::isfinite(result.loss));
  const double beyond = static_cast<double>(scope.peak() - parameter_bytes) / 1e6;  // gradients are as large
  INFO("working memory " << beyond << " MB beside gradients of " << static_cast<double>(parameter_bytes) / 1e6
                         << " MB");
  CHECK(beyond < 64);
  CHECK(beyond > 0);
}

}  // namespace tally::recsys::training_memory_test
