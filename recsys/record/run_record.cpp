#include "tally/recsys/record/run_record.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "tally/core/io/line_reader.h"

namespace tally::recsys {
namespace {

Json read_if_there(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_json(path) : Json();
}

std::vector<std::string_view> split_tabs(std::string_view line) {
  std::vector<std::string_view> fields;
  while (true) {
    const std::size_t tab = line.find('\t');
    fields.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return fields;
    line.remove_prefix(tab + 1);
  }
}

std::vector<UserRank> read_ranks(const std::filesystem::path& path) {
  std::vector<UserRank> ranks;
  if (!std::filesystem::exists(path)) return ranks;
  LineReader reader(path);
  std::string_view line;
  reader.next(line);  // the header
  const auto integer = [&](std::string_view field) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
    if (error != std::errc() || end != field.data() + field.size() || value < 0) {
      reader.refuse("needs an integer that is not negative; got \"", field, "\"");
    }
    return value;
  };
  while (reader.next(line)) {
    const std::vector<std::string_view> fields = split_tabs(line);
    // Runs of version 0.1 have no history lengths.
    if (fields.size() != 4 && fields.size() != 5) reader.refuse("needs 4 or 5 columns; got ", fields.size());
    ranks.push_back({std::string(fields[0]),
                     {integer(fields[2]), integer(fields[3])},
                     fields.size() == 5 ? integer(fields[4]) : -1});
  }
  return ranks;
}

void read_events(const std::filesystem::path& path, RunRecord& record) {
  if (!std::filesystem::exists(path)) return;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) {
    Json event;
    try {
      event = parse_json(line, path.string());
    } catch (const IoError&) {
      continue;  // torn by a kill, or being written at this moment
    }
    const Json* kind = event.find("event");
    if (kind == nullptr) continue;
    if (*kind == Json("epoch"))
      record.epochs.push_back(std::move(event));
    else if (*kind == Json("validation"))
      record.validations.push_back(std::move(event));
  }
}

std::optional<double> median_of(const std::vector<Json>& events, std::string_view name) {
  std::vector<double> values;
  for (const Json& event : events) {
    if (const auto value = number_of(event, name)) values.push_back(*value);
  }
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

}  // namespace

std::optional<double> number_of(const Json& object, std::string_view name) {
  const Json* value = object.find(name);
  if (value == nullptr || !(value->is(Json::Kind::integer) || value->is(Json::Kind::number))) return std::nullopt;
  const double number = value->as_double();
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

std::vector<Json> RunRecord::evaluations() const {
  const Json* list = is_finished() ? test.find("test") : training.find("baselines");
  return list != nullptr && list->is(Json::Kind::array) ? list->elements() : std::vector<Json>{};
}

Json RunRecord::result() const {
  const std::vector<Json> all = evaluations();
  return is_finished() && !all.empty() ? all.back() : Json();
}

RunFigures RunRecord::figures() const {
  RunFigures figures;
  figures.parameters = number_of(training, "parameters");
  figures.best_epoch = number_of(test, "best_epoch");
  if (epochs.empty()) return figures;
  figures.epochs = static_cast<double>(epochs.size());
  figures.seconds_per_epoch = median_of(epochs, "seconds");
  figures.tokens_per_second = median_of(epochs, "tokens_per_second");
  figures.sgemm_share = median_of(epochs, "sgemm_share");
  double seconds = 0;
  for (const auto* events : {&epochs, &validations}) {
    for (const Json& event : *events) seconds += number_of(event, "seconds").value_or(0);
  }
  figures.total_seconds = seconds;
  for (const Json& event : epochs) {
    const auto peak = number_of(event, "peak_memory");
    if (peak) figures.peak_memory = std::max(figures.peak_memory.value_or(0), *peak);
  }
  return figures;
}

RunRecord read_run_record(const RunDirectory& directory) {
  check<IoError>(std::filesystem::exists(directory.config()), directory.path.string(),
                 "is no run directory: it has no config.resolved.json");
  RunRecord record;
  record.directory = directory;
  record.config = read_json(directory.config());
  record.environment = read_if_there(directory.environment());
  record.data = read_if_there(directory.data());
  record.training = read_if_there(directory.training());
  record.test = read_if_there(directory.test_metrics());
  if (record.is_finished()) {
    record.samples = read_if_there(directory.samples());
    record.ranks = read_ranks(directory.ranks());
  }
  read_events(directory.metrics(), record);
  return record;
}

double metric_of(const TargetRank& rank, const std::string& metric, RankTies ties) {
  const std::size_t at = std::min(metric.find('@'), metric.size());
  const std::string kind = metric.substr(0, at);
  std::int64_t k = 0;
  const char* const end = metric.data() + metric.size();
  const bool is_number = at < metric.size() && std::from_chars(metric.data() + at + 1, end, k).ptr == end && k >= 1;
  const bool is_kind = kind == "NDCG" || kind == "HR" || kind == "Recall" || kind == "MRR";
  check<ConfigError>(is_number && is_kind, "metric", "needs NDCG@K, HR@K, Recall@K or MRR@K; got \"", metric, "\"");
  const Metrics metrics = metrics_of(rank, k, ties);
  return kind == "NDCG" ? metrics.ndcg : kind == "MRR" ? metrics.mrr : metrics.hit_rate;
}

RankTies rank_ties_of(const Json& config) {
  const Json* evaluation = config.find("evaluation");
  const Json* rule = evaluation == nullptr ? nullptr : evaluation->find("rank_ties");
  if (rule == nullptr) return RankTies::mean;
  return *rule == Json("pessimistic")  ? RankTies::pessimistic
         : *rule == Json("optimistic") ? RankTies::optimistic
                                       : RankTies::mean;
}

std::string recorded_metric(const std::string& metric) {
  return metric.starts_with("Recall@") ? "HR@" + metric.substr(7) : metric;
}

}  // namespace tally::recsys
