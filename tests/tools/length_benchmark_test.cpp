// tally bench lengths: what is compared does what it says, and figures are what their names say.
#include "tools/length_benchmark.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/core/io/file.h"
#include "tally/core/io/json.h"
#include "tally/core/io/safetensors.h"
#include "tally/core/memory.h"
#include "tests/support/run_command.h"

namespace length_benchmark_test {

using namespace tally;
using namespace tally::tools;
using Catch::Matchers::Contains;

namespace {

std::vector<std::string> all_names() {
  std::vector<std::string> names;
  for (const LengthAttention& attention : length_attentions()) names.push_back(attention.name);
  return names;
}

LengthSequence sequence_of(std::int64_t length) { return LengthSequence::make({length, 16, 2, 4}, RngKey{3, 1}); }

Tensor forward(const std::string& name, const LengthSequence& sequence) {
  const ReadyAttention ready = chosen_attentions({name})[0]->make(sequence);
  return ready.attend({ready.inputs.begin(), ready.inputs.end()}).value();
}

double largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  double largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

/// Rows 0 ... n - 1.
Tensor first_rows(const Tensor& tensor, std::int64_t n) { return tensor.slice(0, 0, n).contiguous(); }

LengthPoint point_of(const std::string& name, std::int64_t length, std::map<int, double> seconds, double bytes,
                     double operations) {
  return {chosen_attentions({name})[0], {length, 128, 8, 16}, std::move(seconds), bytes, operations};
}

}  // namespace

TEST_CASE("attentions of bench lengths: causal unless they say so, differentiable in every input", "[bench-lengths]") {
  constexpr std::int64_t kRows = 150;  // three blocks, the last one not full
  const LengthSequence sequence = sequence_of(kRows);
  LengthSequence other = sequence_of(kRows);
  for (Tensor* rows : {&other.x, &other.queries, &other.keys, &other.values}) {
    float* last = rows->mutable_data<float>() + (kRows - 1) * 16;
    for (int i = 0; i < 16; ++i) last[i] = -last[i] + 1;
  }
  for (const LengthAttention* attention : chosen_attentions(all_names())) {
    INFO(attention->name);
    const Tensor output = forward(attention->name, sequence);
    REQUIRE(output.shape() == Shape({kRows, 16}));
    CHECK(attention->operations(sequence.sizes) > 0);
    const Tensor changed = forward(attention->name, other);
    if (attention->name != "lisa_without_encoding") CHECK(largest_difference(output, changed) > 1e-4);
    CHECK((largest_difference(first_rows(output, kRows - 1), first_rows(changed, kRows - 1)) < 1e-5) ==
          attention->causal);

    const ReadyAttention ready = attention->make(sequence);
    Tape tape;
    std::vector<Var> inputs;
    for (const Tensor& input : ready.inputs) inputs.push_back(tape.input(input));
    Var recorded;
    {
      const Recording on(tape);
      recorded = ready.attend(inputs);
    }
    CHECK(largest_difference(recorded.value(), output) < 1e-5);  // training and inference may go different ways
    const Tensor cotangent = Tensor::full({kRows, 16}, 0.5);
    const Gradients gradients = tape.backward(std::span(&recorded, 1), std::span(&cotangent, 1));
    for (const Var& input : inputs) CHECK(gradients.contains(input));
  }
}

TEST_CASE("attentions of bench lengths that compute the same agree", "[bench-lengths]") {
  const LengthSequence sequence = sequence_of(37);
  CHECK(largest_difference(forward("softmax", sequence), forward("softmax_materialized", sequence)) < 1e-5);
  CHECK(largest_difference(forward("lisa", sequence), forward("lisa_without_encoding", sequence)) < 1e-5);
  CHECK(largest_difference(forward("lisa", sequence), forward("lisa_decayed", sequence)) > 1e-3);
  CHECK(largest_difference(forward("lisa", sequence), forward("lisa_soft", sequence)) > 1e-3);
  // As long as the window, and longer.
  CHECK(largest_difference(first_rows(forward("softmax", sequence), 8), first_rows(forward("local", sequence), 8)) <
        1e-5);
  CHECK(largest_difference(forward("softmax", sequence), forward("local", sequence)) > 1e-3);
}

TEST_CASE("operations that attentions need, counted by hand", "[bench-lengths]") {
  const AttentionSizes sizes{10, 6, 2, 3};
  const auto operations = [&](const char* name) { return chosen_attentions({name})[0]->operations(sizes); };
  CHECK(operations("softmax") == 55 * 6 * 4);         // 55 pairs, a score and a value of 6 multiply-adds each
  CHECK(operations("local") == (21 + 4 * 6) * 24);    // 1 + ... + 6, then 6 rows each
  CHECK(operations("lisa") == 2 * (2 * 10 * 6 * 6));  // twice [10, 6] x [6, 6]
  CHECK(operations("lisa_without_encoding") == 2 * 10 * 6 * 6);
  CHECK(operations("linear_elu") == 2 * 2 * 10 * 6 * 6);  // each row into [6, 6] and from it
  CHECK(operations("linformer") == 4 * 2 * 10 * 6 * 6);   // four products of [10, 6] with [6, 6]
  CHECK(operations("softmax_bidirectional") == 100 * 6 * 4);
  CHECK(operations("dispatcher") == 4 * 2 * 10 * 6 * 6 + 2 * 2 * 6 * 6 * 6);  // the same, and experts twice by [6, 6]
  // Weights and sums, two projections, scores and reads against sums, and against 32 rows.
  CHECK(operations("dispatcher_causal") == 2 * 10 * ((2 + 2 + 2) * 36 + 2 * 32 * (6 + 6)));
}

TEST_CASE("bench lengths measures, or computes memory beyond the limit", "[bench-lengths]") {
  for (const bool backward : {false, true}) {
    INFO(backward);
    LengthOptions options{.attentions = chosen_attentions({"lisa", "softmax_materialized"}),
                          .lengths = {256, 512},
                          .width = 16,
                          .codebooks = 2,
                          .codewords = 4,
                          .backward = backward,
                          .seconds = 0,
                          .memory_limit = backward ? 9e5 : 5e5};
    const LengthResults results = measure_lengths(options, {});
    REQUIRE(results.points.size() == 4);
    for (const LengthPoint& point : results.points) {
      INFO(point.attention->name << " " << point.sizes.length);
      const bool computed = point.sizes.length == 512 && point.attention->name == "softmax_materialized";
      CHECK(point.measured() == !computed);
      if (point.measured()) CHECK(point.seconds.size() == 3);
      if (point.measured()) CHECK(*results.sgemm_share(&point) > 0);
      CHECK(point.bytes > 0);
      CHECK(point.operations == (backward ? 3 : 1) * point.attention->operations(point.sizes));
    }
    // The computed bytes are those that are measured where it fits, up to the allocator's size classes.
    const LengthPoint* whole = results.find("softmax_materialized", 256);
    const double computed = whole->attention->bytes(whole->sizes, backward);
    CHECK(whole->bytes >= computed);
    CHECK(whole->bytes < 1.13 * computed + 4096);
    CHECK_FALSE(results.seconds(results.find("softmax_materialized", 512)));
    CHECK_FALSE(results.time_ratio(results.find("softmax_materialized", 512), results.find("lisa", 512)));
    CHECK(results.find("softmax", 256) == nullptr);
  }
}

TEST_CASE("ratios are medians within rounds, and headlines name their targets", "[bench-lengths]") {
  LengthResults results{{.attentions = {}, .lengths = {256, 512, 8192, 65536}}, {}, {}};
  results.points = {
      point_of("lisa", 256, {{0, 2}, {1, 2}, {2, 2}}, 1, 8), point_of("softmax", 256, {{0, 1}, {1, 1}, {2, 1}}, 1, 8),
      point_of("lisa", 512, {{0, 2}, {1, 2}, {2, 2}}, 1, 8), point_of("softmax", 512, {{0, 3}, {1, 3}, {2, 3}}, 1, 8),
      // Round 1 met a slow spell: it hits both, and no ratio.
      point_of("lisa", 8192, {{0, 1}, {1, 9}, {2, 1}, {3, 0.5}}, 1, 8),
      point_of("softmax", 8192, {{0, 10}, {1, 90}, {2, 10}}, 1, 8),
      point_of("lisa", 65536, {{0, 8.5}, {1, 70}, {2, 8.5}}, 10, 8),
      point_of("softmax", 65536, {{0, 1700}, {1, 1700}, {2, 1700}}, 1, 8),
      point_of("softmax_materialized", 65536, {}, 2500, 8)};
  results.sgemm[8192] = {{0, 10}, {1, 2}, {2, 10}, {3, 20}};
  CHECK(*results.time_ratio(results.find("softmax", 8192), results.find("lisa", 8192)) == Approx(10));
  CHECK(*results.seconds(results.find("softmax", 8192)) == 10);
  CHECK(*results.sgemm_share(results.find("lisa", 8192)) == Approx(0.8));

  std::string text;
  for (const std::string& line : length_headlines(results)) text += line + "\n";
  CHECK_THAT(text, Contains("200.0 times faster than fused softmax at L = 65536, forward, encoding included (target >= "
                            "150: met)"));
  CHECK_THAT(text, Contains("250 times less working memory than materialised softmax at L = 65536, forward (the latter "
                            "computed) (target >= 300: missed)"));
  CHECK_THAT(text, Contains("grows 8.50 times from L = 8192 to 65536, forward (target <= 8.8: met)"));
  CHECK_THAT(text, Contains("never slower than fused softmax from L = 512 on"));
  CHECK_THAT(text, Contains("80 % of the measured sgemm rate at L = 8192, forward\n"));
  results.options.backward = true;
  CHECK_THAT(length_headlines(results).back(), Contains("(target >= 40 %: met)"));
  // Targets are those of one setting.
  results.options.codewords = 128;
  for (const std::string& line : length_headlines(results)) CHECK_THAT(line, !Contains("target"));
}

TEST_CASE("the command bench lengths writes tables and plots, and refuses what it does not know", "[bench-lengths]") {
  const test::TemporaryDirectory files;
  const auto result = test::run_command(
      TALLY_COMMAND, {"bench", "lengths", "--attentions", "lisa,softmax", "--lengths", "32,16", "--width", "8",
                      "--codebooks", "2", "--codewords", "4", "--seconds", "0", "--output", files / "out"});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  const std::string table = read_file(files / "out/lengths.md"), rows = read_file(files / "out/lengths.csv");
  CHECK_THAT(table, Contains("| length | lisa | softmax |") && Contains("4 L B W D"));
  CHECK(std::count(rows.begin(), rows.end(), '\n') == 5);
  CHECK_THAT(rows, Contains("\nlisa,16,forward,"));
  for (const char* plot : {"out/time.svg", "out/memory.svg"}) {
    CHECK_THAT(read_file(files / plot), Contains("<svg") && Contains("softmax"));
  }
  const auto unknown = test::run_command(TALLY_COMMAND, {"bench", "lengths", "--attentions", "softmin"});
  CHECK(unknown.exit_code == 2);
  CHECK_THAT(unknown.error, Contains("knows no 'softmin'; did you mean 'softmax'?") && Contains("lisa_soft"));
  CHECK(test::run_command(TALLY_COMMAND, {"bench", "lengths", "--lengths", "0"}).exit_code == 2);
}

TEST_CASE("bench lengths writes its figures, and what a layer was given and gave", "[bench-lengths][command]") {
  constexpr std::size_t kRows = 5, kWidth = 4;
  const test::TemporaryDirectory files;
  const std::string figures = files / "figures.json", file = files / "tensors.safetensors";
  const auto result =
      test::run_command(TALLY_COMMAND, {"bench", "lengths", "--layers", "--attentions", "linear_elu,histogram",
                                        "--lengths", "5", "--width", "4", "--heads", "2", "--seconds", "0",
                                        "--backward", "--json", figures, "--tensors", file});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  const Json json = read_json(figures);
  const auto points = json.at("points").elements("test");
  REQUIRE(points.size() == 2);
  CHECK(points[0].at("attention").as_string() == "linear_elu");
  CHECK(points[0].at("seconds").as_double("test") > 0);
  CHECK(points[0].at("sgemm_share").as_double("test") > 0);

  const auto tensors = load_safetensors(file);
  const auto doubles = [&](const std::string& name) { return tensors.at("linear_elu." + name).to_doubles(); };
  const auto projected = [&](const std::vector<double>& rows, const std::string& name) {
    const auto weight = doubles("parameter." + name + ".weight"), bias = doubles("parameter." + name + ".bias");
    std::vector<double> rows_out(rows.size());
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t o = 0; o < kWidth; ++o) {
        double sum = bias[o];
        for (std::size_t i = 0; i < kWidth; ++i) sum += rows[r * kWidth + i] * weight[o * kWidth + i];
        rows_out[r * kWidth + o] = sum;
      }
    }
    return rows_out;
  };
  const auto feature = [](double x) { return x > 0 ? x + 1 : std::exp(x); };
  const auto x = doubles("input.0"), q = projected(x, "query"), k = projected(x, "key"), v = projected(x, "value");
  std::vector<double> mixed(q.size());
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t first = 0; first < kWidth; first += 2) {
      double total = 0, sums[2] = {0, 0};
      for (std::size_t j = 0; j <= r; ++j) {
        double weight = 0;
        for (std::size_t c = first; c < first + 2; ++c)
          weight += feature(q[r * kWidth + c]) * feature(k[j * kWidth + c]);
        total += weight;
        for (std::size_t c = 0; c < 2; ++c) sums[c] += weight * v[j * kWidth + first + c];
      }
      for (std::size_t c = 0; c < 2; ++c) mixed[r * kWidth + first + c] = sums[c] / total;
    }
  }
  const auto expected = projected(mixed, "output"), output = doubles("output");
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(output[i] == Approx(expected[i]).margin(1e-5));
  // The output's bias is added to every row, so its gradient is the sum of the cotangent's.
  const auto cotangent = tensors.at("cotangent").to_doubles(), gradient = doubles("gradient.output.bias");
  for (std::size_t c = 0; c < kWidth; ++c) {
    double sum = 0;
    for (std::size_t r = 0; r < kRows; ++r) sum += cotangent[r * kWidth + c];
    CHECK(gradient[c] == Approx(sum).margin(1e-5));
  }
  CHECK(doubles("gradient.input.0").size() == x.size());
  CHECK(tensors.tensors.contains("histogram.gradient.quantizer.codebooks"));
  CHECK(test::run_command(TALLY_COMMAND, {"bench", "lengths", "--layers", "--blocks", "1"}).exit_code == 2);
}

}  // namespace length_benchmark_test
