#include "examples/question_answering/study_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "tally/core/io/file.h"
#include "tally/core/report/paired_comparison.h"

namespace question_answering {

using tally::format_exact;
using tally::format_fixed;
using tally::Plot;
using tally::Table;

namespace {

double percent(double share) { return 100 * share; }

/// "61.2 ± 0.4"; the spread of one figure is not known.
std::string with_spread(const std::vector<double>& values, int decimals) {
  const Spread spread = spread_of(values);
  const std::string text = format_fixed(spread.mean, decimals);
  return values.size() < 2 ? text : text + " ± " + format_fixed(spread.deviation, decimals);
}

std::vector<double> over_seeds(const ReaderResults& results, const std::function<double(const RunResult&)>& figure) {
  std::vector<double> values;
  for (const RunResult& run : results.seeds) values.push_back(figure(run));
  return values;
}

std::vector<double> of_task(const ReaderResults& results, std::size_t task) {
  return over_seeds(results, [task](const RunResult& run) { return percent(run.test.at(task)); });
}
std::vector<double> means(const ReaderResults& results) {
  return over_seeds(results, [](const RunResult& run) { return percent(run.test_mean()); });
}

const ReaderResults* find_reader(const std::vector<ReaderResults>& results, const std::string& name) {
  const auto found =
      std::find_if(results.begin(), results.end(), [&](const ReaderResults& each) { return each.reader == name; });
  return found == results.end() ? nullptr : &*found;
}

std::vector<std::string> task_names(const QuestionSet& set) {
  std::vector<std::string> names = set.tasks;
  if (names.size() > 1) names.emplace_back("mean");
  return names;
}

}  // namespace

Spread spread_of(const std::vector<double>& values) {
  Spread spread;
  if (values.empty()) return spread;
  const auto count = static_cast<double>(values.size());
  spread.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  spread.least = *std::min_element(values.begin(), values.end());
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  if (values.size() > 1) spread.deviation = std::sqrt(squares / (count - 1));
  return spread;
}

double chosen_rate(const std::vector<RunResult>& runs) {
  tally::check<tally::ValueError>(!runs.empty(), "chosen_rate", "needs at least one run");
  std::map<double, std::vector<double>> validations;
  for (const RunResult& each : runs) validations[each.run.learning_rate].push_back(each.validation);
  const auto mean = [](const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  };
  const auto best = std::max_element(validations.begin(), validations.end(),
                                     [&](const auto& a, const auto& b) { return mean(a.second) < mean(b.second); });
  return best->first;  // of rates that are as good the lowest
}

std::vector<ReaderResults> chosen_results(const StudyConfig& config, const std::vector<RunResult>& finished) {
  std::vector<ReaderResults> all;
  for (const ReaderSetting& reader : config.readers) {
    std::vector<RunResult> tried;
    for (const RunResult& each : finished) {
      const auto place = std::find(config.seeds.begin(), config.seeds.end(), each.run.seed) - config.seeds.begin();
      if (each.run.reader == reader.name && place < config.rate_seeds) tried.push_back(each);
    }
    if (tried.empty()) continue;
    ReaderResults results{reader.name, chosen_rate(tried), {}};
    for (const std::int64_t seed : config.seeds) {
      for (const RunResult& each : finished) {
        const bool same = each.run.reader == reader.name && each.run.learning_rate == results.learning_rate;
        if (same && each.run.seed == seed) results.seeds.push_back(each);
      }
    }
    all.push_back(std::move(results));
  }
  return all;
}

Table accuracy_table(const QuestionSet& set, const std::vector<ReaderResults>& results) {
  std::vector<tally::TableColumn> columns{{"task", false}};
  for (const ReaderResults& each : results) columns.push_back({each.reader});
  Table table(columns);
  const auto add = [&](const std::string& name, const std::function<std::string(const ReaderResults&)>& cell) {
    std::vector<std::string> row{name};
    for (const ReaderResults& each : results) row.push_back(cell(each));
    table.add_row(std::move(row));
  };
  for (std::size_t task = 0; task < set.tasks.size(); ++task) {
    add(set.tasks[task], [&](const ReaderResults& each) { return with_spread(of_task(each, task), 1); });
  }
  if (set.tasks.size() > 1) {
    add("mean", [](const ReaderResults& each) { return with_spread(means(each), 2); });
  }
  add("seeds", [](const ReaderResults& each) { return std::to_string(each.seeds.size()); });
  add("learning rate", [](const ReaderResults& each) { return format_exact(each.learning_rate); });
  return table;
}

Table gap_table(const StudyConfig& config, const std::vector<ReaderResults>& results) {
  Table table({{"gap", false},
               {"points"},
               {"deviation over seeds"},
               {"least of a seed"},
               {"seeds"},
               {"95 % interval over tasks"},
               {"p over tasks"},
               {"tasks better"},
               {"tasks worse"}});
  for (const GapSetting& gap : config.gaps) {
    const ReaderResults *better = find_reader(results, gap.better), *worse = find_reader(results, gap.worse);
    if (better == nullptr || worse == nullptr) continue;
    std::vector<double> by_seed;
    std::vector<std::vector<double>> treatment, control;  // of a task, those seeds
    for (const RunResult& a : better->seeds) {
      for (const RunResult& b : worse->seeds) {
        if (a.run.seed != b.run.seed) continue;
        by_seed.push_back(percent(a.test_mean() - b.test_mean()));
        treatment.resize(a.test.size());
        control.resize(a.test.size());
        for (std::size_t task = 0; task < a.test.size(); ++task) {
          treatment[task].push_back(percent(a.test[task]));
          control[task].push_back(percent(b.test[task]));
        }
      }
    }
    if (by_seed.empty()) continue;
    std::vector<double> of_better, of_worse;
    std::int64_t tasks_better = 0, tasks_worse = 0;
    for (std::size_t task = 0; task < treatment.size(); ++task) {
      of_better.push_back(spread_of(treatment[task]).mean);
      of_worse.push_back(spread_of(control[task]).mean);
      tasks_better += of_better.back() > of_worse.back() ? 1 : 0;
      tasks_worse += of_better.back() < of_worse.back() ? 1 : 0;
    }
    const Spread spread = spread_of(by_seed);
    std::string interval = tally::kNoFigure, p = tally::kNoFigure;
    if (of_better.size() > 1) {
      const tally::PairedComparison test = tally::paired_t_test(of_better, of_worse);
      interval = format_fixed(test.low, 2) + " to " + format_fixed(test.high, 2);
      p = tally::format_p_value(test.p_value);
    }
    table.add_row({gap.better + " - " + gap.worse, format_fixed(spread.mean, 2),
                   by_seed.size() > 1 ? format_fixed(spread.deviation, 2) : tally::kNoFigure,
                   format_fixed(spread.least, 2), std::to_string(by_seed.size()), interval, p,
                   std::to_string(tasks_better), std::to_string(tasks_worse)});
  }
  return table;
}

Table run_table(const std::vector<RunResult>& finished) {
  Table table({{"reader", false},
               {"learning rate"},
               {"seed"},
               {"validation"},
               {"test"},
               {"best epoch"},
               {"epochs"},
               {"first loss"},
               {"last loss"},
               {"parameters"},
               {"seconds"},
               {"words a second"}});
  for (const RunResult& each : finished) {
    table.add_row({each.run.reader, format_exact(each.run.learning_rate), std::to_string(each.run.seed),
                   format_fixed(percent(each.validation), 2), format_fixed(percent(each.test_mean()), 2),
                   std::to_string(each.best_epoch), std::to_string(each.validation_by_epoch.size()),
                   format_fixed(each.first_loss, 4), format_fixed(each.last_loss, 4), std::to_string(each.parameters),
                   format_fixed(each.seconds, 1), format_fixed(each.words_per_second, 0)});
  }
  return table;
}

Plot accuracy_plot(const StudyConfig& config, const QuestionSet& set, const std::vector<ReaderResults>& results) {
  Plot plot;
  plot.title = config.name;
  plot.y.label = "test accuracy, %";
  plot.kind = tally::PlotKind::bars;
  plot.categories = task_names(set);
  plot.width = 320 + 48 * static_cast<double>(plot.categories.size());
  for (const ReaderResults& each : results) {
    tally::PlotSeries series{each.reader, {}};
    for (std::size_t place = 0; place < plot.categories.size(); ++place) {
      const Spread spread = spread_of(place < set.tasks.size() ? of_task(each, place) : means(each));
      series.points.push_back({static_cast<double>(place), spread.mean, spread.deviation});
    }
    plot.series.push_back(std::move(series));
  }
  // Names of bAbI's tasks are long: "qa1" says as much.
  for (std::string& name : plot.categories) {
    if (set.tasks.size() > 1) name = name.substr(0, name.find('_'));
  }
  return plot;
}

Plot learning_plot(const StudyConfig& config, const std::vector<ReaderResults>& results) {
  Plot plot;
  plot.title = config.name;
  plot.x.label = "epoch";
  plot.y.label = "validation accuracy, %";
  for (const ReaderResults& each : results) {
    tally::PlotSeries series{each.reader, {}};
    for (std::size_t epoch = 0;; ++epoch) {
      std::vector<double> values;
      for (const RunResult& run : each.seeds) {
        if (epoch < run.validation_by_epoch.size()) values.push_back(percent(run.validation_by_epoch[epoch]));
      }
      if (values.empty()) break;
      const Spread spread = spread_of(values);
      series.points.push_back({static_cast<double>(epoch + 1), spread.mean, spread.deviation});
    }
    plot.series.push_back(std::move(series));
  }
  return plot;
}

std::string write_report(const StudyConfig& config, const QuestionSet& set, const std::vector<RunResult>& finished) {
  const std::filesystem::path output = config.output;
  const std::vector<ReaderResults> results = chosen_results(config, finished);
  const Table accuracy = accuracy_table(set, results), gaps = gap_table(config, results), runs = run_table(finished);
  std::string text = "# " + config.name + "\n\n" +
                     "Test accuracy in percent, of the epoch with the best validation:\n\n" + accuracy.to_markdown() +
                     "\n![accuracy](accuracy.svg)\n\n";
  if (!gaps.rows().empty()) {
    text += "Gaps of the mean accuracy in points; pairs have the same seed, or the same task:\n\n" +
            gaps.to_markdown() + '\n';
  }
  text += "All runs:\n\n" + runs.to_markdown() + "\n![learning](learning.svg)\n";
  for (const RunResult& run : finished) {
    if (!run.diverged.empty()) text += "\n`" + run.run.directory() + "` ended early: " + run.diverged + '\n';
  }
  std::filesystem::create_directories(output);
  tally::write_file_atomically(output / "results.md", text);
  tally::write_file_atomically(output / "accuracy.csv", accuracy.to_csv());
  tally::write_file_atomically(output / "gaps.csv", gaps.to_csv());
  tally::write_file_atomically(output / "runs.csv", runs.to_csv());
  tally::write_plot(output / "accuracy.svg", accuracy_plot(config, set, results));
  tally::write_plot(output / "learning.svg", learning_plot(config, results));
  return text;
}

}  // namespace question_answering
