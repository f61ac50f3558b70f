#include "tally/recsys/serving/recommender.h"

#include <algorithm>

#include "tally/core/io/file.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/run/run_evaluation.h"
#include "tally/recsys/run/trained_model.h"
#include "tally/recsys/serving/served_directory.h"

namespace tally::recsys {
namespace {

Recommender from_run(const RunDirectory& directory, const Tables& tables) {
  struct Opened {
    explicit Opened(TrainedModel opened) : trained(std::move(opened)), ranker(*trained.model) {}
    TrainedModel trained;
    NeuralRanker ranker;
  };
  const auto run = std::make_shared<const Opened>(open_model(directory, tables));
  const RunConfig& config = run->trained.config;
  return {.source = directory.path.string(),
          .items = run->trained.items,
          .data = config.data,
          .candidates = evaluation_options(config).candidates,
          .users_file = directory.users(),
          .reads_times = run->trained.model->reads_times(),
          .ranker = Ranker::from_function(run->ranker.name(), run->ranker.num_items(),
                                          [run](const Sequences& histories) { return run->ranker.score(histories); }),
          .item_vectors = [run] { return run->ranker.item_vectors(); },
          .user_vectors = [run](const Sequences& histories) { return run->ranker.user_vectors(histories); },
          .recurrent = [run] { return run->trained.model->recurrent(); }};
}

}  // namespace

RunUsers Recommender::read_users() const {
  check<IoError>(is_there(users_file), source, "holds no users: it knows no histories");
  RunUsers users = recsys::read_users(users_file, items.ids);
  check<IoError>(users.histories.has_value(), source, "holds no histories of its users: keep_histories was false");
  return users;
}

std::vector<std::uint8_t> Recommender::candidate_bytes(std::span<const std::uint8_t> among) const {
  check<ShapeError>(among.empty() || static_cast<std::int64_t>(among.size()) == items.size(), "recommend",
                    "needs a candidate byte for each of ", items.size(), " items; got ", among.size());
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(items.size()), 1);
  if (candidates == Candidates::train) bytes = items.trained();
  for (std::size_t i = 0; i < among.size(); ++i) bytes[i] = static_cast<std::uint8_t>(bytes[i] != 0 && among[i] != 0);
  return bytes;
}

std::vector<Recommendation> Recommender::recommend(const Sequences& histories, const RecommendOptions& options) const {
  check<ValueError>(!reads_times || histories.times.defined() || histories.offsets.total() == 0, source,
                    "needs the times of the histories' events, which its model reads; these have none");
  const std::vector<std::uint8_t> allowed = candidate_bytes(options.candidates);
  RecommendOptions narrowed = options;
  narrowed.candidates = allowed;
  auto lists = recsys::recommend(ranker, histories, narrowed);
  const std::vector<float> popularity(items.training_events.begin(), items.training_events.end());
  std::vector<Recommendation> result;
  result.reserve(lists.size());
  for (std::size_t i = 0; i < lists.size(); ++i) {
    const bool empty = histories.offsets.length(static_cast<std::int64_t>(i)) == 0;
    if (empty) {
      check<ValueError>(!popularity.empty(), source,
                        "does not say which items are popular, so that it has no answer to an empty history");
      lists[i] = top_k(popularity, options.k,
                       options.left_out.empty() ? std::span<const std::int32_t>() : options.left_out[i], allowed);
    }
    result.push_back({std::move(lists[i]), empty});
  }
  return result;
}

Recommender open_recommender(const std::filesystem::path& directory, const Tables& tables) {
  return is_served_directory(directory) ? open_served(directory) : from_run({directory}, tables);
}

}  // namespace tally::recsys
