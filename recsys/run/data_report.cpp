#include "tally/recsys/run/data_report.h"

#include <fmt/format.h>

namespace tally::recsys {

DataReport describe(const DataConfig& config, const RunData& data) {
  const auto users = [&](Part part) { return static_cast<std::int64_t>(data.split->targets(part).size()); };
  return {.path = config.path,
          .rules = data_rules(config),
          .content_sha256 = data.hash,
          .git_blob = git_blob_id(*data.interactions),
          .reading = data.report,
          .filters = data.filters,
          .statistics = statistics(*data.interactions),
          .split = data.split->name(),
          .training_events = data.split->training_size(),
          .validation_users = users(Part::validation),
          .test_users = users(Part::test),
          .unreachable_targets = count_unreachable(*data.split, Part::test)};
}

std::string DataReport::to_text() const {
  std::string text = "data: " + path + "\nrules: " + rules + '\n';
  text += reading.to_text();
  if (filters.rounds > 0) text += filters.to_text();
  text += statistics.to_text();
  text += fmt::format("{}: {} events to train on, {} validation users, {} test users, {} unreachable test targets\n",
                      split, training_events, validation_users, test_users, unreachable_targets);
  return text + fmt::format("content sha256 {}  git blob {}\n", content_sha256, git_blob);
}

Json DataReport::to_json() const {
  Json json =
      Json::object({{"path", path}, {"rules", rules}, {"content_sha256", content_sha256}, {"git_blob", git_blob}});
  const Json figures = statistics.to_json();
  for (const auto& [name, value] : figures.members()) json.set(name, value);
  json.set("reading", reading.to_json());
  json.set("filters", filters.to_json());
  json.set("split", split);
  json.set("training_events", training_events);
  json.set("validation_users", validation_users);
  json.set("test_users", test_users);
  json.set("unreachable_targets", unreachable_targets);
  return json;
}

}  // namespace tally::recsys
