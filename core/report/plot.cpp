#include "tally/core/report/plot.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "tally/core/error.h"
#include "tally/core/io/file.h"
#include "tally/core/report/axis.h"

extern char** environ;

namespace tally {
namespace {

constexpr std::size_t kColours = 8;
constexpr double kCharacter = 6.7;  // mean width at 12 px, generous
constexpr double kLegendRow = 20;

std::string number(double value) { return fmt::format("{:.2f}", value); }

double text_width(const std::string& text) {
  const auto characters =
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  return kCharacter * static_cast<double>(characters);
}

void check_plot(const Plot& plot) {
  check<ValueError>(plot.kind == PlotKind::lines || (!plot.categories.empty() && !plot.y.is_log), "plot",
                    "needs categories and a linear axis for bars");
  check<ValueError>(plot.categories.empty() || !plot.x.is_log, "plot", "needs numbers on a logarithmic axis");
  if (plot.categories.empty()) return;
  for (const PlotSeries& series : plot.series) {
    for (const PlotPoint& point : series.points) {
      check<ValueError>(
          point.x >= 0 && point.x < static_cast<double>(plot.categories.size()) && point.x == std::floor(point.x),
          "plot", "needs an x that is the index of one of ", plot.categories.size(), " categories; got ", point.x);
    }
  }
}

/// Draws one plot; positions in px from the top left.
class Drawing {
 public:
  Drawing(Markup& page, const Plot& plot) : page_(page), plot_(plot) {
    check_plot(plot);
    std::vector<double> xs, ys;
    for (const PlotSeries& series : plot.series) {
      for (const PlotPoint& point : series.points) {
        if (!is_shown(point)) continue;
        xs.push_back(point.x);
        ys.insert(ys.end(), {point.y - point.error, point.y, point.y + point.error});
      }
    }
    x_ = plot.categories.empty() ? fit_scale(xs, plot.x.is_log)
                                 : AxisScale{-0.5, static_cast<double>(plot.categories.size()) - 0.5, false};
    y_ = fit_scale(ys, plot.y.is_log, plot.y_from_zero || plot.kind == PlotKind::bars);
    y_ticks_ = ticks(y_);
    double widest = 0;
    for (const double tick : y_ticks_) widest = std::max(widest, text_width(format_tick(tick)));
    left_ = 14 + widest + (plot.y.label.empty() ? 0 : 20);
    right_ = plot.width - 16;
    top_ = plot.title.empty() ? 14 : 38;
    bottom_ = plot.height - (plot.x.label.empty() ? 28 : 48);
    slanted_ = false;
    for (const std::string& name : plot.categories) {
      slanted_ = slanted_ || text_width(name) > (right_ - left_) / static_cast<double>(plot.categories.size()) - 6;
    }
    if (slanted_) {
      double longest = 0;
      for (const std::string& name : plot.categories) longest = std::max(longest, text_width(shortened(name)));
      below_ = 0.5 * longest;
      // Slanted names end under their tick and reach to the left.
      left_ = std::max(left_, 0.87 * longest - (right_ - left_) / static_cast<double>(2 * plot.categories.size()));
    }
  }

  void draw(const std::string& style) {
    const double legend_top = plot_.height + below_;
    const double height = legend_top + legend_height();
    page_.open("svg", {{"xmlns", "http://www.w3.org/2000/svg"},
                       {"class", "plot"},
                       {"viewBox", fmt::format("0 0 {:.0f} {:.0f}", plot_.width, height)},
                       {"width", fmt::format("{:.0f}", plot_.width)},
                       {"height", fmt::format("{:.0f}", height)},
                       {"role", "img"}});
    if (!style.empty()) page_.element("style", style);
    page_.element("title", plot_.title.empty() ? plot_.y.label : plot_.title);
    page_.empty("rect", {{"class", "plot-paper"}, {"width", "100%"}, {"height", "100%"}});
    if (!plot_.title.empty()) text(plot_.width / 2, 22, "middle", plot_.title, "plot-title");
    draw_axes();
    for (std::size_t i = 0; i < plot_.series.size(); ++i) {
      page_.open("g", {{"class", "plot-series " + style_of(i)}});
      if (plot_.kind == PlotKind::bars) {
        draw_bars(i);
      } else {
        draw_line(i);
      }
      page_.close();
    }
    draw_legend(legend_top);
    page_.close();
  }

 private:
  static constexpr std::size_t kLongestName = 28;

  bool is_shown(const PlotPoint& point) const {
    return std::isfinite(point.x) && std::isfinite(point.y) && (!plot_.x.is_log || point.x > 0) &&
           (!plot_.y.is_log || point.y > 0);
  }
  double at_x(double value) const { return left_ + x_.position(value) * (right_ - left_); }
  double at_y(double value) const { return bottom_ - y_.position(value) * (bottom_ - top_); }
  /// An end of an error bar may lie at or below zero of a logarithmic axis.
  double at_y_clamped(double value) const {
    return plot_.y.is_log && value <= y_.low ? bottom_ : std::clamp(at_y(value), top_, bottom_);
  }

  static std::string shortened(const std::string& name) {
    if (text_width(name) <= kCharacter * kLongestName) return name;
    std::string kept;
    for (const char c : name) {
      const bool starts_character = (static_cast<unsigned char>(c) & 0xC0) != 0x80;
      if (starts_character && text_width(kept) >= kCharacter * (kLongestName - 1)) break;
      kept += c;
    }
    return kept + "\xE2\x80\xA6";
  }

  void text(double x, double y, const char* anchor, const std::string& words, const char* style = "plot-text") {
    page_.element("text", {{"class", style}, {"x", number(x)}, {"y", number(y)}, {"text-anchor", anchor}}, words);
  }
  void line(double x1, double y1, double x2, double y2, const char* style) {
    page_.empty("line",
                {{"class", style}, {"x1", number(x1)}, {"y1", number(y1)}, {"x2", number(x2)}, {"y2", number(y2)}});
  }

  void draw_axes() {
    page_.open("g", {{"class", "plot-axes"}});
    for (const double tick : y_ticks_) {
      line(left_, at_y(tick), right_, at_y(tick), "plot-grid");
      text(left_ - 6, at_y(tick) + 4, "end", format_tick(tick));
    }
    if (plot_.categories.empty()) {
      for (const double tick : ticks(x_, static_cast<int>((right_ - left_) / 70))) {
        line(at_x(tick), bottom_, at_x(tick), bottom_ + 4, "plot-axis");
        text(at_x(tick), bottom_ + 18, "middle", format_tick(tick));
      }
    } else {
      for (std::size_t i = 0; i < plot_.categories.size(); ++i) {
        const double x = at_x(static_cast<double>(i));
        if (!slanted_) {
          text(x, bottom_ + 18, "middle", plot_.categories[i]);
          continue;
        }
        page_.element("text",
                      {{"class", "plot-text"},
                       {"text-anchor", "end"},
                       {"transform", fmt::format("translate({:.2f} {:.2f}) rotate(-30)", x + 4, bottom_ + 16)}},
                      shortened(plot_.categories[i]));
      }
    }
    line(left_, bottom_, right_, bottom_, "plot-axis");
    if (!plot_.x.label.empty()) text((left_ + right_) / 2, plot_.height + below_ - 10, "middle", plot_.x.label);
    if (!plot_.y.label.empty()) {
      page_.element("text",
                    {{"class", "plot-text"},
                     {"text-anchor", "middle"},
                     {"transform", fmt::format("translate(14 {:.2f}) rotate(-90)", (top_ + bottom_) / 2)}},
                    plot_.y.label);
    }
    page_.close();
  }

  void draw_error(double x, const PlotPoint& point) {
    if (!(point.error > 0) || !std::isfinite(point.error)) return;
    const double high = at_y_clamped(point.y + point.error), low = at_y_clamped(point.y - point.error);
    line(x, high, x, low, "plot-error");
    line(x - 4, high, x + 4, high, "plot-error");
    line(x - 4, low, x + 4, low, "plot-error");
  }

  void draw_marker(std::size_t series, double x, double y, const std::string& note = "") {
    page_.open("path", {{"class", "plot-marker"}, {"d", marker(series, x, y)}});
    if (!note.empty()) page_.element("title", note);
    page_.close();
  }

  /// Colour of a series; beyond as many as there are, dashes too.
  static std::string style_of(std::size_t series) {
    const std::size_t round = std::min<std::size_t>(series / kColours, 2);
    return fmt::format("plot-{}", series % kColours) + (round > 0 ? fmt::format(" plot-dashes-{}", round) : "");
  }

  /// Shapes tell series apart without their colours, and series of one colour.
  static std::string marker(std::size_t series, double x, double y) {
    switch ((series + series / kColours) % 4) {
      case 1:
        return fmt::format("M{:.2f} {:.2f}h6v6h-6z", x - 3, y - 3);
      case 2:
        return fmt::format("M{:.2f} {:.2f}l4 7h-8z", x, y - 4);
      case 3:
        return fmt::format("M{:.2f} {:.2f}l4 4l-4 4l-4 -4z", x, y - 4);
      default:
        return fmt::format("M{:.2f} {:.2f}a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0z", x - 3.2, y);
    }
  }

  std::string note_of(const PlotSeries& series, const PlotPoint& point) const {
    const std::string x =
        plot_.categories.empty() ? format_tick(point.x) : plot_.categories[static_cast<std::size_t>(point.x)];
    return fmt::format("{}{}{}: {:.6g}", series.name, series.name.empty() ? "" : ", ", x, point.y);
  }

  void draw_line(std::size_t index) {
    const PlotSeries& series = plot_.series[index];
    std::string path;
    bool joined = false;
    for (const PlotPoint& point : series.points) {
      if (is_shown(point)) path += fmt::format("{}{:.2f} {:.2f}", joined ? "L" : "M", at_x(point.x), at_y(point.y));
      joined = is_shown(point);
    }
    if (path.find('L') != std::string::npos) page_.empty("path", {{"class", "plot-line"}, {"d", path}});
    // Markers of long curves would hide them.
    const bool with_markers = series.points.size() <= 40;
    for (const PlotPoint& point : series.points) {
      if (!is_shown(point)) continue;
      draw_error(at_x(point.x), point);
      if (with_markers) draw_marker(index, at_x(point.x), at_y(point.y), note_of(series, point));
    }
  }

  void draw_bars(std::size_t index) {
    const double slot = (right_ - left_) / static_cast<double>(plot_.categories.size());
    const double width = std::min(0.75 * slot / static_cast<double>(plot_.series.size()), 60.0);
    for (const PlotPoint& point : plot_.series[index].points) {
      if (!is_shown(point)) continue;
      const double group = width * static_cast<double>(plot_.series.size());
      const double x = at_x(point.x) - group / 2 + width * static_cast<double>(index);
      const double from = at_y(0), to = at_y(point.y);
      page_.open("rect", {{"class", "plot-bar"},
                          {"x", number(x + 1)},
                          {"y", number(std::min(from, to))},
                          {"width", number(std::max(width - 2, 1.0))},
                          {"height", number(std::abs(from - to))}});
      page_.element("title", note_of(plot_.series[index], point)).close();
      draw_error(x + width / 2, point);
    }
  }

  bool has_legend() const {
    return plot_.series.size() > 1 || (plot_.series.size() == 1 && !plot_.series[0].name.empty());
  }
  double entry_width(const PlotSeries& series) const { return 30 + text_width(series.name) + 22; }

  /// Rows that the names need side by side.
  double legend_height() const {
    if (!has_legend()) return 0;
    double x = left_, rows = 1;
    for (const PlotSeries& series : plot_.series) {
      if (x > left_ && x + entry_width(series) > right_) {
        x = left_;
        ++rows;
      }
      x += entry_width(series);
    }
    return rows * kLegendRow + 8;
  }

  void draw_legend(double top) {
    if (!has_legend()) return;
    double x = left_, y = top + kLegendRow / 2;
    for (std::size_t i = 0; i < plot_.series.size(); ++i) {
      if (x > left_ && x + entry_width(plot_.series[i]) > right_) {
        x = left_;
        y += kLegendRow;
      }
      page_.open("g", {{"class", "plot-legend " + style_of(i)}});
      if (plot_.kind == PlotKind::bars) {
        page_.empty("rect",
                    {{"class", "plot-bar"}, {"x", number(x)}, {"y", number(y - 5)}, {"width", "22"}, {"height", "10"}});
      } else {
        page_.empty("path", {{"class", "plot-line"}, {"d", fmt::format("M{:.2f} {:.2f}h22", x, y)}});
        draw_marker(i, x + 11, y);
      }
      text(x + 28, y + 4, "start", plot_.series[i].name);
      page_.close();
      x += entry_width(plot_.series[i]);
    }
  }

  Markup& page_;
  const Plot& plot_;
  AxisScale x_, y_;
  std::vector<double> y_ticks_;
  double left_ = 0, right_ = 0, top_ = 0, bottom_ = 0;
  double below_ = 0;  ///< room for slanted names
  bool slanted_ = false;
};

/// Runs `rsvg-convert` from the PATH. Returns whether it succeeded; it may not be installed.
bool convert_to_png(const std::string& svg, const std::string& png) {
  std::string words[] = {"rsvg-convert", "--zoom=2", "--output", png, svg};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), words[4].data(), nullptr};
  pid_t process = 0;
  if (::posix_spawnp(&process, arguments[0], nullptr, nullptr, arguments, environ) != 0) return false;
  int status = 0;
  while (::waitpid(process, &status, 0) < 0) {
    if (errno != EINTR) return false;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

std::string plot_style() {
  // No custom properties, which converters of SVG do not know, and no quotes or `>`, which HTML and XML read
  // differently.
  constexpr const char* kLight[kColours] = {"#0067a8", "#c84e00", "#00805c", "#a8478a",
                                            "#7a5c00", "#5b4bb7", "#008a9b", "#666666"};
  constexpr const char* kDark[kColours] = {"#5db4f0", "#ff9a57", "#4ccfa5", "#e891c8",
                                           "#e0bf52", "#aa9cf5", "#4fd3e3", "#b0b0b0"};
  const auto colours = [](const char* const* values) {
    std::string text;
    for (std::size_t i = 0; i < kColours; ++i) {
      text += fmt::format(
          ".plot-{0} .plot-line,.plot-{0} .plot-error{{stroke:{1}}}.plot-{0} .plot-marker,.plot-{0} .plot-bar"
          "{{fill:{1}}}",
          i, values[i]);
    }
    return text;
  };
  return ".plot{font-family:system-ui,DejaVu Sans,sans-serif;font-size:12px;max-width:100%;height:auto}"
         ".plot-title{font-size:14px;font-weight:600}.plot-line{fill:none;stroke-width:2;stroke-linejoin:round}"
         ".plot-error{stroke-width:1.2}.plot-paper{fill:#ffffff}.plot-text,.plot-title{fill:#222222}"
         ".plot-grid{stroke:#dddddd;stroke-width:1}.plot-axis{stroke:#777777;stroke-width:1}"
         ".plot-series .plot-bar~.plot-error{stroke:#222222}"
         ".plot-dashes-1 .plot-line{stroke-dasharray:7 3}.plot-dashes-2 .plot-line{stroke-dasharray:2 3}" +
         colours(kLight) +
         "@media (prefers-color-scheme:dark){.plot-paper{fill:#16191d}.plot-text,.plot-title{fill:#e4e6e8}"
         ".plot-grid{stroke:#343a40}.plot-axis{stroke:#8a9096}" +
         colours(kDark) + ".plot-series .plot-bar~.plot-error{stroke:#e4e6e8}}";
}

void draw_plot(Markup& page, const Plot& plot) { Drawing(page, plot).draw(""); }

std::string plot_svg(const Plot& plot) {
  Markup drawing;
  Drawing(drawing, plot).draw(plot_style());
  return drawing.finish();
}

bool write_plot(const std::filesystem::path& svg, const Plot& plot) {
  write_file_atomically(svg, plot_svg(plot));
  std::filesystem::path png = svg;
  return convert_to_png(svg.string(), png.replace_extension(".png").string());
}

}  // namespace tally
