// Train briefly, save the weights, reload them into a fresh model, and recommend films for a history.
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "tally/nn/optim/optimizer.h"
#include "tally/nn/serialize.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/data/titles.h"
#include "tally/recsys/evaluation/top_k.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/training/training_step.h"

using namespace tally;
using namespace tally::recsys;

namespace {

SequenceModelOf<SasRec> make_model(std::int64_t items, RngKey key) {
  return {"sasrec", SasRec::make({.items = items, .width = 16, .blocks = 1, .window = 20}, key)};
}

/// One epoch over all histories.
void train(SequenceModel& model, const Interactions& data, RngKey key) {
  std::vector<std::span<const std::int32_t>> histories;
  for (std::int64_t user = 0; user < data.num_users(); ++user) histories.push_back(data.sequence(user));
  const TrainingBatches batches(histories, {.batch_size = 32, .window = model.window()}, key.fold_in("order"));
  optim::Adam adam({.learning_rate = 5e-3});
  for (std::int64_t b = 0; b < batches.batches_per_epoch(); ++b) {
    const nn::TaskStep step = training_step(model, batches.batch(0, b), key.fold_in(static_cast<std::uint64_t>(b)));
    adam.step(model.parameters(), step.gradients);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::filesystem::path folder = argc > 1 ? argv[1] : TALLY_EXAMPLE_DATA;
  const Interactions data = read_interactions(folder / "ratings.csv.gz", movielens_csv_options());
  const auto titles = read_titles(folder / "movies.csv.gz");

  SequenceModelOf<SasRec> trained = make_model(data.num_items(), RngKey{42});
  train(trained, data, RngKey{42});
  const std::filesystem::path file = "save_reload_recommend.safetensors";
  nn::save_state(file, trained.state(), {{"model", trained.name()}});

  // A fresh model of the same shapes, with other initial weights until it is loaded.
  SequenceModelOf<SasRec> reloaded = make_model(data.num_items(), RngKey{7});
  nn::load_state(file, reloaded.state());
  std::filesystem::remove(file);

  // Toy Story, The Lion King, Aladdin and Finding Nemo: ids of the file become the dense indices that models use.
  std::vector<std::int32_t> history;
  for (const char* id : {"1", "364", "588", "6377"}) history.push_back(data.items.find(id).value());
  const Sequences histories = Sequences::from({history}, data.num_items());
  const Ranker ranker = make_ranker(reloaded);
  const auto title = [&](std::int32_t item) { return titles.at(std::string(data.items.name(item))); };

  std::cout << "Who watched\n";
  for (const std::int32_t item : history) std::cout << "  " << title(item) << '\n';
  std::cout << "may like\n";
  const std::vector<ScoredItem> best = recommend(ranker, histories, {.k = 10})[0];
  bool unseen = true;
  for (const auto& [item, score] : best) {
    std::cout << "  " << title(item) << "  " << score << '\n';
    unseen &= std::find(history.begin(), history.end(), item) == history.end();
  }
  const bool same = identical(make_ranker(trained).score(histories), ranker.score(histories));
  std::cout << "the reloaded model scores the same bits: " << same
            << "\nten unseen items: " << (unseen && best.size() == 10) << '\n';
  return same && unseen && best.size() == 10 ? 0 : 1;
}
