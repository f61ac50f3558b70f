#include "tally/recsys/report/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "tally/core/io/file.h"
#include "tally/core/report/axis.h"
#include "tally/core/report/markup.h"
#include "tally/core/report/plot.h"
#include "tally/core/report/table.h"
#include "tally/recsys/report/breakdown.h"

namespace tally::recsys {
namespace {

// No quotes and no `>`: HTML reads a style as it stands, XML does not.
constexpr const char* kStyle =
    "body{font:15px/1.5 system-ui,DejaVu Sans,sans-serif;max-width:1080px;margin:0 auto;padding:24px 20px 60px;"
    "color:#222222;background:#ffffff}h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:40px 0 10px;"
    "border-bottom:1px solid #dddddd;padding-bottom:4px}h3{font-size:15px;margin:0 0 8px}p{margin:6px 0 12px}"
    ".note{color:#5f666d;font-size:13.5px;overflow-wrap:anywhere}"
    ".cards{display:flex;flex-wrap:wrap;gap:12px;margin:18px 0}"
    ".card{border:1px solid #dddddd;border-radius:8px;padding:10px 16px;min-width:104px}"
    ".card b{display:block;font-size:20px}.card span{color:#5f666d;font-size:13px}"
    ".pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:20px}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:14px;margin:4px 0 12px}"
    "th,td{padding:4px 12px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid #e6e6e6;"
    "}td.text:last-child{overflow-wrap:anywhere}th.figure,td.figure{text-align:right;padding:4px "
    "12px;white-space:nowrap;"
    "font-variant-numeric:tabular-nums}tr.result td{font-weight:600}"
    ".sample{border:1px solid #dddddd;border-radius:8px;padding:14px 18px;margin:0 0 14px}"
    ".sample ol,.sample ul{margin:0;padding-left:22px}.sample li span{color:#5f666d;font-size:13px}"
    "code,.mono{font-family:ui-monospace,DejaVu Sans Mono,monospace;font-size:13px}"
    "@media (prefers-color-scheme:dark){body{color:#e4e6e8;background:#16191d}"
    "h2,.card,.sample,th,td{border-color:#343a40}.note,.card span,.sample li span{color:#9aa2aa}}";

std::string text_of(const Json& value) {
  return value.is(Json::Kind::string) ? value.as_string() : value.is(Json::Kind::null) ? kNoFigure : value.dump();
}

std::string text_at(const Json& object, std::string_view name) {
  const Json* value = object.find(name);
  return value == nullptr ? kNoFigure : text_of(*value);
}

bool is_metric(const std::string& name) { return name.find('@') != std::string::npos && !name.starts_with("@"); }

/// Names of the metrics that an evaluation's JSON holds, in its order.
std::vector<std::string> metric_names(const Json& evaluation) {
  std::vector<std::string> names;
  if (!evaluation.is(Json::Kind::object)) return names;
  for (const auto& [name, value] : evaluation.members()) {
    if (is_metric(name)) names.push_back(name);
  }
  return names;
}

class Report {
 public:
  explicit Report(const RunRecord& record) : record_(record), evaluations_(record.evaluations()) {
    const Json* train = record.config.find("train");
    metric_ = recorded_metric(train == nullptr ? "" : text_at(*train, "valid_metric"));
  }

  std::string html() {
    const std::string name = record_.directory.path.filename().empty()
                                 ? record_.directory.path.parent_path().filename().string()
                                 : record_.directory.path.filename().string();
    page_.open("html", {{"xmlns", "http://www.w3.org/1999/xhtml"}, {"lang", "en"}});
    page_.open("head").empty("meta", {{"charset", "utf-8"}});
    page_.empty("meta", {{"name", "viewport"}, {"content", "width=device-width, initial-scale=1"}});
    page_.empty("meta", {{"name", "color-scheme"}, {"content", "light dark"}});
    page_.element("title", name).element("style", kStyle + plot_style()).close();
    page_.open("body");
    header(name);
    metrics();
    curves();
    breakdown();
    samples();
    epochs();
    details();
    page_.close().close();
    return "<!DOCTYPE html>\n" + page_.finish();
  }

 private:
  void heading(const char* text) { page_.element("h2", text); }
  void note(const std::string& text) { page_.element("p", {{"class", "note"}}, text); }
  void card(const std::string& value, const std::string& label) {
    page_.open("div", {{"class", "card"}}).element("b", value).element("span", label).close();
  }

  void header(const std::string& name) {
    page_.element("h1", name);
    const Json* model = record_.config.find("model");
    const RunFigures figures = record_.figures();
    const Json result = record_.result();
    std::string state = "not finished yet: the figures are those of the epochs so far";
    if (record_.is_finished()) {
      state = fmt::format("finished; tested with the weights of epoch {}", format_fixed(figures.best_epoch, 0));
    }
    page_.element("p", fmt::format("{} on {} \xE2\x80\x94 {}", model == nullptr ? "a model" : text_at(*model, "name"),
                                   text_at(record_.data, "path"), state));
    page_.open("div", {{"class", "cards"}});
    for (const std::string& metric : metric_names(result)) {
      if (metric.starts_with("HR@") || metric == metric_)
        card(format_fixed(number_of(result, metric), 4), "test " + metric);
    }
    const auto whole = [](std::optional<double> value) { return value ? with_commas(*value) : kNoFigure; };
    card(whole(figures.parameters), "parameters");
    card(whole(figures.epochs), "epochs");
    card(format_fixed(figures.seconds_per_epoch, 1) + " s", "per epoch (median)");
    card(format_fixed(figures.total_seconds, 0) + " s", "training and validation");
    card(format_bytes(figures.peak_memory), "peak tensor memory");
    if (figures.sgemm_share) card(format_fixed(100 * *figures.sgemm_share, 0) + " %", "of the sgemm rate");
    page_.close();
  }

  static std::string with_commas(double value) {
    std::string digits = fmt::format("{:.0f}", value);
    for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
      digits.insert(static_cast<std::size_t>(at), ",");
    }
    return digits;
  }

  void table(const Table& table, std::size_t result_row = std::string::npos) {
    const auto style = [&](std::size_t c) { return std::string(table.columns()[c].is_figure ? "figure" : "text"); };
    page_.open("div", {{"class", "scroll"}}).open("table").open("thead").open("tr");
    for (std::size_t c = 0; c < table.columns().size(); ++c) {
      page_.element("th", {{"class", style(c)}}, table.columns()[c].name);
    }
    page_.close().close().open("tbody");
    for (std::size_t r = 0; r < table.rows().size(); ++r) {
      page_.open("tr", {{"class", r == result_row ? "result" : "row"}});
      for (std::size_t c = 0; c < table.columns().size(); ++c) {
        page_.element("td", {{"class", style(c)}}, table.rows()[r][c]);
      }
      page_.close();
    }
    page_.close().close().close();
  }

  void metrics() {
    heading("Test metrics");
    if (evaluations_.empty()) return note("Nothing was evaluated yet.");
    const std::vector<std::string> names = metric_names(evaluations_.front());
    std::vector<TableColumn> columns{{"ranker", false}};
    for (const std::string& name : names) columns.push_back({name});
    for (const char* name : {"users", "unreachable", "tied"}) columns.push_back({name});
    Table figures(columns);
    for (const Json& evaluation : evaluations_) {
      std::vector<std::string> row{text_at(evaluation, "ranker")};
      for (const std::string& name : names) row.push_back(format_fixed(number_of(evaluation, name), 4));
      for (const char* name : {"users", "unreachable", "tied"}) row.push_back(text_at(evaluation, name));
      figures.add_row(row);
    }
    table(figures, record_.is_finished() ? evaluations_.size() - 1 : std::string::npos);
    note("Protocol: " + text_at(evaluations_.back(), "protocol"));
    if (!record_.is_finished()) note("The model's own row comes when training has ended.");
  }

  static PlotSeries series(const std::vector<Json>& events, const std::string& name, const std::string& label) {
    PlotSeries series{label, {}};
    for (const Json& event : events) {
      const auto x = number_of(event, "epoch"), y = number_of(event, name);
      if (x && y) series.points.push_back({*x, *y, 0});
    }
    return series;
  }

  void curves() {
    heading("Curves");
    if (record_.epochs.empty()) return note("No epoch has ended yet.");
    page_.open("div", {{"class", "pair"}});
    Plot loss{.title = "Training loss", .x = {"epoch", false}, .y = {}, .series = {series(record_.epochs, "loss", "")}};
    curve(loss);
    if (!record_.validations.empty()) {
      Plot validation{.title = "Validation", .x = {"epoch", false}, .y = {}, .series = {}};
      for (const std::string& name : metric_names(record_.validations.front())) {
        validation.series.push_back(series(record_.validations, name, name));
      }
      curve(validation);
    }
    page_.close();
  }

  void curve(Plot& plot) {
    plot.width = 510;
    plot.height = 300;
    page_.open("div");
    draw_plot(page_, plot);
    page_.close();
  }

  void breakdown() {
    if (record_.ranks.empty()) return;
    heading("Who is served how well");
    page_.open("div", {{"class", "pair"}});
    const RankTies ties = rank_ties_of(record_.config);
    const std::vector<std::string> names = metric_names(record_.result());
    const bool known = std::find(names.begin(), names.end(), metric_) != names.end();
    const std::string metric = known || names.empty() ? metric_ : names.front();
    const std::vector<LengthBucket> lengths = by_history_length(record_.ranks, metric, ties);
    if (!lengths.empty()) {
      Plot plot{.title = metric + " by history length",
                .x = {"events before the test item", false},
                .y = {},
                .kind = PlotKind::bars,
                .series = {{"", {}}},
                .categories = {}};
      Table counts({{"history length", false}, {"users"}, {metric}});
      for (const LengthBucket& bucket : lengths) {
        plot.series[0].points.push_back({static_cast<double>(plot.categories.size()), bucket.metric, 0});
        plot.categories.push_back(bucket.label());
        counts.add_row({bucket.label(), std::to_string(bucket.users), format_fixed(bucket.metric, 4)});
      }
      with_table(plot, counts);
    }
    const std::vector<RankBucket> ranks = rank_distribution(record_.ranks);
    Plot plot{.title = "Rank of the test item",
              .x = {"rank", false},
              .y = {"share of users, %", false},
              .kind = PlotKind::bars,
              .series = {{"", {}}},
              .categories = {}};
    Table counts({{"rank", false}, {"users"}, {"share"}, {"so far"}});
    std::int64_t so_far = 0;
    for (const RankBucket& bucket : ranks) {
      const auto percent = [&](std::int64_t users) {
        return 100 * static_cast<double>(users) / static_cast<double>(record_.ranks.size());
      };
      so_far += bucket.users;
      plot.series[0].points.push_back({static_cast<double>(plot.categories.size()), percent(bucket.users), 0});
      plot.categories.push_back(bucket.label());
      counts.add_row({bucket.label(), std::to_string(bucket.users), format_fixed(percent(bucket.users), 1) + " %",
                      format_fixed(percent(so_far), 1) + " %"});
    }
    with_table(plot, counts);
    page_.close();
  }

  void with_table(Plot& plot, const Table& counts) {
    plot.width = 510;
    plot.height = 300;
    page_.open("div");
    draw_plot(page_, plot);
    table(counts);
    page_.close();
  }

  void samples() {
    if (!record_.samples.is(Json::Kind::array) || record_.samples.size() == 0) return;
    heading("Recommendations");
    note(
        "Users from the shortest history to the longest. What is recommended follows the whole history, whose last "
        "event was the test item.");
    for (const Json& sample : record_.samples.elements()) {
      page_.open("div", {{"class", "sample"}});
      const double best = number_of(sample, "best_rank").value_or(0),
                   worst = number_of(sample, "worst_rank").value_or(0);
      const std::string rank = best == 0       ? "was not ranked"
                               : best == worst ? fmt::format("had been ranked {:.0f}", best)
                                               : fmt::format("had been ranked {:.0f} to {:.0f}", best, worst);
      page_.element("h3", fmt::format("User {}, {} events", text_at(sample, "user"), text_at(sample, "events")));
      note(fmt::format("The test item, {}, {}.", text_at(sample, "test_item"), rank));
      page_.open("div", {{"class", "pair"}});
      const std::vector<Json> history = elements_of(sample, "history");
      if (!history.empty()) {
        page_.open("div").element("h3", "Latest events, the newest last").open("ul");
        for (const Json& item : history) page_.element("li", text_of(item));
        page_.close().close();
      }
      page_.open("div").element("h3", "Recommended next").open("ol");
      for (const Json& item : elements_of(sample, "recommended")) {
        page_.open("li").text(text_at(item, "item") + " ");
        page_.element("span", format_fixed(number_of(item, "score"), 2)).close();
      }
      page_.close().close().close().close();
    }
  }

  static std::vector<Json> elements_of(const Json& object, std::string_view name) {
    const Json* list = object.find(name);
    return list != nullptr && list->is(Json::Kind::array) ? list->elements() : std::vector<Json>{};
  }

  void epochs() {
    if (record_.epochs.empty()) return;
    heading("Epochs");
    page_.open("div", {{"class", "pair"}});
    Plot speed{.title = "Throughput",
               .x = {"epoch", false},
               .y = {"positions per second", false},
               .series = {series(record_.epochs, "tokens_per_second", "")},
               .y_from_zero = true};
    curve(speed);
    Plot seconds{
        .title = "Seconds",
        .x = {"epoch", false},
        .y = {},
        .series = {series(record_.epochs, "seconds", "training"), series(record_.validations, "seconds", "validation")},
        .y_from_zero = true};
    curve(seconds);
    page_.close();
    Table rows({{"epoch"},
                {"loss"},
                {"validation " + metric_},
                {"training"},
                {"validation"},
                {"positions/s"},
                {"of sgemm"},
                {"peak memory"}});
    for (const Json& epoch : record_.epochs) {
      Json validation;
      for (const Json& each : record_.validations) {
        if (number_of(each, "epoch") == number_of(epoch, "epoch")) validation = each;
      }
      const auto seconds_of = [](const Json& event) {
        const auto value = number_of(event, "seconds");
        return value ? format_fixed(value, 2) + " s" : kNoFigure;
      };
      const auto share = number_of(epoch, "sgemm_share");
      rows.add_row({format_fixed(number_of(epoch, "epoch"), 0), format_fixed(number_of(epoch, "loss"), 4),
                    format_fixed(number_of(validation, metric_), 4), seconds_of(epoch), seconds_of(validation),
                    format_fixed(number_of(epoch, "tokens_per_second"), 0),
                    share ? format_fixed(100 * *share, 0) + " %" : kNoFigure,
                    format_bytes(number_of(epoch, "peak_memory"))});
    }
    page_.open("details").element("summary", "Every epoch");
    table(rows);
    page_.close();
  }

  void values(const char* title, const Json& object) {
    page_.open("div").element("h3", title);
    Table rows({{"key", false}, {"value", false}});
    for (const auto& [name, value] : object.members()) {
      if (!value.is(Json::Kind::object) && !is_list_of_objects(value)) rows.add_row({name, text_of(value)});
    }
    table(rows);
    page_.close();
  }

  static bool is_list_of_objects(const Json& value) {
    return value.is(Json::Kind::array) && value.size() > 0 && value.at(std::size_t{0}).is(Json::Kind::object);
  }

  void details() {
    heading("Data");
    page_.open("div", {{"class", "pair"}});
    if (record_.data.is(Json::Kind::object)) values("Data set", record_.data);
    if (record_.training.is(Json::Kind::object)) values("Training set and model", record_.training);
    page_.close();
    heading("Config");
    page_.open("div", {{"class", "pair"}});
    Json top = Json::object();
    for (const auto& [name, value] : record_.config.members()) {
      if (value.is(Json::Kind::object))
        values(name.c_str(), value);
      else
        top.set(name, value);
    }
    values("run", top);
    page_.close();
    if (record_.environment.is(Json::Kind::object)) {
      heading("Environment");
      values("Build and machine", record_.environment);
    }
  }

  const RunRecord& record_;
  std::vector<Json> evaluations_;
  std::string metric_;  ///< the one that the best epoch was chosen by
  Markup page_;
};

}  // namespace

std::string report_html(const RunRecord& record) { return Report(record).html(); }

void write_report(const RunDirectory& directory, const std::filesystem::path& page) {
  write_file_atomically(page, report_html(read_run_record(directory)));
}

}  // namespace tally::recsys
