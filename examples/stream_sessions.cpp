// Train LISA briefly, then serve it: events of many users come one at a time, each is answered at once, and the users'
// states are saved and loaded.
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "tally/nn/optim/optimizer.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/data/titles.h"
#include "tally/recsys/models/lisa.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/sessions/sessions.h"
#include "tally/recsys/training/training_step.h"

using namespace tally;
using namespace tally::recsys;

namespace {

constexpr std::int64_t kWindow = 50;

/// One epoch over all histories.
void train(SequenceModel& model, const Interactions& data, RngKey key) {
  std::vector<std::span<const std::int32_t>> histories;
  for (std::int64_t user = 0; user < data.num_users(); ++user) histories.push_back(data.sequence(user));
  const TrainingBatches batches(histories, {.batch_size = 32, .window = kWindow}, key.fold_in("order"));
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
  const auto title = [&](std::int32_t item) { return titles.at(std::string(data.items.name(item))); };

  LisaOptions options;
  options.items = data.num_items();
  options.width = 16;
  options.window = kWindow;
  options.codebooks = 4;
  options.codewords = 16;
  SequenceModelOf<Lisa> model("lisa", Lisa::make(options, RngKey{42}));
  train(model, data, RngKey{42});

  // From here on the model's recurrent form: weights as they are now, an event at a time.
  Sessions sessions(model.recurrent(), data.items);

  // Users of the data set, the beginnings of their histories in one batch ...
  const auto first = [&](std::int32_t user) {
    const auto history = data.sequence(user);
    return history.first(std::min<std::size_t>(history.size(), kWindow - 1));
  };
  std::vector<UserEvent> past;
  for (std::int32_t user = 0; user < 100; ++user) {
    for (const std::int32_t item : first(user)) past.push_back({data.users.name(user), data.items.name(item)});
  }
  sessions.append(past);
  // ... and somebody new, film by film: Toy Story, Aladdin, The Lion King.
  for (const char* film : {"1", "588", "364"}) {
    sessions.append("somebody new", film);
    std::cout << "after " << title(data.items.find(film).value()) << ":";
    for (const ScoredItem& best : sessions.recommend("somebody new", 3)) std::cout << "  " << title(best.item);
    std::cout << '\n';
  }
  std::cout << sessions.size() << " sessions of " << sessions.bytes() / static_cast<std::size_t>(sessions.size())
            << " bytes\n";

  // What was streamed is what the model says of the whole history.
  const std::string user(data.users.name(7));
  const std::vector<std::int32_t> history(first(7).begin(), first(7).end());
  const auto whole = recommend(make_ranker(model), Sequences::from({history}, data.num_items()), {.k = 10})[0];
  const auto streamed = sessions.recommend(user, 10);
  double difference = 0;
  for (std::size_t r = 0; r < whole.size(); ++r) {
    difference = std::max(difference, std::abs(double{whole[r].score} - double{streamed.at(r).score}));
  }
  std::cout << "largest difference from the whole history: " << difference << '\n';

  sessions.save("stream_sessions.state");
  Sessions loaded(model.recurrent(), data.items);
  loaded.load("stream_sessions.state");
  std::filesystem::remove_all("stream_sessions.state");
  const bool same = loaded.recommend(user, 10) == streamed;
  std::cout << "the loaded sessions recommend the same: " << same << '\n';
  return same && difference < 1e-4 ? 0 : 1;
}
