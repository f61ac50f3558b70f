// The files of a study: tables as Markdown and CSV, plots as SVG.
#include <fmt/format.h>

#include <algorithm>

#include "tally/core/io/file.h"
#include "tally/recsys/study/measurements.h"
#include "tally/recsys/study/study_tables.h"

namespace tally::recsys {
namespace {

std::string label_of(const Json& value) { return value.is(Json::Kind::string) ? value.as_string() : value.dump(); }

std::string axis_label(const std::string& figure) {
  if (figure == "peak_memory") return "peak memory, MB";
  if (figure == "seconds_per_epoch") return "seconds per epoch";
  if (figure == "total_seconds") return "total seconds";
  if (figure == "sgemm_share") return "share of the sgemm rate";
  if (figure == "tokens_per_second") return "positions per second";
  if (figure == "best_epoch") return "best epoch";
  return figure;
}

Plot make_plot(const StudyPlot& wanted, const Study& study, const StudyRecords& records) {
  const double unit = wanted.y == "peak_memory" ? 1e-6 : 1;
  std::vector<Measurement> measurements;
  for (std::size_t r = 0; r < study.runs.size(); ++r) {
    const Json series = key_value(study.runs[r], wanted.series);
    Measurement measurement{label_of(series), key_value(study.runs[r], wanted.x), {}};
    for (const double value : finished_values(records[r], wanted.y)) measurement.values.push_back(unit * value);
    measurements.push_back(std::move(measurement));
  }
  const auto bare = [](const std::string& key) { return key.substr(key.rfind('.') + 1); };
  const std::string title =
      wanted.title.empty() ? fmt::format("{} by {}", axis_label(wanted.y), bare(wanted.x)) : wanted.title;
  return plot_measurements(title, {bare(wanted.x), wanted.log_x}, {axis_label(wanted.y), wanted.log_y}, measurements);
}

/// A list of what runs have in common or not: one line for each distinct text, with the runs it holds for when there
/// are several.
template <class TextOf>
std::string distinct_lines(const Study& study, const StudyRecords& records, TextOf&& text_of) {
  std::vector<std::pair<std::string, std::vector<std::string>>> lines;
  for (std::size_t r = 0; r < study.runs.size(); ++r) {
    for (const auto& record : records[r]) {
      const std::string text = record ? text_of(*record) : "";
      if (text.empty()) continue;
      auto line = std::find_if(lines.begin(), lines.end(), [&](const auto& each) { return each.first == text; });
      if (line == lines.end()) line = lines.insert(lines.end(), {text, {}});
      if (line->second.empty() || line->second.back() != study.runs[r].name) line->second.push_back(study.runs[r].name);
    }
  }
  std::string all;
  for (const auto& [text, runs] : lines) {
    all += "- " + text;
    if (lines.size() > 1) all += fmt::format(" ({})", fmt::join(runs, ", "));
    all += '\n';
  }
  return all.empty() ? "- nothing yet\n" : all;
}

std::string protocol_of(const RunRecord& record) {
  const std::vector<Json> evaluations = record.evaluations();
  const Json* protocol = evaluations.empty() ? nullptr : evaluations.back().find("protocol");
  return protocol == nullptr ? "" : label_of(*protocol);
}

std::string versions_of(const RunRecord& record) {
  if (!record.environment.is(Json::Kind::object)) return "";
  std::string text;
  for (const auto& [name, value] : record.environment.members()) {
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", name, label_of(value));
  }
  return text;
}

std::string data_of(const RunRecord& record) {
  const Json& data = record.data;
  if (!data.is(Json::Kind::object)) return "";
  std::string text;
  for (const char* name : {"path", "users", "items", "events", "content_sha256"}) {
    if (const Json* value = data.find(name)) {
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, label_of(*value));
    }
  }
  return text;
}

/// A row for each run and metric, for programs.
Table csv_table(const Study& study, const StudyRecords& records) {
  std::vector<TableColumn> columns{{"run", false}, {"metric", false}, {"seeds"}, {"mean"},     {"sd"},
                                   {"difference"}, {"low"},           {"high"},  {"p_t_test"}, {"p_bootstrap"}};
  for (const std::string& figure : figure_names()) columns.push_back({figure});
  Table table(columns);
  const auto reference = std::find_if(study.runs.begin(), study.runs.end(),
                                      [&](const StudyRun& run) { return run.name == study.compare_to; });
  for (std::size_t r = 0; r < study.runs.size(); ++r) {
    for (const std::string& metric : study.metrics) {
      const Spread values = spread_of(finished_values(records[r], metric));
      std::vector<std::string> row{study.runs[r].name, metric, std::to_string(values.count), format_exact(values.mean),
                                   format_exact(values.deviation)};
      std::optional<StudyComparison> comparison;
      if (reference != study.runs.end() && reference->name != study.runs[r].name) {
        comparison =
            compare_runs(records[r], records[static_cast<std::size_t>(reference - study.runs.begin())], metric);
      }
      if (comparison) {
        const PairedComparison& test = comparison->t_test;
        for (const double value : {test.difference, test.low, test.high, test.p_value, comparison->bootstrap.p_value}) {
          row.push_back(format_exact(value));
        }
      } else {
        row.resize(row.size() + 5);
      }
      for (const std::string& figure : figure_names())
        row.push_back(format_exact(spread_of(finished_values(records[r], figure)).mean));
      table.add_row(row);
    }
  }
  return table;
}

}  // namespace

void write_study(const Study& study, const std::filesystem::path& output) {
  const StudyRecords records = read_study_records(study, output);
  std::int64_t finished = 0;
  for (const auto& seeds : records) {
    for (const auto& record : seeds) finished += record && record->is_finished();
  }
  std::string text =
      fmt::format("# {}\n\n{} of {} trainings finished; runs: {}; seeds: {}.\n", study.name, finished,
                  study.runs.size() * study.seeds.size(), study.runs.size(), fmt::join(study.seeds, ", "));
  text += "\n## Results\n\nTest part; mean and sample standard deviation over seeds.\n\n" +
          results_table(study, records).to_markdown();
  if (!study.compare_to.empty() && study.runs.size() > 1) {
    text += fmt::format(
        "\n## Compared with {}\n\nPaired by user, each user's mean over the seeds that both finished: the p-values "
        "speak "
        "of other users of the same kind,\nthe deviations over seeds above of other trainings. The interval is the "
        "t-test's. \"-\": not (yet) comparable.\n\n{}",
        study.compare_to, comparison_table(study, records).to_markdown());
  }
  text += "\n## Cost\n\nMeans over seeds; s/epoch is training alone, the total holds validation too.\n\n" +
          cost_table(study, records).to_markdown();
  for (std::size_t i = 0; i < study.plots.size(); ++i) {
    const Plot plot = make_plot(study.plots[i], study, records);
    const std::string name = fmt::format("plot-{}", i + 1);
    write_plot(output / (name + ".svg"), plot);
    if (i == 0) text += "\n## Plots\n";
    text += fmt::format("\n![{}]({}.svg)\n", plot.title, name);
  }
  text += "\n## Protocol\n\n" + distinct_lines(study, records, protocol_of);
  text += "\n## Data\n\n" + distinct_lines(study, records, data_of);
  text += "\n## Versions\n\n" + distinct_lines(study, records, versions_of);
  write_file_atomically(output / "study.md", text);
  write_file_atomically(output / "study.csv", csv_table(study, records).to_csv());
  write_file_atomically(output / "seeds.csv", seeds_table(study, records).to_csv());
}

}  // namespace tally::recsys
