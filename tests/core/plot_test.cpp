#include <algorithm>
#include <catch2/catch.hpp>
#include <charconv>
#include <cmath>
#include <limits>

#include "tally/core/io/file.h"
#include "tally/core/report/axis.h"
#include "tally/core/report/plot.h"
#include "tally/core/report/table.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/well_formed.h"

namespace plot_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

std::vector<std::string> labels(const AxisScale& scale, int count = 5) {
  std::vector<std::string> texts;
  for (const double tick : ticks(scale, count)) texts.push_back(format_tick(tick));
  return texts;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

/// The number behind the next `mark` from `at` on, which moves behind the mark.
double number_after(const std::string& text, std::string_view mark, std::size_t& at) {
  at = text.find(mark, at) + mark.size();
  double value = std::nan("");
  std::from_chars(text.data() + at, text.data() + text.size(), value);
  return value;
}

Plot two_lines() {
  Plot plot;
  plot.title = "A & B <1>";
  plot.x.label = "epoch";
  plot.y.label = "loss";
  plot.series = {{"train", {{1, 3, 0}, {2, 2, 0.5}, {3, 1.5, 0}}}, {"\"valid\"", {{1, 3.5, 0}, {3, 2.5, 0}}}};
  return plot;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("ticks are round, within the scale, and few", "[plot]") {
  CHECK(labels({0, 1, false}) == Texts{"0", "0.2", "0.4", "0.6", "0.8", "1"});
  CHECK(labels({0.013, 0.187, false}) == Texts{"0.05", "0.1", "0.15"});
  CHECK(labels({-30, 55, false}) == Texts{"-20", "0", "20", "40"});
  CHECK(labels({0, 2.5e6, false}, 5) == Texts{"0", "500k", "1M", "1.5M", "2M", "2.5M"});
  CHECK(labels({1, 1e6, true}) == Texts{"1", "10", "100", "1,000", "10k", "100k", "1M"});
  CHECK(labels({100, 5000, true}) == Texts{"100", "200", "500", "1,000", "2,000", "5,000"});
  CHECK(labels({1e-3, 0.9, true}) == Texts{"0.001", "0.01", "0.1"});
  // Less than an octave on a logarithmic axis: linear ticks.
  CHECK(labels({3.1, 4.2, true}, 5) == Texts{"3.2", "3.4", "3.6", "3.8", "4", "4.2"});
  CHECK(ticks({1e-12, 1e12, true}).size() <= 9);
  for (const double span : {1e-9, 0.3, 7.0, 123.0, 9.9e8}) {
    const std::vector<double> values = ticks({-0.37 * span, 0.63 * span, false});
    INFO(span);
    CHECK(values.size() >= 3);
    CHECK(values.size() <= 9);
  }
}

TEST_CASE("scales hold their values and place them", "[plot]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const AxisScale linear = fit_scale({2, nan, 12}, false);
  CHECK(linear.low == Approx(1.5));
  CHECK(linear.high == Approx(12.5));
  CHECK(linear.position(7) == Approx(0.5));
  CHECK(fit_scale({2, 12}, false, true).low == 0);
  CHECK(fit_scale({-2, -12}, false, true).high == 0);
  const AxisScale log = fit_scale({1, 0, -5, 10000}, true);
  CHECK(log.position(100) == Approx(0.5));
  CHECK(log.position(1) > 0);
  CHECK(fit_scale({8, 8}, false).position(8) == Approx(0.5));
  CHECK(fit_scale({0}, false).position(0) == Approx(0.5));
  CHECK(fit_scale({8}, true).position(8) == Approx(0.5));
  CHECK(fit_scale({}, false).high == 1);
  CHECK(fit_scale({nan}, true).high == 10);
}

TEST_CASE("a line plot has its axes, points, error bars and legend", "[plot]") {
  const std::string svg = plot_svg(two_lines());
  CHECK(test::malformed(svg) == "");
  CHECK_THAT(svg, Contains("A &amp; B &lt;1&gt;") && Contains(">epoch<") && Contains(">loss<"));
  CHECK_THAT(svg, Contains(">train<") && Contains(">&quot;valid&quot;<"));
  CHECK_THAT(svg, Contains("prefers-color-scheme:dark"));
  CHECK(count_of(svg, "class=\"plot-marker\"") == 5 + 2);  // points, and the legend's
  CHECK(count_of(svg, "class=\"plot-error\"") == 3);
  CHECK(count_of(svg, "class=\"plot-line\"") == 2 + 2);
}

TEST_CASE("points lie where their values say", "[plot]") {
  Plot plot;
  plot.x.is_log = plot.y.is_log = true;
  plot.series = {{"", {{1, 10, 0}, {10, 100, 0}, {100, 1000, 0}, {0, 5, 0}, {5, -1, 0}}}};
  const std::string svg = plot_svg(plot);
  // The middle of the three in both directions, and those off a logarithmic axis not at all.
  double x[3], y[3];
  const std::size_t at = svg.find(" d=\"M");
  std::size_t from = at;
  for (int i = 0; i < 3; ++i) {
    x[i] = number_after(svg, i == 0 ? "M" : "L", from);
    y[i] = number_after(svg, " ", from);
  }
  CHECK(x[1] == Approx((x[0] + x[2]) / 2).margin(0.02));
  CHECK(y[1] == Approx((y[0] + y[2]) / 2).margin(0.02));
  CHECK(x[0] < x[2]);
  CHECK(y[0] > y[2]);
  CHECK(count_of(svg, "class=\"plot-marker\"") == 3);
}

TEST_CASE("more series than colours are told apart by dashes and markers", "[plot]") {
  Plot plot;
  for (int i = 0; i < 18; ++i) plot.series.push_back({"s" + std::to_string(i), {{1, 1.0 * i, 0}, {2, 1.0 * i, 0}}});
  const std::string svg = plot_svg(plot);
  const auto marker_of = [&](const std::string& style) {  // its first, without the place
    std::size_t at = svg.find("class=\"plot-series " + style + "\"");
    REQUIRE(at != std::string::npos);
    at = svg.find("plot-marker", at);
    at = svg.find_first_of("hla", svg.find("d=\"", at));
    return svg.substr(at, svg.find('"', at) - at);
  };
  CHECK(marker_of("plot-0") != marker_of("plot-0 plot-dashes-1"));
  CHECK(marker_of("plot-7") != marker_of("plot-7 plot-dashes-1"));
  CHECK(marker_of("plot-1 plot-dashes-1") != marker_of("plot-1 plot-dashes-2"));
  CHECK(count_of(svg, "stroke-dasharray") == 2);
}

TEST_CASE("lines break where a value is missing; nothing at all can be drawn", "[plot]") {
  Plot plot;
  plot.series = {{"", {{1, 1, 0}, {2, std::nan(""), 0}, {3, 2, 0}, {4, 3, 0}}}};
  const std::string svg = plot_svg(plot);
  const std::size_t begin = svg.find("class=\"plot-line\" d=\"");
  const std::string path = svg.substr(begin, svg.find("/>", begin) - begin);
  CHECK(count_of(path, "M") == 2);
  CHECK(count_of(path, "L") == 1);
  CHECK_THAT(svg, !Contains("nan") && !Contains("inf"));
  CHECK(test::malformed(plot_svg(Plot{})) == "");
}

TEST_CASE("bars stand on zero, beside each other", "[plot]") {
  Plot plot;
  plot.kind = PlotKind::bars;
  plot.categories = {"1-10", "11-50 & more"};
  plot.series = {{"a", {{0, 0.5, 0}, {1, 1, 0.1}}}, {"b", {{0, 0.25, 0}}}};
  const std::string svg = plot_svg(plot);
  CHECK(test::malformed(svg) == "");
  std::vector<double> heights;
  for (std::size_t at = svg.find("<rect class=\"plot-bar\""); at != std::string::npos;
       at = svg.find("<rect class=\"plot-bar\"", at + 1)) {
    std::size_t from = at;
    heights.push_back(number_after(svg, "height=\"", from));
  }
  REQUIRE(heights.size() == 3 + 2);  // bars, and the legend's
  CHECK(heights[0] == Approx(heights[1] / 2).margin(0.02));
  CHECK(heights[2] == Approx(heights[0] / 2).margin(0.02));
  plot.series[0].points[0].x = 2;
  CHECK_THROWS_AS(plot_svg(plot), ValueError);
  plot.categories.clear();
  CHECK_THROWS_AS(plot_svg(plot), ValueError);
}

TEST_CASE("a plot is written to a file", "[plot]") {
  const test::TemporaryDirectory files;
  write_plot(files / "a.svg", two_lines());
  CHECK(read_file(files / "a.svg") == plot_svg(two_lines()));
  CHECK_THROWS_AS(write_plot(files / "none/a.svg", two_lines()), IoError);
}

TEST_CASE("tables as Markdown and CSV", "[table]") {
  Table table({{"run", false}, {"HR@10"}, {"note", false}});
  table.add_row({"Am\xC3\xA9lie", "0.1", "a|b\nc"});
  table.add_row({"x", "-", "said \"no\", then"});
  CHECK(table.to_markdown() ==
        "| run    | HR@10 | note            |\n"
        "| ------ | ----: | --------------- |\n"
        "| Am\xC3\xA9lie |   0.1 | a\\|b c          |\n"
        "| x      |     - | said \"no\", then |\n");
  CHECK(table.to_csv() == "run,HR@10,note\nAm\xC3\xA9lie,0.1,\"a|b\nc\"\nx,-,\"said \"\"no\"\", then\"\n");
  CHECK_THROWS_AS(table.add_row({"too", "few"}), ShapeError);
  // Whatever stands in a cell, a row is a line and has its bars.
  for (const char* text : {"a\\|b", "a\\", "|", "\\\\|", "a\tb\vc\fd", "a\r\nb", "\r"}) {
    Table odd({{"cell", false}, {"next", false}});
    odd.add_row({text, "n"});
    const std::string markdown = odd.to_markdown();
    INFO(markdown);
    CHECK(std::count(markdown.begin(), markdown.end(), '\n') == 3);
    int bars = 0;
    for (std::size_t i = markdown.rfind('\n', markdown.size() - 2) + 1; i < markdown.size(); ++i) {
      if (markdown[i] == '\\')
        ++i;  // the next character stands for itself
      else
        bars += markdown[i] == '|';
      CHECK((static_cast<unsigned char>(markdown[i]) >= 0x20 || i + 1 == markdown.size()));
    }
    CHECK(bars == 3);
  }
}

TEST_CASE("figures as text", "[table]") {
  CHECK(format_fixed(0.12345, 4) == "0.1235");
  CHECK(format_fixed(-0.00001, 4) == "0.0000");
  CHECK(format_fixed(-0.5, 1) == "-0.5");
  CHECK(format_fixed(std::nullopt, 4) == "-");
  CHECK(format_fixed(std::nan(""), 4) == "-");
  CHECK(format_exact(0.1) == "0.1");
  CHECK(format_exact(std::nullopt) == "");
  CHECK(format_bytes(999) == "999 B");
  CHECK(format_bytes(1500000) == "1.5 MB");
  CHECK(format_bytes(123456789) == "123 MB");
  CHECK(format_bytes(std::nullopt) == "-");
  CHECK(format_p_value(0.0421) == "0.042");
  CHECK(format_p_value(2.34e-5) == "2e-05");
}

}  // namespace plot_test
