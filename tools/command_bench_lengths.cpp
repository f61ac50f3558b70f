// tally bench lengths: time and memory of attentions against length, as tables and plots.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "tally/core/blas.h"
#include "tally/core/io/file.h"
#include "tally/core/parallel.h"
#include "tally/core/report/table.h"
#include "tally/core/simd.h"
#include "tally/core/version.h"
#include "tally/recsys/study/measurements.h"
#include "tools/commands.h"
#include "tools/length_benchmark.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using namespace recsys;

/// A row for each length, a column for each attention.
Table table_by_length(const LengthResults& results, const std::function<std::string(const LengthPoint&)>& cell) {
  std::vector<TableColumn> columns{{"length"}};
  for (const LengthAttention* attention : results.options.attentions) columns.push_back({attention->name});
  Table table(std::move(columns));
  auto point = results.points.begin();
  for (const std::int64_t length : results.options.lengths) {
    std::vector<std::string> cells{std::to_string(length)};
    for (std::size_t i = 0; i < results.options.attentions.size(); ++i) cells.push_back(cell(*point++));
    table.add_row(std::move(cells));
  }
  return table;
}

/// Exact figures, a row for each attention and length.
Table table_of_points(const LengthResults& results) {
  Table table({{"attention", false},
               {"length"},
               {"pass", false},
               {"seconds"},
               {"timings"},
               {"growth"},
               {"times_faster_than_softmax"},
               {"operations"},
               {"sgemm_share"},
               {"bytes"},
               {"bytes_computed", false}});
  for (const LengthPoint& point : results.points) {
    const std::string& name = point.attention->name;
    const LengthPoint* shorter = nullptr;
    for (const std::int64_t length : results.options.lengths) {
      if (length < point.sizes.length) shorter = results.find(name, length);
    }
    table.add_row({name, std::to_string(point.sizes.length), results.options.backward ? "forward+backward" : "forward",
                   format_exact(results.seconds(&point)), std::to_string(point.seconds.size()),
                   format_exact(results.time_ratio(&point, shorter)),
                   format_exact(results.time_ratio(results.find("softmax", point.sizes.length), &point)),
                   format_exact(point.operations), format_exact(results.sgemm_share(&point)), format_exact(point.bytes),
                   point.measured() ? "no" : "yes"});
  }
  return table;
}

std::string percent(std::optional<double> share) { return share ? fmt::format("{:.0f} %", 100 * *share) : kNoFigure; }

std::string milliseconds(std::optional<double> seconds) {
  if (!seconds) return kNoFigure;
  return fmt::format("{:.{}f}", *seconds * 1e3, *seconds < 0.1 ? 2 : *seconds < 1 ? 1 : 0);
}

std::string markdown(const LengthResults& results, const std::vector<std::string>& headlines) {
  const LengthOptions& options = results.options;
  std::vector<double> rates = results.sgemm_rates();
  std::sort(rates.begin(), rates.end());
  std::string text =
      fmt::format("# Attention against length: {}\n\n", options.backward ? "forward and backward" : "forward");
  text += fmt::format(
      "One sequence, {}, f32, D = {}, B x W = {} x {}, {} thread{}. tally {}, SIMD {}, {}.\n"
      "sgemm {:.1f} GFLOP/s (median of {}; quartiles {:.1f} and {:.1f}), measured in every round before every "
      "length.\n\n",
      options.heads == 1 ? "one head" : fmt::format("{} heads where there are several", options.heads), options.width,
      options.codebooks, options.codewords, options.threads, options.threads == 1 ? "" : "s", version_description(),
      simd_target(), blas::description(), rates[rates.size() / 2] * 1e-9, rates.size(), rates[rates.size() / 4] * 1e-9,
      rates[rates.size() * 3 / 4] * 1e-9);
  for (const std::string& line : headlines) text += "- " + line + "\n";
  text += "\n## Time, ms\n\n" + table_by_length(results, [&](const LengthPoint& p) {
                                  return milliseconds(results.seconds(&p));
                                }).to_markdown();
  text += "\n## Times faster than fused softmax\n\n" +
          table_by_length(results, [&](const LengthPoint& p) {
            return format_fixed(results.time_ratio(results.find("softmax", p.sizes.length), &p), 2);
          }).to_markdown();
  text += "\n## Working memory\n\nPeak of tensors beyond the inputs, the output among them; * computed, not run.\n\n" +
          table_by_length(results, [](const LengthPoint& p) {
            return format_bytes(p.bytes) + (p.measured() ? "" : " *");
          }).to_markdown();
  text +=
      "\n## Share of the sgemm rate\n\nOf the matrix products that the method needs" +
      std::string(options.backward ? ", backward counted as twice forward" : "") + ".\n\n" +
      table_by_length(results, [&](const LengthPoint& p) { return percent(results.sgemm_share(&p)); }).to_markdown();
  text += "\n## Attentions\n\n";
  Table attentions({{"name", false}, {"what", false}, {"operations of forward", false}});
  for (const LengthAttention* one : options.attentions) attentions.add_row({one->name, one->description, one->formula});
  return text + attentions.to_markdown() +
         "\nTimes are medians, of CPU time with one thread; ratios and shares are medians of those within a round, in "
         "which every attention ran "
         "once.\n";
}

void write_plots(const LengthResults& results, const std::filesystem::path& directory) {
  std::vector<Measurement> time, memory;
  for (const LengthPoint& point : results.points) {
    const std::string& name = point.attention->name;
    if (const auto seconds = results.seconds(&point)) time.push_back({name, point.sizes.length, {*seconds}});
    memory.push_back({point.measured() ? name : name + " (computed)", point.sizes.length, {point.bytes}});
  }
  const std::string pass = results.options.backward ? "forward and backward" : "forward";
  const PlotAxis length{"length", true};
  write_plot(directory / "time.svg",
             plot_measurements("Time against length, " + pass, length, {"seconds", true}, time));
  write_plot(directory / "memory.svg",
             plot_measurements("Working memory against length, " + pass, length, {"bytes", true}, memory));
}

struct BenchLengthsArguments {
  nn::AttentionKinds kinds;
  std::vector<LengthAttention> known;
  std::int64_t blocks = 0;
  bool bidirectional = false, layers = false;
  std::vector<std::string> attentions = {};
  LengthOptions options{.attentions = {}, .lengths = {128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}};
  std::string output = {}, json = {}, tensors = {};
};

void bench_lengths(BenchLengthsArguments arguments) {
  LengthOptions& options = arguments.options;
  check<ConfigError>(arguments.blocks >= 0, "--blocks", "needs at least 0; got ", arguments.blocks);
  check<ConfigError>(arguments.blocks > 0 || !arguments.bidirectional, "--bidirectional", "needs --blocks");
  check<ConfigError>(arguments.blocks == 0 || !arguments.layers, "--layers", "does not go with --blocks");
  if (arguments.layers) arguments.known = length_layers(arguments.kinds);
  if (arguments.blocks > 0) {
    arguments.known =
        length_encoders(arguments.kinds, arguments.blocks,
                        arguments.bidirectional ? ops::AttentionMask::bidirectional : ops::AttentionMask::causal);
  }
  options.attentions = chosen_attentions(arguments.attentions, arguments.known);
  std::sort(options.lengths.begin(), options.lengths.end());
  options.lengths.erase(std::unique(options.lengths.begin(), options.lengths.end()), options.lengths.end());
  check<ConfigError>(options.threads >= 1, "--threads", "needs at least 1; got ", options.threads);
  check<ConfigError>(options.width >= 1 && options.codebooks >= 1 && options.codewords >= 1 && options.lengths[0] >= 1,
                     "--lengths, --width, --codebooks, --codewords", "need at least 1");
  check<ConfigError>(options.heads >= 1 && options.width % options.heads == 0, "--heads",
                     "needs a divisor of the width ", options.width, "; got ", options.heads);
  set_num_threads(options.threads);
  if (!arguments.tensors.empty()) write_lengths(options, arguments.tensors);
  const LengthResults results =
      measure_lengths(options, [](const std::string& line) { complain(detail::join(line, '\n')); });
  const std::vector<std::string> headlines = length_headlines(results);
  const std::string text = markdown(results, headlines);
  if (!arguments.output.empty()) {
    const std::filesystem::path directory = arguments.output;
    std::filesystem::create_directories(directory);
    write_file_atomically(directory / "lengths.csv", table_of_points(results).to_csv());
    write_plots(results, directory);
    write_file_atomically(directory / "lengths.md", text);  // the last: where it is, the others are
  }
  if (!arguments.json.empty()) write_file_atomically(arguments.json, results.to_json().dump(2) + "\n");
  print(detail::join(text, '\n'));
  for (const std::string& line : headlines) print(detail::join(line, '\n'));
}

}  // namespace

void add_bench_lengths(CLI::App& app, const CommandContext& context) {
  auto arguments = std::make_shared<BenchLengthsArguments>(
      BenchLengthsArguments{.kinds = context.tables.attentions, .known = length_attentions(context.tables.attentions)});
  for (const LengthAttention& attention : length_attentions()) arguments->attentions.push_back(attention.name);
  LengthOptions& options = arguments->options;
  CLI::App* command = app.get_subcommand("bench")->add_subcommand(
      "lengths", "Time and memory of attentions against the length of one causal sequence");
  command->add_option("--attentions", arguments->attentions, "What to compare: these, or any of `tally attentions`")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--lengths", options.lengths, "Rows of the sequence")->delimiter(',')->capture_default_str();
  command->add_option("--width", options.width, "D, of rows")->capture_default_str();
  command->add_option("--heads", options.heads, "Of softmax and dispatcher attentions; the others have one")
      ->capture_default_str();
  command
      ->add_option(
          "--blocks", arguments->blocks,
          "Above 0: encoders of so many blocks, with any of `tally attentions`; as many experts, projected keys "
          "and interests as codewords in all")
      ->capture_default_str();
  command->add_flag("--layers", arguments->layers,
                    "Whole layers of `tally attentions`, projections included, with gradients of their parameters");
  command->add_flag("--bidirectional", arguments->bidirectional, "Of encoders: rows see what follows them too");
  command->add_option("--codebooks", options.codebooks, "B")->capture_default_str();
  command->add_option("--codewords", options.codewords, "W of each codebook")->capture_default_str();
  command->add_flag("--backward", options.backward, "Forward and backward, with gradients of all inputs");
  command->add_option("--threads", options.threads, "Threads to use")->capture_default_str();
  command->add_option("--seconds", options.seconds, "Spent on each attention at each length, after three timings")
      ->capture_default_str();
  command->add_option("--memory-limit", options.memory_limit, "Bytes beyond which memory is computed and nothing run")
      ->capture_default_str();
  command->add_option("--output", arguments->output, "Directory for lengths.md, lengths.csv, time.svg and memory.svg");
  command->add_option("--json", arguments->json, "Write the figures to this file");
  command->add_option("--tensors", arguments->tensors,
                      "Write parameters, input, output and gradients at the first length to this safetensors file");
  command->callback([arguments] { bench_lengths(*arguments); });
}

}  // namespace tally::tools
