#include "tools/gradient_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <ostream>

#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/core/version.h"

namespace tally::tools {
namespace {

using ops::EntryReport;
using ops::EntryVerdict;
using ops::SampleReport;

const char* name_of(EntryVerdict verdict) {
  switch (verdict) {
    case EntryVerdict::pass:
      return "OK";
    case EntryVerdict::fail:
      return "FAIL";
    case EntryVerdict::inconclusive:
      return "NOISE";
    case EntryVerdict::skip:
      break;
  }
  return "SKIP";
}

int severity(GradientVerdict verdict) {
  switch (verdict) {
    case GradientVerdict::fail:
      return 4;
    case GradientVerdict::noise:
      return 3;
    case GradientVerdict::kink:
      return 2;
    case GradientVerdict::ok:
      return 1;
    case GradientVerdict::not_differentiable:
      break;
  }
  return 0;
}

/// An input over all samples: the worst of them, with the counts of all.
struct Row {
  LeafReport leaf;
  std::string sample;
};

bool worse(const LeafReport& a, const LeafReport& b) {
  if (severity(a.verdict) != severity(b.verdict)) return severity(a.verdict) > severity(b.verdict);
  return a.max_scaled > b.max_scaled;
}

std::vector<Row> collect(const EntryReport& report, bool every_sample) {
  std::vector<Row> rows;
  for (const SampleReport& sample : report.samples) {
    for (const LeafReport& leaf : sample.gradients.leaves) {
      const auto same =
          std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.leaf.name == leaf.name; });
      if (every_sample || same == rows.end()) {
        rows.push_back({leaf, sample.sample});
        continue;
      }
      Row merged = worse(leaf, same->leaf) ? Row{leaf, sample.sample} : *same;
      merged.leaf.checked = same->leaf.checked + leaf.checked;
      merged.leaf.total = same->leaf.total + leaf.total;
      merged.leaf.kinks = same->leaf.kinks + leaf.kinks;
      *same = std::move(merged);
    }
  }
  return rows;
}

constexpr const char* kHeadings =
    "shape           checked      max abs  max rel  scaled   at      analytic      numeric       FD "
    "error "
    "cosine    ratio     kinks repeats verdict\n";

void print_row(std::ostream& out, const Row& row, std::size_t width) {
  const LeafReport& leaf = row.leaf;
  const std::string shape = detail::join(leaf.shape), checked = fmt::format("{}/{}", leaf.checked, leaf.total);
  if (leaf.verdict == GradientVerdict::not_differentiable) {
    out << fmt::format("  {:<{}} {:<15} {:<12} {:105} {}\n", leaf.name, width, shape, "-", "",
                       tally::name_of(leaf.verdict));
    return;
  }
  const ElementError worst = leaf.worst.empty() ? ElementError{} : leaf.worst[0];
  out << fmt::format(
      "  {:<{}} {:<15} {:<12} {:<8.1e} {:<8.1e} {:<8.1e} {:<7} {:<13.6g} {:<13.6g} {:<8.1e} {:<9.6f} {:<9.6g} {:<5} "
      "{:<7} {}\n",
      leaf.name, width, shape, checked, leaf.max_absolute, leaf.max_relative, leaf.max_scaled, worst.index,
      worst.analytic, worst.numeric, leaf.numeric_error, leaf.cosine, leaf.norm_ratio, leaf.kinks,
      leaf.deterministic ? "yes" : "no", tally::name_of(leaf.verdict));
}

void print_details(std::ostream& out, const Row& row) {
  if (row.leaf.hint.empty()) return;
  out << fmt::format("    sample {}: {}\n", row.sample, row.leaf.hint);
  if (row.leaf.verdict != GradientVerdict::fail) return;
  for (const ElementError& element : row.leaf.worst) {
    out << fmt::format("      element {:<6} analytic {:< 20.12g} numeric {:< 20.12g} scaled error {:.3g}\n",
                       element.index, element.analytic, element.numeric, element.scaled);
  }
}

std::int64_t count(const std::vector<EntryReport>& reports, EntryVerdict verdict) {
  return std::count_if(reports.begin(), reports.end(), [&](const EntryReport& r) { return r.verdict == verdict; });
}

Json to_json(const LeafReport& leaf) {
  Json worst = Json::array();
  for (const ElementError& element : leaf.worst) {
    worst.push_back(Json::object({{"index", element.index},
                                  {"analytic", element.analytic},
                                  {"numeric", element.numeric},
                                  {"scaled_error", element.scaled}}));
  }
  const std::span<const std::int64_t> sizes = leaf.shape.sizes();
  return Json::object({{"name", leaf.name},
                       {"shape", std::vector<std::int64_t>(sizes.begin(), sizes.end())},
                       {"verdict", tally::name_of(leaf.verdict)},
                       {"hint", leaf.hint},
                       {"checked", leaf.checked},
                       {"total", leaf.total},
                       {"kinks", leaf.kinks},
                       {"noisy", leaf.noisy},
                       {"max_absolute", leaf.max_absolute},
                       {"max_relative", leaf.max_relative},
                       {"max_scaled", leaf.max_scaled},
                       {"directions", leaf.directions},
                       {"max_direction", leaf.max_direction},
                       {"numeric_error", leaf.numeric_error},
                       {"cosine", leaf.cosine},
                       {"norm_ratio", leaf.norm_ratio},
                       {"deterministic", leaf.deterministic},
                       {"worst", worst}});
}

Json to_json(const EntryReport& report) {
  Json samples = Json::array();
  for (const SampleReport& sample : report.samples) {
    Json inputs = Json::array();
    for (const LeafReport& leaf : sample.gradients.leaves) inputs.push_back(to_json(leaf));
    samples.push_back(Json::object({{"sample", sample.sample},
                                    {"skipped", sample.skipped},
                                    {"error", sample.error},
                                    {"complaints", sample.complaints},
                                    {"inputs", inputs}}));
  }
  return Json::object({{"name", report.op},
                       {"verdict", name_of(report.verdict)},
                       {"complaint", report.complaint},
                       {"samples", samples}});
}

}  // namespace

void print_gradient_header(std::ostream& out, const GradientCheckOptions& options) {
  out << fmt::format("tally {}\n", version_description());
  out << fmt::format(
      "dtype f64, seed {}, rtol {:g}, atol at most {:g}; {} elements of an input one by one, and all along {} "
      "directions\n",
      options.key.seed, options.rtol, options.atol, options.max_elements, 2 * options.directions);
  out << fmt::format(
      "methods: Richardson from step {:g}, central with step {:g}, the more precise one; random cotangents\n",
      options.richardson_step, options.step);
  out << fmt::format("threads {}, denormals {}, SIMD {}, {}\n", num_threads(), denormals_flushed() ? "flushed" : "kept",
                     simd_target(), blas::description());
  if (options.injected_bug != 1) {
    out << fmt::format("INJECTED BUG: every analytic gradient times {:g}; every op must fail\n", options.injected_bug);
  }
}

void print_gradient_report(std::ostream& out, const EntryReport& report, bool every_sample) {
  const auto skipped = std::count_if(report.samples.begin(), report.samples.end(),
                                     [](const SampleReport& sample) { return !sample.skipped.empty(); });
  out << fmt::format("\n{}  {}  {} samples", report.op, name_of(report.verdict),
                     static_cast<std::int64_t>(report.samples.size()) - skipped);
  if (skipped > 0) out << fmt::format(", {} not differentiable", skipped);
  if (!report.complaint.empty()) out << ": " << report.complaint;
  out << '\n';
  const std::vector<Row> rows = collect(report, every_sample);
  std::size_t width = 16;
  for (const Row& row : rows) width = std::max(width, row.leaf.name.size());
  if (!rows.empty()) out << fmt::format("  {:<{}} ", "input", width) << kHeadings;
  for (const Row& row : rows) {
    print_row(out, row, width);
    if (every_sample && row.leaf.hint.empty()) out << "    sample " << row.sample << '\n';
    print_details(out, row);
  }
  for (const SampleReport& sample : report.samples) {
    if (!sample.error.empty()) out << fmt::format("    sample {}: error: {}\n", sample.sample, sample.error);
    for (const std::string& complaint : sample.complaints) {
      out << fmt::format("    sample {}: {}\n", sample.sample, complaint);
    }
  }
}

std::string summarise(const std::vector<EntryReport>& reports) {
  std::string text = fmt::format("{} passed, {} failed, {} skipped", count(reports, EntryVerdict::pass),
                                 count(reports, EntryVerdict::fail), count(reports, EntryVerdict::skip));
  const std::int64_t inconclusive = count(reports, EntryVerdict::inconclusive);
  return inconclusive == 0 ? text : text + fmt::format(", {} inconclusive", inconclusive);
}

int exit_code_of(const std::vector<EntryReport>& reports) {
  if (count(reports, EntryVerdict::fail) > 0) return 1;
  return count(reports, EntryVerdict::inconclusive) > 0 ? 3 : 0;
}

Json to_json(const std::vector<EntryReport>& reports, const GradientCheckOptions& options) {
  Json all = Json::array();
  for (const EntryReport& report : reports) all.push_back(to_json(report));
  return Json::object({{"version", version()},
                       {"revision", revision()},
                       {"dtype", "f64"},
                       {"seed", options.key.seed},
                       {"rtol", options.rtol},
                       {"atol", options.atol},
                       {"step", options.step},
                       {"richardson_step", options.richardson_step},
                       {"max_elements", options.max_elements},
                       {"injected_bug", options.injected_bug},
                       {"threads", num_threads()},
                       {"denormals_flushed", denormals_flushed()},
                       {"simd", simd_target()},
                       {"blas", blas::description()},
                       {"passed", count(reports, EntryVerdict::pass)},
                       {"failed", count(reports, EntryVerdict::fail)},
                       {"skipped", count(reports, EntryVerdict::skip)},
                       {"inconclusive", count(reports, EntryVerdict::inconclusive)},
                       {"checks", all}});
}

}  // namespace tally::tools
