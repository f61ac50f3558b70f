#include "tools/length_benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/io/safetensors.h"
#include "tally/core/machine.h"
#include "tally/core/memory.h"
#include "tally/core/simd.h"
#include "tally/core/version.h"
#include "tally/nn/initializers.h"
#include "tools/timing.h"

namespace tally::tools {
namespace {

constexpr std::size_t kFewest = 3, kMost = 101;  // timings of a point
constexpr double kShortest = 2e-2;               // seconds of a timing: so many calls that it lasts as long

/// Seconds since some moment. With one thread those that this process had, so that others' turns do not count.
double now(int threads) {
  if (threads > 1) return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

LengthSequence sequence_of(const LengthOptions& options, std::int64_t length) {
  return LengthSequence::make({length, options.width, options.codebooks, options.codewords, options.heads},
                              RngKey{1, 1});
}

Tensor cotangent_of(const LengthOptions& options, std::int64_t length) {
  return nn::normal({length, options.width}, 1, RngKey{1, 2});
}

/// Forward and backward of an attention.
struct Differentiated {
  std::vector<Var> inputs;
  Var output;
  Gradients gradients;
};

Differentiated differentiate(const ReadyAttention& attention, const Tensor& cotangent) {
  Tape tape;
  std::vector<Var> inputs;
  for (const Tensor& input : attention.inputs) inputs.push_back(tape.input(input));
  Var output;
  {
    const Recording on(tape);
    output = attention.attend(inputs);
  }
  Gradients gradients = tape.backward(std::span(&output, 1), std::span(&cotangent, 1));
  return {std::move(inputs), std::move(output), std::move(gradients)};
}

/// A point, and what it takes to time it.
struct Runner {
  std::size_t point = 0;  ///< its place among the results
  ReadyAttention attention;
  Tensor cotangent;  ///< undefined for forward alone
  int calls = 1;
  double spent = 0;

  void run() const {
    if (!cotangent.defined()) {
      attention.attend({attention.inputs.begin(), attention.inputs.end()});
      return;
    }
    differentiate(attention, cotangent);
  }
  double time(int threads) {
    const double start = now(threads);
    for (int i = 0; i < calls; ++i) run();
    const double elapsed = now(threads) - start;
    spent += elapsed;
    return elapsed / calls;
  }
};

/// Makes a point; its runner too, unless it would not fit.
void add_point(const LengthOptions& options, const LengthAttention& attention, const LengthSequence& sequence,
               const Tensor& cotangent, LengthResults& results, std::vector<Runner>& runners) {
  const AttentionSizes& sizes = sequence.sizes;
  LengthPoint point{
      &attention, sizes, {}, 0, attention.operations ? (options.backward ? 3 : 1) * attention.operations(sizes) : 0};
  point.bytes = attention.bytes ? attention.bytes(sizes, options.backward) : 0;
  if (point.bytes <= options.memory_limit) {
    Runner runner{results.points.size(), attention.make(sequence), cotangent};
    double first = 0;
    {
      const MemoryScope memory;
      const std::uint64_t before = blas::operations();
      first = runner.time(options.threads);
      point.bytes = static_cast<double>(memory.peak());
      if (!attention.operations) point.operations = static_cast<double>(blas::operations() - before);
    }
    // That warmed up. A slow one is not called again to learn that it is slow.
    const double once = first < 10 * kShortest ? runner.time(options.threads) : first;
    if (once < kShortest) runner.calls = static_cast<int>(kShortest / std::max(1e-7, once)) + 1;
    runner.spent = 0;
    runners.push_back(std::move(runner));
  }
  results.points.push_back(std::move(point));
}

/// The median over rounds of a / b, where both were timed.
std::optional<double> median_ratio(const std::map<int, double>& a, const std::map<int, double>& b) {
  std::vector<double> ratios;
  for (const auto& [round, value] : a) {
    if (const auto other = b.find(round); other != b.end()) ratios.push_back(value / other->second);
  }
  return ratios.empty() ? std::nullopt : std::optional(median(std::move(ratios)));
}

}  // namespace

std::vector<double> LengthResults::sgemm_rates() const {
  std::vector<double> rates;
  for (const auto& [length, by_round] : sgemm) {
    for (const auto& [round, rate] : by_round) rates.push_back(rate);
  }
  return rates;
}

const LengthPoint* LengthResults::find(const std::string& attention, std::int64_t length) const {
  for (const LengthPoint& point : points) {
    if (point.attention->name == attention && point.sizes.length == length) return &point;
  }
  return nullptr;
}

std::optional<double> LengthResults::seconds(const LengthPoint* point) const {
  if (point == nullptr || !point->measured()) return {};
  std::vector<double> values;
  for (const auto& [round, value] : point->seconds) values.push_back(value);
  return median(std::move(values));
}

std::optional<double> LengthResults::time_ratio(const LengthPoint* a, const LengthPoint* b) const {
  if (a == nullptr || b == nullptr) return {};
  return median_ratio(a->seconds, b->seconds);
}

std::optional<double> LengthResults::sgemm_share(const LengthPoint* point) const {
  if (point == nullptr) return {};
  std::map<int, double> rates;
  if (point->operations == 0) return std::nullopt;
  for (const auto& [round, value] : point->seconds) rates[round] = point->operations / value;
  return median_ratio(rates, sgemm.at(point->sizes.length));
}

Json LengthResults::to_json() const {
  const auto figure = [](std::optional<double> value) { return value ? Json(*value) : Json(); };
  Json rows = Json::array();
  for (const LengthPoint& point : points) {
    rows.push_back(Json::object({{"attention", point.attention->name},
                                 {"length", point.sizes.length},
                                 {"seconds", figure(seconds(&point))},
                                 {"timings", static_cast<std::int64_t>(point.seconds.size())},
                                 {"operations", point.operations},
                                 {"sgemm_share", figure(sgemm_share(&point))},
                                 {"bytes", point.bytes},
                                 {"measured", point.measured()}}));
  }
  const std::vector<double> rates = sgemm_rates();
  return Json::object({{"version", version()},
                       {"revision", revision()},
                       {"simd", simd_target()},
                       {"blas", blas::description()},
                       {"threads", options.threads},
                       {"backward", options.backward},
                       {"width", options.width},
                       {"heads", options.heads},
                       {"codebooks", options.codebooks},
                       {"codewords", options.codewords},
                       {"sgemm_operations_per_second", rates.empty() ? Json() : Json(median(rates))},
                       {"points", std::move(rows)}});
}

void write_lengths(const LengthOptions& options, const std::filesystem::path& path) {
  const std::int64_t length = options.lengths.at(0);
  const LengthSequence sequence = sequence_of(options, length);
  const Tensor cotangent = cotangent_of(options, length);
  std::map<std::string, Tensor> tensors{{"cotangent", cotangent}};
  for (const LengthAttention* attention : options.attentions) {
    const ReadyAttention ready = attention->make(sequence);
    const Differentiated done = differentiate(ready, cotangent);
    const auto add = [&](const std::string& name, const Tensor& tensor) {
      tensors.emplace(attention->name + "." + name, tensor.contiguous());
    };
    const auto add_gradient = [&](const std::string& name, const Var& leaf) {
      if (done.gradients.contains(leaf)) add("gradient." + name, done.gradients[leaf]);
    };
    add("output", done.output.value());
    for (std::size_t i = 0; i < done.inputs.size(); ++i) {
      const std::string name = "input." + std::to_string(i);
      add(name, done.inputs[i].value());
      add_gradient(name, done.inputs[i]);
    }
    for (const auto& [name, leaf] : ready.parameters) {
      add("parameter." + name, leaf.value());
      add_gradient(name, leaf);
    }
  }
  save_safetensors(path, tensors);
}

LengthResults measure_lengths(const LengthOptions& options, const std::function<void(const std::string&)>& progress) {
  LengthResults results{options, {}, {}};
  const auto say = [&](const std::string& line) {
    if (progress) progress(line);
  };
  std::vector<Runner> runners;
  for (const std::int64_t length : options.lengths) {
    const LengthSequence sequence = sequence_of(options, length);
    const Tensor cotangent = options.backward ? cotangent_of(options, length) : Tensor();
    for (const LengthAttention* attention : options.attentions) {
      add_point(options, *attention, sequence, cotangent, results, runners);
    }
    say(fmt::format("length {}: ready", length));
  }
  // A round: every length with its rate of matrix products, every attention that still wants a timing.
  for (int round = 0;; ++round) {
    std::int64_t length = -1;
    for (Runner& runner : runners) {
      LengthPoint& point = results.points[runner.point];
      const bool enough = point.seconds.size() >= kFewest && runner.spent >= options.seconds;
      if (enough || point.seconds.size() >= kMost) continue;
      if (point.sizes.length != length) {
        length = point.sizes.length;
        results.sgemm[length][round] = measure_sgemm_rate(0.02);
      }
      point.seconds[round] = runner.time(options.threads);
    }
    if (length < 0) break;
    if (round < static_cast<int>(kFewest)) say(fmt::format("round {} done", round + 1));
  }
  return results;
}

std::vector<std::string> length_headlines(const LengthResults& results) {
  const LengthOptions& options = results.options;
  const bool claimed =
      options.width == 128 && options.codebooks == 8 && options.codewords == 16 && options.threads == 1;
  std::vector<std::string> lines;
  const auto add = [&](std::string text, const std::string& target, bool met) {
    if (claimed && !target.empty()) text += fmt::format(" (target {}: {})", target, met ? "met" : "missed");
    lines.push_back(std::move(text));
  };
  const char* what = options.backward ? "forward and backward" : "forward";
  const bool forward = !options.backward;
  const std::int64_t greatest = options.lengths.back();
  const LengthPoint* lisa = results.find("lisa", greatest);
  if (const auto ratio = results.time_ratio(results.find("softmax", greatest), lisa)) {
    add(fmt::format("LISA is {:.1f} times faster than fused softmax at L = {}, {}, encoding included", *ratio, greatest,
                    what),
        forward && greatest == 65536 ? ">= 150" : "", *ratio >= 150);
  }
  if (const LengthPoint* whole = results.find("softmax_materialized", greatest); lisa != nullptr && whole != nullptr) {
    const double ratio = whole->bytes / lisa->bytes;
    add(fmt::format("LISA needs {:.0f} times less working memory than materialised softmax at L = {}, {}{}", ratio,
                    greatest, what, whole->measured() ? "" : " (the latter computed)"),
        forward && greatest == 65536 ? ">= 300" : "", ratio >= 300);
  }
  if (const auto growth = results.time_ratio(results.find("lisa", 65536), results.find("lisa", 8192))) {
    add(fmt::format("LISA's time grows {:.2f} times from L = 8192 to 65536, {}", *growth, what),
        forward ? "<= 8.8" : "", *growth <= 8.8);
  }
  std::optional<std::int64_t> never_slower;
  for (auto length = options.lengths.rbegin(); length != options.lengths.rend(); ++length) {
    const auto ratio = results.time_ratio(results.find("softmax", *length), results.find("lisa", *length));
    if (!ratio || *ratio < 1) break;
    never_slower = *length;
  }
  if (never_slower) {
    add(fmt::format("LISA is never slower than fused softmax from L = {} on, {}, of the lengths measured",
                    *never_slower, what),
        forward ? "512" : "", *never_slower <= 512);
  }
  if (const auto share = results.sgemm_share(results.find("lisa", 8192))) {
    add(fmt::format("LISA reaches {:.0f} % of the measured sgemm rate at L = 8192, {}", 100 * *share, what),
        forward ? "" : ">= 40 %", *share >= 0.4);
  }
  return lines;
}

}  // namespace tally::tools
