#include "tally/recsys/study/study_tables.h"

#include <algorithm>
#include <map>

#include "tally/recsys/study/measurements.h"

namespace tally::recsys {
namespace {

constexpr std::uint64_t kBootstrapSeed = 1993;

/// What decides whether ranks of two runs may be paired.
bool tested_alike(const RunRecord& a, const RunRecord& b) {
  const auto rules = [](const RunRecord& record) {
    Json deciding = Json::object({{"evaluation", Json::object()}, {"data", Json::object()}});
    for (const char* section : {"evaluation", "data"}) {
      const Json* values = record.config.find(section);
      if (values == nullptr || !values->is(Json::Kind::object)) continue;
      for (const auto& [name, value] : values->members()) {
        const bool decides = name != "topk" && name != "valid_users" && name != "titles" && name != "path";
        if (decides) deciding.set_at(std::string(section) + '.' + name, value);
      }
    }
    return deciding;
  };
  const Json* hash = a.data.find("content_sha256");
  const Json* other = b.data.find("content_sha256");
  return hash != nullptr && other != nullptr && *hash == *other && rules(a) == rules(b);
}

bool is_finished(const std::optional<RunRecord>& record) { return record.has_value() && record->is_finished(); }

std::string finished_of(const std::vector<std::optional<RunRecord>>& seeds) {
  const auto finished = std::count_if(seeds.begin(), seeds.end(), is_finished);
  return std::to_string(finished) + " of " + std::to_string(seeds.size());
}

std::optional<std::size_t> reference_of(const Study& study) {
  for (std::size_t r = 0; r < study.runs.size(); ++r) {
    if (study.runs[r].name == study.compare_to) return r;
  }
  return std::nullopt;
}

}  // namespace

StudyRecords read_study_records(const Study& study, const std::filesystem::path& output) {
  StudyRecords records;
  for (const StudyRun& run : study.runs) {
    std::vector<std::optional<RunRecord>>& seeds = records.emplace_back();
    for (const std::int64_t seed : study.seeds) {
      const RunDirectory directory = study_run_directory(output, run, seed);
      if (std::filesystem::exists(directory.config()))
        seeds.emplace_back(read_run_record(directory));
      else
        seeds.emplace_back();
    }
  }
  return records;
}

std::vector<double> finished_values(const std::vector<std::optional<RunRecord>>& seeds, const std::string& figure) {
  std::vector<double> values;
  for (const auto& record : seeds) {
    // Times and epochs of a run on its way would pass for those of a whole one.
    if (!is_finished(record)) continue;
    if (const auto value = figure_of(*record, figure)) values.push_back(*value);
  }
  return values;
}

std::optional<StudyComparison> compare_runs(const std::vector<std::optional<RunRecord>>& treatment,
                                            const std::vector<std::optional<RunRecord>>& control,
                                            const std::string& metric) {
  StudyComparison comparison;
  std::map<std::string, std::pair<double, double>> sums;  // by user, so that the order of users does not matter
  for (std::size_t s = 0; s < std::min(treatment.size(), control.size()); ++s) {
    if (!is_finished(treatment[s]) || !is_finished(control[s])) continue;
    const RunRecord& a = *treatment[s];
    const RunRecord& b = *control[s];
    if (!tested_alike(a, b) || a.ranks.size() != b.ranks.size()) return std::nullopt;
    const RankTies ties = rank_ties_of(a.config);
    for (const UserRank& user : a.ranks) sums[user.user].first += metric_of(user.rank, metric, ties);
    for (const UserRank& user : b.ranks) sums[user.user].second += metric_of(user.rank, metric, ties);
    // Users that only one of the two knows would have made it longer.
    if (sums.size() != a.ranks.size()) return std::nullopt;
    ++comparison.seeds;
  }
  if (comparison.seeds == 0 || sums.size() < 2) return std::nullopt;
  std::vector<double> with, without;
  for (const auto& [user, sum] : sums) {
    with.push_back(sum.first / static_cast<double>(comparison.seeds));
    without.push_back(sum.second / static_cast<double>(comparison.seeds));
  }
  comparison.t_test = paired_t_test(with, without);
  comparison.bootstrap = paired_bootstrap(with, without, RngKey{kBootstrapSeed}.fold_in(metric));
  return comparison;
}

Table results_table(const Study& study, const StudyRecords& records) {
  std::vector<TableColumn> columns{{"run", false}, {"seeds"}};
  for (const std::string& metric : study.metrics) columns.push_back({metric});
  Table table(columns);
  // Baselines are the same for all runs on the same data under the same protocol, and stand once.
  std::vector<std::pair<std::string, std::vector<std::string>>> baselines;
  for (std::size_t r = 0; r < study.runs.size(); ++r) {
    for (const auto& record : records[r]) {
      if (!record) continue;
      std::vector<Json> evaluations = record->evaluations();
      if (record->is_finished() && !evaluations.empty()) evaluations.pop_back();
      for (const Json& evaluation : evaluations) {
        const Json* ranker = evaluation.find("ranker");
        std::vector<std::string> row{"1"};
        for (const std::string& metric : study.metrics) {
          row.push_back(format_fixed(number_of(evaluation, recorded_metric(metric)), 4));
        }
        const std::string name = ranker == nullptr ? kNoFigure : ranker->as_string();
        const auto is_same = [&](const auto& other) { return other.first.starts_with(name) && other.second == row; };
        if (std::any_of(baselines.begin(), baselines.end(), is_same)) continue;
        const auto is_other = [&](const auto& other) { return other.first == name; };
        const bool differs = std::any_of(baselines.begin(), baselines.end(), is_other);
        baselines.emplace_back(differs ? name + " (as for " + study.runs[r].name + ")" : name, row);
      }
    }
  }
  for (auto& [name, row] : baselines) {
    row[0] = kNoFigure;
    row.insert(row.begin(), name);
    table.add_row(row);
  }
  for (std::size_t r = 0; r < study.runs.size(); ++r) {
    std::vector<std::string> row{study.runs[r].name, finished_of(records[r])};
    for (const std::string& metric : study.metrics)
      row.push_back(spread_of(finished_values(records[r], metric)).to_text(4));
    table.add_row(row);
  }
  return table;
}

Table comparison_table(const Study& study, const StudyRecords& records) {
  Table table({{"run", false},
               {"metric", false},
               {"difference"},
               {"relative"},
               {"95 % interval"},
               {"p (t-test)"},
               {"p (bootstrap)"},
               {"users"},
               {"seeds"}});
  const auto reference = reference_of(study);
  if (!reference) return table;
  for (std::size_t r = 0; r < study.runs.size(); ++r) {
    if (r == *reference) continue;
    for (const std::string& metric : study.metrics) {
      const auto comparison = compare_runs(records[r], records[*reference], metric);
      std::vector<std::string> row{study.runs[r].name, metric};
      if (!comparison) {
        row.resize(table.columns().size(), kNoFigure);
      } else {
        const PairedComparison& test = comparison->t_test;
        const auto control = spread_of(finished_values(records[*reference], metric)).mean;
        const bool has_ratio = control && *control > 0;
        row.insert(row.end(), {(test.difference > 0 ? "+" : "") + format_fixed(test.difference, 4),
                               has_ratio ? (test.difference > 0 ? "+" : "") +
                                               format_fixed(100 * test.difference / *control, 1) + " %"
                                         : kNoFigure,
                               format_fixed(test.low, 4) + " to " + format_fixed(test.high, 4),
                               format_p_value(test.p_value), format_p_value(comparison->bootstrap.p_value),
                               std::to_string(test.pairs), std::to_string(comparison->seeds)});
      }
      table.add_row(row);
    }
  }
  return table;
}

Table cost_table(const Study& study, const StudyRecords& records) {
  Table table({{"run", false},
               {"parameters"},
               {"epochs"},
               {"best epoch"},
               {"s/epoch"},
               {"total s"},
               {"peak memory"},
               {"of sgemm"},
               {"positions/s"}});
  for (std::size_t r = 0; r < study.runs.size(); ++r) {
    const auto spread = [&](const char* figure) { return spread_of(finished_values(records[r], figure)); };
    const auto share = spread("sgemm_share").mean;
    table.add_row({study.runs[r].name, format_fixed(spread("parameters").mean, 0), spread("epochs").to_text(1),
                   spread("best_epoch").to_text(1), spread("seconds_per_epoch").to_text(2),
                   spread("total_seconds").to_text(1), format_bytes(spread("peak_memory").mean),
                   share ? format_fixed(100 * *share, 0) + " %" : kNoFigure,
                   format_fixed(spread("tokens_per_second").mean, 0)});
  }
  return table;
}

Table seeds_table(const Study& study, const StudyRecords& records) {
  std::vector<TableColumn> columns{{"run", false}, {"seed"}, {"finished", false}};
  for (const std::string& metric : study.metrics) columns.push_back({metric});
  for (const std::string& figure : figure_names()) columns.push_back({figure});
  Table table(columns);
  for (std::size_t r = 0; r < study.runs.size(); ++r) {
    for (std::size_t s = 0; s < study.seeds.size(); ++s) {
      const auto& record = records[r][s];
      std::vector<std::string> row{study.runs[r].name, std::to_string(study.seeds[s]),
                                   is_finished(record) ? "yes"
                                   : record            ? "no"
                                                       : "not begun"};
      for (const auto* names : {&study.metrics, &figure_names()}) {
        for (const std::string& name : *names) row.push_back(record ? format_exact(figure_of(*record, name)) : "");
      }
      table.add_row(row);
    }
  }
  return table;
}

}  // namespace tally::recsys
