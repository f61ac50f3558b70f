#include "tally/recsys/study/measurements.h"

#include <algorithm>
#include <cmath>

#include "tally/core/error.h"
#include "tally/core/report/table.h"

namespace tally::recsys {
namespace {

bool is_number(const Json& value) { return value.is(Json::Kind::integer) || value.is(Json::Kind::number); }

std::string category_of(const Json& value) { return value.is(Json::Kind::string) ? value.as_string() : value.dump(); }

/// Position of a name in a list, which it joins when it is new.
std::size_t place_of(const std::string& name, std::vector<std::string>& names) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  names.push_back(name);
  return names.size() - 1;
}

}  // namespace

std::string Spread::to_text(int decimals) const {
  if (!deviation) return format_fixed(mean, decimals);
  return format_fixed(mean, decimals) + " \xC2\xB1 " + format_fixed(deviation, decimals);
}

Spread spread_of(const std::vector<double>& values) {
  Spread spread;
  spread.count = static_cast<std::int64_t>(values.size());
  if (values.empty()) return spread;
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  spread.mean = sum / n;
  for (const double value : values) squares += (value - *spread.mean) * (value - *spread.mean);
  if (values.size() > 1) spread.deviation = std::sqrt(squares / (n - 1));
  return spread;
}

Plot plot_measurements(std::string title, PlotAxis x, PlotAxis y, const std::vector<Measurement>& measurements) {
  Plot plot;
  plot.title = std::move(title);
  plot.x = std::move(x);
  plot.y = std::move(y);
  const bool numeric =
      std::all_of(measurements.begin(), measurements.end(), [](const Measurement& each) { return is_number(each.x); });
  if (!numeric) {
    plot.kind = PlotKind::bars;
    // Bars need a linear axis that begins at zero, and categories have no logarithm.
    plot.x.is_log = plot.y.is_log = false;
  }
  std::vector<std::string> names;
  for (const Measurement& each : measurements) {
    const std::size_t series = place_of(each.series, names);
    if (series == plot.series.size()) plot.series.push_back({each.series, {}});
    const double at =
        numeric ? each.x.as_double() : static_cast<double>(place_of(category_of(each.x), plot.categories));
    const Spread spread = spread_of(each.values);
    auto& points = plot.series[series].points;
    check<ValueError>(std::none_of(points.begin(), points.end(), [&](const PlotPoint& other) { return other.x == at; }),
                      plot.title, "needs one measurement for each x of a series; two of \"", each.series, "\" have ",
                      category_of(each.x));
    // Without values NaN holds the place until it is known that x is unique.
    points.push_back({at, spread.mean.value_or(std::nan("")), spread.deviation.value_or(0)});
  }
  for (PlotSeries& series : plot.series) {
    std::erase_if(series.points, [](const PlotPoint& point) { return std::isnan(point.y); });
    std::sort(series.points.begin(), series.points.end(),
              [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });
  }
  return plot;
}

}  // namespace tally::recsys
