// A training loop of one's own: MovieLens ratings, SASRec, full cross-entropy over the items, Adam. The Trainer adds
// early stopping, checkpoints and reports to just this.
#include <filesystem>
#include <iostream>

#include "tally/autograd/stages.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/ops/item_cross_entropy.h"
#include "tally/recsys/baselines/popularity.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/evaluation/evaluate.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/training/batches.h"

using namespace tally;
using namespace tally::recsys;

int main(int argc, char** argv) {
  const std::filesystem::path folder = argc > 1 ? argv[1] : TALLY_EXAMPLE_DATA;
  const Interactions data = read_interactions(folder / "ratings.csv.gz", movielens_csv_options());
  const Split split = leave_one_out(data);
  std::cout << data.num_users() << " users, " << data.num_items() << " items, " << data.size() << " ratings\n";

  // Every random number follows from this key: initial weights, the order of users, dropout.
  constexpr RngKey key{42};
  constexpr std::int64_t window = 20;
  SequenceModelOf<SasRec> model(
      "sasrec",
      SasRec::make({.items = data.num_items(), .width = 16, .blocks = 1, .window = window}, key.fold_in("model")));
  std::vector<std::span<const std::int32_t>> histories;
  for (std::int64_t user = 0; user < data.num_users(); ++user) histories.push_back(split.training(user));
  const TrainingBatches batches(histories, {.batch_size = 32, .window = window}, key.fold_in("order"));

  optim::Adam adam({.learning_rate = 5e-3});
  std::vector<double> losses;
  for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
    double sum = 0;
    for (std::int64_t b = 0; b < batches.batches_per_epoch(); ++b) {
      // A batch comes in shards of whole sequences, packed without padding. Each is encoded on one core, on its own
      // tape.
      const TrainingBatch batch = batches.batch(epoch, b);
      const RngKey step_key = key.fold_in("dropout").fold_in(static_cast<std::uint64_t>(adam.steps()));
      const auto encode = [&](std::int64_t s, std::span<const Var>) -> ShardOutput {
        const TrainingShard& shard = batch.shards[static_cast<std::size_t>(s)];
        const Var hidden =
            model.encode(shard.inputs, {}, {.training = true, .key = step_key, .first_row = shard.first_row});
        return {.loss = ops::item_cross_entropy(hidden, model.candidate_table({}), shard.targets,
                                                {.reduction_scale = 1.0 / static_cast<double>(batch.targets)})};
      };
      const StageResult step = run_stages({.shards = static_cast<std::int64_t>(batch.shards.size()), .encode = encode});
      adam.step(model.parameters(), step.gradients);
      sum += step.loss * static_cast<double>(batch.targets);
    }
    losses.push_back(sum / static_cast<double>(batches.targets_per_epoch()));
    std::cout << "epoch " << epoch + 1 << "  loss " << losses.back() << '\n';
  }

  const Evaluation popularity = evaluate(Popularity(split), split, Part::test);
  const Evaluation trained = evaluate(make_ranker(model), split, Part::test);
  std::cout << popularity.to_text() << trained.to_text();
  // Two epochs of a tiny model teach little, but more than chance: a hit in ten draws of all items.
  const double chance = 10.0 / static_cast<double>(data.num_items());
  std::cout << "hit rate by chance " << chance << '\n';
  return losses[1] < losses[0] && trained.at(10).hit_rate > 2 * chance ? 0 : 1;
}
