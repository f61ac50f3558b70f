// tally bench lookups: what an answer from a document's representation costs, beside one from all its rows.
#include <fmt/format.h>

#include "tally/core/parallel.h"
#include "tools/commands.h"
#include "tools/lookup_benchmark.h"
#include "tools/print.h"
#include "tools/timing.h"

namespace tally::tools {
namespace {

void print_collection(const char* name, const CollectionFigures& figures, std::int64_t documents, double copy_rate) {
  const double bytes = static_cast<double>(documents * figures.document_bytes);
  const auto line = [&](const char* what, const std::vector<double>& seconds) {
    const double time = median(seconds);
    print(fmt::format("{:5} {:9} {:8.2f} ms  {:6.2f} GB/s read, {:3.0f} % of the rate of copies\n", name, what,
                      1e3 * time, 1e-9 * bytes / time, 100 * bytes / time / copy_rate));
  };
  line("products", figures.products);
  line("scores", figures.scores);
}

void bench_lookups(const LookupBenchmark& benchmark, int threads) {
  for (const std::int64_t number :
       {benchmark.width, benchmark.documents, std::int64_t{benchmark.rounds}, std::int64_t{threads}}) {
    check<ConfigError>(number >= 1, "bench lookups", "needs numbers of at least 1; got ", number);
  }
  for (const std::int64_t length : benchmark.lengths) {
    check<ConfigError>(length >= 1, "bench lookups", "needs lengths of at least 1; got ", length);
  }
  set_num_threads(threads);
  const LookupFigures figures = measure_lookups(benchmark);
  print(fmt::format("width {}, {} threads, medians of {} rounds\n\n", benchmark.width, threads, benchmark.rounds));
  print("     rows   representation   softmax over rows   ratio\n");
  for (const LengthFigures& of : figures.lengths) {
    const double linear = median(of.linear), softmax = median(of.softmax);
    print(fmt::format("{:9} {:13.2f} us {:16.2f} us {:7.0f}\n", of.length, 1e6 * linear, 1e6 * softmax,
                      softmax / linear));
  }
  const double copy_rate = median(figures.copy_rate);
  print(fmt::format("\n{} documents; {} bytes each in f32, {} in int8; copies {:.2f} GB/s read and written\n",
                    benchmark.documents, figures.f32.document_bytes, figures.int8.document_bytes, 1e-9 * copy_rate));
  print_collection("f32", figures.f32, benchmark.documents, copy_rate);
  print_collection("int8", figures.int8, benchmark.documents, copy_rate);
}

}  // namespace

void add_bench_lookups(CLI::App& app, const CommandContext&) {
  auto benchmark = std::make_shared<LookupBenchmark>();
  auto threads = std::make_shared<int>(1);
  CLI::App* command = app.get_subcommand("bench")->add_subcommand(
      "lookups", "What a query costs: of a document's representation, of all its rows, and of a collection");
  command->add_option("--width", benchmark->width, "Of rows, k")->capture_default_str();
  command->add_option("--lengths", benchmark->lengths, "Rows of the documents")->delimiter(',')->capture_default_str();
  command->add_option("--documents", benchmark->documents, "Of the collection")->capture_default_str();
  command->add_option("--rounds", benchmark->rounds, "Timings of each; medians are printed")->capture_default_str();
  command->add_option("--threads", *threads, "Threads to use")->capture_default_str();
  command->callback([=] { bench_lookups(*benchmark, *threads); });
}

}  // namespace tally::tools
