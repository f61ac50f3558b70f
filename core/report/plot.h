#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tally/core/report/markup.h"

// Line and bar plots as SVG. They know nothing of runs: a benchmark feeds them as well as a study does.

namespace tally {

struct PlotPoint {
  double x = 0;      ///< of a plot with categories: the index of one
  double y = 0;      ///< a point that is not finite is left out, and lines break there
  double error = 0;  ///< half the length of an error bar; 0 for none
};

struct PlotSeries {
  std::string name;
  std::vector<PlotPoint> points;  ///< lines join them in this order
};

struct PlotAxis {
  std::string label{};
  bool is_log = false;  ///< values that are not above 0 are left out
};

enum class PlotKind { lines, bars };

struct Plot {
  std::string title{};
  PlotAxis x{}, y{};
  PlotKind kind = PlotKind::lines;
  std::vector<PlotSeries> series{};
  std::vector<std::string> categories{};  ///< names of x = 0, 1, ...; bars need them
  bool y_from_zero = false;               ///< bars begin at 0 always
  double width = 640;                     ///< in px
  double height = 360;                    ///< in px, without the legend
};

/// Colours of plots in light and dark, for the page or drawing that holds them.
std::string plot_style();

/// The plot as an `svg` element of a page that has plot_style(). Throws ValueError for bars without categories or on a
/// logarithmic axis, and for an x that is not the index of a category.
void draw_plot(Markup& page, const Plot& plot);

/// A file of its own, style included.
std::string plot_svg(const Plot& plot);

/// Writes plot_svg, and a PNG beside it when the program `rsvg-convert` is on the PATH. Throws IoError when the SVG
/// can't be written; returns whether there is a PNG.
bool write_plot(const std::filesystem::path& svg, const Plot& plot);

}  // namespace tally
