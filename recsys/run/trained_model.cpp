#include "tally/recsys/run/trained_model.h"

#include <charconv>
#include <cmath>
#include <set>

#include "tally/core/io/file.h"
#include "tally/core/parallel.h"
#include "tally/nn/training/checkpoint.h"
#include "tally/recsys/data/delimited_rows.h"
#include "tally/recsys/evaluation/evaluate.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/run/run_users.h"

namespace tally::recsys {
namespace {

std::unique_ptr<SequenceModel> load_model(const RunDirectory& directory, const RunConfig& config, std::int64_t items,
                                          const Json& identity) {
  auto model = make_sequence_model(config.model, items, run_key(config));
  check<IoError>(
      is_there(directory.best_weights()), directory.path.string(),
      "has no weights to use yet: they come with the first validation, or with the last epoch where there is none");
  nn::load_weights(directory.best_weights(), model->state(), identity, checkpoint_identity_defaults(config));
  return model;
}

/// Of users and items in this order, does the model give every score of the run's recommendations? Another order of
/// the items would be another model.
bool gives_recorded_scores(const std::filesystem::path& path, const SequenceModel& model, const Interactions& data) {
  constexpr double kTolerance = 1e-3;  // six digits were written, maybe on another CPU
  const Ranker ranker = make_ranker(model);
  const std::int64_t step = users_per_block(data.num_items());
  DelimitedRows rows(path);
  const std::size_t user = rows.column("user_id"), item = rows.column("item_id"), score = rows.column("score");
  Tensor scores;
  std::int32_t at = -1;  // the user whose rows are read
  while (rows.next()) {
    if (at < 0 || rows.field(user) != data.users.name(at)) {
      if (++at >= data.num_users() || rows.field(user) != data.users.name(at)) return false;
      if (at % step == 0) {
        std::vector<std::vector<std::int32_t>> block;
        for (std::int64_t u = at; u < std::min(at + step, data.num_users()); ++u) {
          const auto sequence = data.sequence(u);
          block.emplace_back(sequence.begin(), sequence.end());
        }
        scores = ranker.score(Sequences::from(block, data.num_items()));
      }
    }
    const std::optional<std::int32_t> index = data.items.find(rows.field(item));
    double recorded = 0;
    const std::string_view field = rows.field(score);
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), recorded);
    if (!index || error != std::errc() || end != field.data() + field.size()) return false;
    const double now = scores.data<float>()[at % step * data.num_items() + *index];
    if (!(std::abs(now - recorded) <= kTolerance * std::max(1.0, std::abs(recorded)))) return false;
  }
  return at + 1 == data.num_users();
}

/// A run of a build that did not keep its items.
OpenedRun open_without_items(const RunDirectory& directory, RunConfig config) {
  const auto refuse = [&](const char* why) {
    fail<IoError>(directory.path.string(),
                  "is of a build that did not keep the order of its items, and nothing proves that ", config.data.path,
                  " still has that order: ", why, "; train it again");
  };
  const Json recorded = read_json(directory.data());
  if (!is_there(directory.recommendations())) refuse("the run is not finished");
  OpenedRun run{.trained = {.config = config, .items = {}, .model = nullptr}, .data = load_run_data(config.data)};
  check_same_data(directory, recorded, config, run.data);
  const Interactions& data = *run.data.interactions;
  run.trained.items = catalogue_of(*run.data.split, run.data.titles);
  run.trained.model =
      load_model(directory, config, data.num_items(),
                 Json::object({{"model", to_json(config).at("model")}, {"data", recorded.at("content_sha256")}}));
  if (!gives_recorded_scores(directory.recommendations(), *run.trained.model, data)) {
    refuse("its model gives other scores than its recommendations.tsv");
  }
  return run;
}

std::string in_words(std::int64_t events, std::int64_t users, std::int64_t items) {
  return detail::join(events, " events of ", users, " users with ", items, " items");
}

}  // namespace

RunConfig read_run_config(const RunDirectory& directory, const Tables& tables) {
  check<IoError>(is_there(directory.config()), directory.path.string(),
                 "is no run directory: it has no config.resolved.json");
  return parse_recorded_config(read_json(directory.config()), tables);
}

Json checkpoint_identity(const RunConfig& config, const std::string& data_hash, const IdMap& items) {
  return Json::object({{"model", to_json(config).at("model")}, {"data", data_hash}, {"items", order_hash(items)}});
}

Json checkpoint_identity_defaults(const RunConfig& config) { return Json::object({{"model", all_model_keys(config)}}); }

namespace {

void add_training(Json& identity, const RunConfig& config) {
  const Json sections = to_json(config);
  const auto some_of = [&](const char* section, const auto& is_wanted) {
    Json some = Json::object();
    for (const auto& [key, value] : sections.at(section).members()) {
      if (is_wanted(key)) some.set(key, value);
    }
    return some;
  };
  const std::set<std::string> free{"epochs", "checkpoint_steps", "stopping_step", "detect_anomaly", "start_from"},
      split{"split", "min_length", "short_users"};
  identity.set("train", some_of("train", [&](const std::string& key) { return !free.contains(key); }));
  identity.set("split", some_of("data", [&](const std::string& key) { return split.contains(key); }));
  identity.set("evaluation", sections.at("evaluation"));
}

}  // namespace

Json training_identity(const RunConfig& config, const std::string& data_hash, const IdMap& items) {
  Json identity = checkpoint_identity(config, data_hash, items);
  add_training(identity, config);
  return identity;
}

Json training_identity_defaults(const RunConfig& config) {
  Json defaults = checkpoint_identity_defaults(config);
  add_training(defaults, config);
  return defaults;
}

RngKey run_key(const RunConfig& config) { return RngKey{static_cast<std::uint64_t>(config.train.seed), 0}; }

void check_same_data(const RunDirectory& directory, const Json& recorded, const RunConfig& config,
                     const RunData& data) {
  // Builds that did not keep items had another content hash; the name as a git blob is the same in all.
  const bool kept = is_there(directory.items());
  const std::string now = kept ? data.hash : git_blob_id(*data.interactions);
  if (recorded.at(kept ? "content_sha256" : "git_blob") == Json(now)) return;
  const auto count = [&](const char* name) { return recorded.at(name).as<std::int64_t>(directory.data().string()); };
  const std::string then = in_words(count("events"), count("users"), count("items"));
  const Interactions& all = *data.interactions;
  const std::string found = in_words(all.size(), all.num_users(), all.num_items());
  fail<IoError>(directory.path.string(), "was trained on other data than ", config.data.path, " holds now: ", then,
                " then, ", found == then ? "as many now, but others, or in another order" : found + " now",
                "; a new run can begin with its weights (train.start_from)");
}

RunData load_recorded_data(const RunDirectory& directory, const RunConfig& config,
                           const StopRequested& stop_requested) {
  const Json recorded = read_json(directory.data());
  RunData data = load_run_data(config.data, stop_requested);
  check_same_data(directory, recorded, config, data);
  const Catalogue items = read_catalogue(directory.items());
  renumber(data, config.data, read_users(directory.users(), items.ids).ids, items.ids);
  return data;
}

TrainedModel open_model(const RunDirectory& directory, const Tables& tables) {
  RunConfig config = read_run_config(directory, tables);
  flush_denormals(config.train.flush_denormals);
  if (!is_there(directory.items()) && is_there(directory.best_weights())) {
    return open_without_items(directory, std::move(config)).trained;
  }
  TrainedModel trained{.config = std::move(config), .items = {}, .model = nullptr};
  if (is_there(directory.items())) trained.items = read_catalogue(directory.items());
  const std::string hash =
      is_there(directory.data()) ? read_json(directory.data()).at("content_sha256").as<std::string>("data.json") : "";
  trained.model = load_model(directory, trained.config, trained.items.size(),
                             checkpoint_identity(trained.config, hash, trained.items.ids));
  return trained;
}

OpenedRun open_run(const RunDirectory& directory, const Tables& tables) {
  if (!is_there(directory.items()) && is_there(directory.best_weights())) {
    const RunConfig config = read_run_config(directory, tables);
    flush_denormals(config.train.flush_denormals);
    return open_without_items(directory, config);
  }
  OpenedRun run{.trained = open_model(directory, tables), .data = {}};
  run.data = load_recorded_data(directory, run.trained.config);
  return run;
}

}  // namespace tally::recsys
