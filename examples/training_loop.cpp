// Training in one's own program: MovieLens ratings, SASRec, a loss and a learning rate of one's own. Given a directory
// as its second argument, the trainer keeps the best weights and a log there, and goes on where an earlier call was
// killed.
#include <cmath>
#include <filesystem>
#include <iostream>

#include "tally/nn/training/checkpoint.h"
#include "tally/nn/training/trainer.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/recsys/baselines/popularity.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/evaluation/evaluate.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/training/recommender_task.h"

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

  // A loss sees hidden states, item table and targets of a shard: here, cross-entropy over all items.
  const auto loss = loss_function("cross-entropy", [](const LossRows& rows) {
    return ops::item_cross_entropy(rows.hidden, rows.table, rows.shard.targets, {.reduction_scale = rows.scale});
  });
  const auto validate = [&](std::int64_t) {
    return nn::Validation{evaluate(make_ranker(model), split, Part::validation).at(10).ndcg};
  };
  RecommenderTask task(model, batches, loss, validate, Json::object({{"program", "training_loop"}}));

  optim::Adam adam({.weight_decay = 0.01});
  adam.groups = {{.pattern = "*.bias", .weight_decay = 0}};
  nn::TrainerOptions options;
  options.epochs = 2;
  options.clip_norm = 5;
  options.learning_rate = [](std::int64_t step) { return 5e-3 / std::sqrt(1 + static_cast<double>(step) / 100); };
  options.key = key.fold_in("training");
  if (argc > 2) options.files = nn::TrainerFiles::in(argv[2]);
  std::vector<double> losses;
  nn::TrainerHooks hooks;
  hooks.on_epoch = [&](const nn::TrainerProgress&, const nn::EpochReport& epoch, Json&) {
    losses.push_back(epoch.loss);
    std::cout << "epoch " << epoch.epoch << "  loss " << epoch.loss << '\n';
  };
  nn::Trainer trainer(task, adam, options, hooks);
  nn::TrainerProgress progress = trainer.restore().value_or(nn::TrainerProgress{});
  trainer.run(progress);
  if (argc > 2) nn::load_weights(options.files.best, task.state(), task.identity());

  const Evaluation popularity = evaluate(Popularity(split), split, Part::test);
  const Evaluation trained = evaluate(make_ranker(model), split, Part::test);
  std::cout << popularity.to_text() << trained.to_text();
  // Two epochs of a tiny model teach little, but more than chance: a hit in ten draws of all items.
  const double chance = 10.0 / static_cast<double>(data.num_items());
  std::cout << "hit rate by chance " << chance << '\n';
  const bool learned = losses.size() < 2 || losses[1] < losses[0];
  return learned && trained.at(10).hit_rate > 2 * chance ? 0 : 1;
}
