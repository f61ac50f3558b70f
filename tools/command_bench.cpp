#include <fmt/format.h>

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/io/file.h"
#include "tally/core/io/json.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/core/version.h"
#include "tally/ops/check.h"
#include "tools/commands.h"
#include "tools/print.h"
#include "tools/timing.h"

namespace tally::tools {
namespace {

/// Something that is timed again and again, side by side with all others, so that a slow spell of the machine meets
/// all.
struct Timing {
  std::function<void()> body;
  int calls = 1;  ///< in one timing, so that it is not too short
  std::vector<double> seconds;

  double time() const {
    return seconds_of([this] {
             for (int i = 0; i < calls; ++i) body();
           }) /
           calls;
  }
  double median() const { return tools::median(seconds); }
};

void measure(std::vector<Timing>& measurements, int repeats) {
  constexpr double kShortest = 5e-3;
  for (Timing& one : measurements) {
    one.body();  // warms caches and the allocator
    one.calls = std::max(1, static_cast<int>(kShortest / std::max(1e-9, one.time())));
  }
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (Timing& one : measurements) one.seconds.push_back(one.time());
  }
}

// ---- The machine: products of square matrices, and y += a x over arrays far larger than a cache.

constexpr std::int64_t kSide = 1024;
constexpr std::int64_t kLength = 16 << 20;

Timing sgemm() {
  const Tensor a = Tensor::full({kSide, kSide}, 0.5), b = Tensor::full({kSide, kSide}, 0.25);
  Tensor c({kSide, kSide});
  return {[a, b, c]() mutable {
            blas::parallel_gemm(blas::Transpose::no, blas::Transpose::no, kSide, kSide, kSide, 1.0F, a.data<float>(),
                                kSide, b.data<float>(), kSide, 0.0F, c.mutable_data<float>(), kSide);
          },
          1,
          {}};
}

Timing bandwidth() {
  const Tensor x = Tensor::full({kLength}, 1);
  Tensor y = Tensor::zeros({kLength});
  return {[x, y]() mutable {
            const float* from = x.data<float>();
            float* to = y.mutable_data<float>();
            parallel_for(kLength, 1 << 16, [&](std::int64_t begin, std::int64_t end) {
              kernels::axpy(to + begin, 0.5F, from + begin, end - begin);
            });
          },
          1,
          {}};
}

/// Floating-point operations and bytes a second.
struct Machine {
  double flops = 0, bytes = 0;
};

// ---- Ops.

struct Job {
  const ops::OpEntry* entry;
  ops::OpSample sample;
  std::vector<Tensor> inputs;  ///< f32
  std::vector<Tensor> cotangents;
  double bytes = 0;                   ///< of inputs and outputs: what forward must move at least
  std::size_t forward = 0, both = 0;  ///< places of its measurements
};

void run_both(const Job& job) {
  Tape tape;
  const std::vector<Var> vars = ops::as_vars(job.inputs, ops::differentiable_inputs(*job.entry, job.inputs));
  std::vector<Var> outputs;
  {
    const Recording on(tape);
    outputs = job.entry->call(vars, job.sample.options);
  }
  std::vector<Var> ends;
  std::vector<Tensor> seeds;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    if (!job.cotangents[k].defined()) continue;
    ends.push_back(outputs[k]);
    seeds.push_back(job.cotangents[k]);
  }
  tape.backward(ends, seeds);
}

Job prepare(const ops::OpEntry& entry) {
  Job job{&entry, entry.large(), {}, {}};
  job.inputs = ops::converted(job.sample.inputs, DType::f32);
  const std::vector<Tensor> outputs = ops::evaluate(entry, job.inputs, job.sample.options);
  job.cotangents = ops::random_cotangents(outputs, RngKey{1, 1});
  for (const auto* tensors : {&std::as_const(job.inputs), &outputs}) {
    for (const Tensor& tensor : *tensors) job.bytes += tensor.defined() ? static_cast<double>(tensor.bytes()) : 0;
  }
  return job;
}

std::string shapes(const Job& job) {
  std::string text;
  for (const Tensor& input : job.inputs) {
    if (input.defined()) text += (text.empty() ? "" : " ") + detail::join(input.shape());
  }
  return text;
}

/// A share of a rate, in percent; empty when unknown.
std::string percent(double share) { return share > 0 ? fmt::format("{:.0f} %", 100 * share) : ""; }

struct BenchArguments {
  std::vector<std::string> ops;
  int threads = num_threads(), repeats = 9;
  std::string json;
};

void bench(const BenchArguments& arguments, const ops::Catalog& catalog) {
  check<ConfigError>(arguments.threads >= 1 && arguments.repeats >= 1, "--threads, --repeats", "need at least 1");
  set_num_threads(arguments.threads);
  std::vector<Job> jobs;
  for (const ops::OpEntry* entry : chosen_ops(catalog, arguments.ops, arguments.ops.empty())) {
    if (entry->large) jobs.push_back(prepare(*entry));
    check<ConfigError>(entry->large || arguments.ops.empty(), "bench", "'", entry->name,
                       "' has no large sample to time");
  }
  std::vector<Timing> measurements{sgemm(), bandwidth()};
  for (Job& job : jobs) {
    job.forward = measurements.size();
    measurements.push_back({[&job] { ops::evaluate(*job.entry, job.inputs, job.sample.options); }, 1, {}});
    job.both = measurements.size();
    measurements.push_back({[&job] { run_both(job); }, 1, {}});
  }
  measure(measurements, arguments.repeats);
  const Machine machine{2.0 * kSide * kSide * kSide / measurements[0].median(),
                        3.0 * kLength * sizeof(float) / measurements[1].median()};

  print(fmt::format("tally {}, {} threads, SIMD {}, {}\n", version_description(), num_threads(), simd_target(),
                    blas::description()));
  print(fmt::format("this machine: sgemm {:.1f} GFLOP/s ({}^3), memory {:.1f} GB/s (y += a x); medians of {}\n\n",
                    machine.flops * 1e-9, kSide, machine.bytes * 1e-9, arguments.repeats));
  print(fmt::format("{:<28} {:>11} {:>11} {:>9} {:>9} {:>9}  {}\n", "op", "forward ms", "+ back ms", "% sgemm",
                    "% sgemm", "% memory", "inputs"));
  print(fmt::format("{:<28} {:>11} {:>11} {:>9} {:>9} {:>9}\n", "", "", "", "forward", "+ back", "forward"));
  Json rows = Json::array();
  for (const Job& job : jobs) {
    const double forward = measurements[job.forward].median(), both = measurements[job.both].median();
    const double flops = job.entry->flops ? job.entry->flops(job.sample) : 0;
    const double moved = job.bytes / forward / machine.bytes;
    print(fmt::format("{:<28} {:>11.3f} {:>11.3f} {:>9} {:>9} {:>9}  {}\n", job.entry->name, forward * 1e3, both * 1e3,
                      percent(flops / forward / machine.flops), percent(3 * flops / both / machine.flops),
                      percent(moved), shapes(job)));
    rows.push_back(Json::object({{"op", job.entry->name},
                                 {"inputs", shapes(job)},
                                 {"forward_seconds", forward},
                                 {"forward_backward_seconds", both},
                                 {"forward_product_flops", flops},
                                 {"forward_bytes", job.bytes}}));
  }
  print(
      "\n% sgemm: matrix products alone, backward counted as twice forward. % memory: inputs and outputs, "
      "each moved "
      "once; a cache can make it more than 100.\n");
  if (arguments.json.empty()) return;
  const Json all = Json::object({{"version", version()},
                                 {"revision", revision()},
                                 {"threads", num_threads()},
                                 {"simd", simd_target()},
                                 {"blas", blas::description()},
                                 {"sgemm_flops_per_second", machine.flops},
                                 {"memory_bytes_per_second", machine.bytes},
                                 {"ops", rows}});
  write_file_atomically(arguments.json, all.dump(2) + "\n");
}

}  // namespace

void add_bench(CLI::App& app, const CommandContext& context) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command = app.add_subcommand(
      "bench", "Time forward and backward of ops on their large sample in f32, next to the machine's own rates");
  command->add_option("op", arguments->ops, "Ops to time (default: all)");
  command->add_option("--threads", arguments->threads, "Threads to use")->capture_default_str();
  command->add_option("--repeats", arguments->repeats, "Timings of each; the median is printed")->capture_default_str();
  command->add_option("--json", arguments->json, "Write the figures to this file");
  command->callback([=] {
    if (command->get_subcommands().empty()) bench(*arguments, context.catalog);
  });
}

}  // namespace tally::tools
