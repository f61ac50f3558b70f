// The commands over ops, as a user meets them: exit codes, messages, files.
#include <catch2/catch.hpp>
#include <cmath>
#include <iostream>
#include <regex>
#include <sstream>

#include "tally/autograd/tape.h"
#include "tally/core/io/json.h"
#include "tally/core/io/safetensors.h"
#include "tally/core/version.h"
#include "tally/ops/check.h"
#include "tally/tools/op_commands.h"
#include "tests/support/hostile_locale.h"
#include "tests/support/run_command.h"
#include "tests/tools/small_runs.h"

namespace op_commands_test {

using namespace tally;
using Catch::Matchers::Contains;
using tally::test::CommandResult;
using tally::test::TemporaryDirectory;

namespace {

const std::string kGolden = TALLY_SOURCE_DIR "/tests/tools/golden/";

CommandResult run(const std::vector<std::string>& arguments) { return test::run_command(TALLY_COMMAND, arguments); }

std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of('\n');
  const std::size_t begin = text.rfind('\n', end);
  return text.substr(begin + 1, end - begin);
}

/// One sentence on the error stream, nothing else.
void check_refused(const CommandResult& result, int exit_code, const std::string& part) {
  CHECK(result.exit_code == exit_code);
  CHECK_THAT(result.error, Contains(part));
  CHECK(std::count(result.error.begin(), result.error.end(), '\n') == 1);
  CHECK(result.error.rfind("tally: ", 0) == 0);
}

void check_close(const Tensor& got, const Tensor& expected) {
  REQUIRE(got.shape() == expected.shape());
  REQUIRE(got.dtype() == expected.dtype());
  const double tolerance = got.dtype() == DType::f64 ? 1e-12 : 2e-6;
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(std::abs(a[i] - b[i]) <= tolerance * std::max(1.0, std::abs(b[i])));
}

/// Runs the commands in this process, over a catalog of the test's own.
CommandResult run_own(const ops::Catalog& catalog, const std::vector<const char*>& arguments) {
  std::ostringstream out, error;
  struct Redirect {
    std::ostream& stream;
    std::streambuf* before;
    Redirect(std::ostream& from, std::ostream& to) : stream(from), before(from.rdbuf(to.rdbuf())) {}
    ~Redirect() { stream.rdbuf(before); }
  };
  CommandResult result;
  {
    const Redirect standard_out(std::cout, out), standard_error(std::cerr, error);
    result.exit_code = tools::op_commands(catalog, static_cast<int>(arguments.size()), arguments.data());
  }
  result.out = out.str();
  result.error = error.str();
  return result;
}

struct SineRule {
  static constexpr std::string_view name = "sine";
  Saved x;
  void backward(BackwardContext& g) const {
    const Tensor gy = g.cotangent();
    Tensor out(gy.shape(), DType::f64);
    for (std::int64_t i = 0; i < out.numel(); ++i) {
      out.mutable_data<double>()[i] = gy.data<double>()[i] * std::cos(x.get().data<double>()[i]);
    }
    g.give(0, out);
  }
};

/// sin(x) with noise of the given size: with much of it no difference can measure the derivative.
ops::OpEntry sine_entry(const std::string& name, double noise) {
  return {.name = name,
          .summary = "sin(x), not quite.",
          .inputs = {{"x", "[N]"}},
          .outputs = {{"y", "[N]"}},
          .call = [noise](std::span<const Var> in, const ops::OpOptions&) -> std::vector<Var> {
            Tensor out(in[0].shape(), DType::f64);
            for (std::int64_t i = 0; i < out.numel(); ++i) {
              const double x = in[0].value().data<double>()[i];
              out.mutable_data<double>()[i] = std::sin(x) + noise * std::sin(1e9 * x);
            }
            return {record(SineRule{Saved(in[0].value())}, {&in[0]}, out)};
          },
          .samples =
              [] {
                return std::vector<ops::OpSample>{{"odd", {ops::sample_normal({5}, 1)}}};
              }};
}

}  // namespace

TEST_CASE("version names what a bug report needs", "[command]") {
  const CommandResult command = run({"version"}), flag = run({"--version"});
  CHECK(command.exit_code == 0);
  CHECK(flag.exit_code == 0);
  CHECK(command.out == flag.out);
  for (const char* part : {"OpenBLAS", "SIMD", "threads"}) CHECK_THAT(command.out, Contains(part));
  CHECK_THAT(command.out, Contains(version()));
}

TEST_CASE("wrong command lines end with 2 and one sentence", "[command]") {
  check_refused(run({}), 2, "subcommand is required");
  check_refused(run({"gradchek"}), 2, "did you mean 'gradcheck'?");
  check_refused(run({"gradcheck"}), 2, "needs the names of ops, --all, or --model");
  check_refused(run({"gradcheck", "matmull"}), 2, "did you mean 'matmul'?");
  check_refused(run({"gradcheck", "matmul", "--sed=3"}), 2, "--sed=3");
  check_refused(run({"gradcheck", "matmul", "--max-elements=0"}), 2, "--max-elements");
  check_refused(run({"gradcheck", "matmul", "--seed=x"}), 2, "--seed");
  check_refused(run({"ops", "layer_nrom"}), 2, "did you mean 'layer_norm'?");
  check_refused(run({"bench", "matmul", "--threads=0"}), 2, "--threads");
  check_refused(run({"apply", "matmul"}), 2, "is required");
  CHECK(run({"--help"}).exit_code == 0);
  CHECK_THAT(run({"gradcheck", "--help"}).out, Contains("--inject-bug"));
}

TEST_CASE("ops documents every op", "[command]") {
  const CommandResult list = run({"ops"});
  CHECK(list.exit_code == 0);
  for (const ops::OpEntry& entry : ops::standard_catalog().entries()) {
    CHECK_THAT(list.out, Contains("  " + entry.name + " ") && Contains(entry.summary));
  }
  const CommandResult linear = run({"ops", "linear"});
  CHECK(linear.exit_code == 0);
  CHECK_THAT(linear.out, Contains("linear(x, weight, bias?) -> y") && Contains("[out, in]") &&
                             Contains("may be absent") && Contains("string, default \"none\""));
}

TEST_CASE("gradcheck passes, and prints what was measured", "[command]") {
  const TemporaryDirectory scratch;
  const CommandResult result = run({"gradcheck", "matmul", "layer_norm", "--seed", "3", "--max-elements", "5", "--json",
                                    (scratch / "report.json").string()});
  CHECK(result.exit_code == 0);
  CHECK(last_line(result.out) == "2 passed, 0 failed, 0 skipped");
  for (const char* part : {"f64", "seed 3", "rtol 1e-06", "threads", "SIMD", "OpenBLAS", "cosine", "bias"}) {
    CHECK_THAT(result.out, Contains(part));
  }
  const Json report = read_json(scratch / "report.json");
  CHECK(report.at("seed").as_integer() == 3);
  CHECK(report.at("passed").as_integer() == 2);
  CHECK(report.at("checks").at(1).at("name").as_string() == "layer_norm");
  const Json& input = report.at("checks").at(0).at("samples").at(0).at("inputs").at(0);
  CHECK(input.at("name").as_string() == "a");
  CHECK(input.at("verdict").as_string() == "OK");
  CHECK(input.at("checked").as_integer() == 5);
}

TEST_CASE("an injected bug fails gradcheck for every op", "[command]") {
  for (const ops::OpEntry& entry : ops::standard_catalog().entries()) {
    INFO(entry.name);
    const CommandResult result = run({"gradcheck", entry.name, "--inject-bug", "--max-elements", "2"});
    if (last_line(result.out) == "0 passed, 0 failed, 1 skipped") continue;  // nothing to differentiate
    CHECK(result.exit_code == 1);
    CHECK(last_line(result.out) == "0 passed, 1 failed, 0 skipped");
    CHECK_THAT(result.out, Contains("1.001 times what it should be"));
  }
}

TEST_CASE("tolerances with which gradcheck would say nothing are refused", "[command]") {
  for (const char* bad : {"--atol=inf", "--atol=nan", "--atol=0", "--atol=-1", "--atol=1", "--rtol=inf", "--rtol=nan",
                          "--rtol=-1e-9", "--rtol=1e-3", "--rtol=1"}) {
    INFO(bad);
    check_refused(run({"gradcheck", "--all", bad, "--inject-bug"}), 2, "0.1 % too large would pass");
    check_refused(run({"gradcheck", "matmul", bad}), 2, bad[2] == 'a' ? "got atol" : "got rtol");
  }
  CHECK(run({"gradcheck", "matmul", "softmax", "--atol", "1e-4", "--rtol", "1e-4"}).exit_code == 0);
  CHECK(run({"gradcheck", "matmul", "softmax", "--atol", "1e-4", "--rtol", "1e-4", "--inject-bug"}).exit_code == 1);
}

TEST_CASE("gradcheck takes the model of a config", "[command]") {
  const std::string config = TALLY_SOURCE_DIR "/examples/quickstart.json";
  const CommandResult right = run({"gradcheck", "--model", config, "--max-elements", "8"});
  CHECK(right.exit_code == 0);
  CHECK_THAT(right.out, Contains("blocks.1.attention.query.weight"));
  CHECK(last_line(right.out) == "1 passed, 0 failed, 0 skipped");
  const CommandResult wrong = run({"gradcheck", "--model", config, "--max-elements", "8", "--inject-bug"});
  CHECK(wrong.exit_code == 1);
  check_refused(run({"gradcheck", "--model", "missing.json"}), 2, "missing.json");
}

TEST_CASE("a program has the commands over ops of its own", "[command]") {
  ops::Catalog catalog = ops::standard_catalog();
  catalog.add(sine_entry("sine", 0));
  catalog.add(sine_entry("rough_sine", 1e-6));
  const CommandResult fine = run_own(catalog, {"own", "gradcheck", "sine"});
  CHECK(fine.exit_code == 0);
  CHECK(last_line(fine.out) == "1 passed, 0 failed, 0 skipped");
  const CommandResult unmeasurable = run_own(catalog, {"own", "gradcheck", "sine", "rough_sine"});
  CHECK(unmeasurable.exit_code == 3);
  CHECK(last_line(unmeasurable.out) == "1 passed, 0 failed, 0 skipped, 1 inconclusive");
  CHECK(run_own(catalog, {"own", "gradcheck", "sine", "--inject-bug"}).exit_code == 1);
  const CommandResult unknown = run_own(catalog, {"own", "gradcheck", "sinee"});
  CHECK(unknown.exit_code == 2);
  CHECK_THAT(unknown.error, Contains("did you mean 'sine'?"));
  CHECK_THAT(run_own(catalog, {"own", "ops", "sine"}).out, Contains("sine(x) -> y"));
}

TEST_CASE("check holds ops to the whole contract", "[command]") {
  const CommandResult fine = run({"check", "softmax", "embedding", "--strict"});
  CHECK(fine.exit_code == 0);
  CHECK(last_line(fine.out) == "2 passed, 0 failed, 0 gaps in samples and documentation");
  check_refused(run({"check", "softmaxx"}), 2, "did you mean 'softmax'?");

  // Ops from outside: one that takes f64 alone and says little, and one that ignores its cotangent.
  ops::Catalog catalog;
  catalog.add(sine_entry("sine", 0));
  const CommandResult outside = run_own(catalog, {"own", "check"});
  CHECK(outside.exit_code == 0);
  CHECK_THAT(outside.out, Contains("the op takes no f32") && Contains("no call that must be refused is listed"));
  CHECK(run_own(catalog, {"own", "check", "--strict"}).exit_code == 1);
  ops::OpEntry careless = sine_entry("careless", 0);
  careless.call = [](std::span<const Var> in, const ops::OpOptions&) -> std::vector<Var> {
    const double one = in[0].value().data<double>() == nullptr ? 0 : 1;
    return {record(SineRule{Saved(in[0].value())}, {&in[0]}, Tensor::full(in[0].shape(), one, DType::f64))};
  };
  catalog.add(careless);
  const CommandResult wrong = run_own(catalog, {"own", "check", "sine", "careless"});
  CHECK(wrong.exit_code == 1);
  CHECK_THAT(wrong.out, Contains("the function does not depend on it, yet it gets a gradient"));
  CHECK(last_line(wrong.out).starts_with("1 passed, 1 failed"));
}

TEST_CASE("ops prints what f32 was measured to keep, not what is declared", "[command]") {
  const CommandResult linear = run({"ops", "linear"});
  CHECK_THAT(linear.out, Contains("measured on") && Contains("output 'y'") && Contains("the gradient of 'weight'"));
  ops::Catalog catalog;
  ops::OpEntry rough = ops::standard_catalog().find("square");
  rough.name = "rough_square";
  rough.f32_tolerance = 1;
  rough.call = [](std::span<const Var> in, const ops::OpOptions&) -> std::vector<Var> {
    Tensor y = ops::evaluate(ops::standard_catalog().find("square"), std::vector<Tensor>{in[0].value()}, {})[0].clone();
    if (y.dtype() == DType::f32) {
      for (float& each : y.mutable_span<float>()) each *= 1.25f;
    }
    return {Var(y)};
  };
  catalog.add(rough);
  CHECK_THAT(run_own(catalog, {"own", "ops", "rough_square"}).out, Contains("0.25") && Contains("at most 1"));
}

TEST_CASE("apply agrees with NumPy, forward and backward", "[command]") {
  struct Case {
    std::string op, options;
  };
  for (const Case& one : {Case{"matmul", R"({"transpose_b": true})"}, Case{"layer_norm", R"({"epsilon": 1e-3})"},
                          Case{"embedding", "{}"}}) {
    INFO(one.op);
    const TemporaryDirectory scratch;
    const std::string output = (scratch / "out.safetensors").string();
    const CommandResult result = run({"apply", one.op, "--input", kGolden + one.op + "_input.safetensors", "--options",
                                      one.options, "--output", output});
    CHECK(result.exit_code == 0);
    CHECK(result.error.empty());
    const TensorFile got = load_safetensors(output),
                     expected = load_safetensors(kGolden + one.op + "_expected.safetensors");
    CHECK(got.tensors.size() == expected.tensors.size());
    for (const auto& [name, tensor] : expected.tensors) {
      INFO(name);
      check_close(got.at(name), tensor);
    }
    CHECK(got.metadata.at("op") == one.op);
  }
}

TEST_CASE("apply takes single outputs' cotangents by name and leaves out backward without any", "[command]") {
  const TemporaryDirectory scratch;
  const std::string input = (scratch / "in.safetensors").string(), output = (scratch / "out.safetensors").string();
  const Tensor x = Tensor::from<float>({3, 1, 2, 5}, {2, 2});
  const Tensor grad = Tensor::from<float>({10, 20}, {2, 1});
  save_safetensors(input, {{"x", x}});
  REQUIRE(run({"apply", "top_k", "--input", input, "--options", R"({"k": 1})", "--output", output}).exit_code == 0);
  CHECK(load_safetensors(output).tensors.size() == 2);
  save_safetensors(input, {{"x", x}, {"grad_values", grad}});
  REQUIRE(run({"apply", "top_k", "--input", input, "--options", R"({"k": 1})", "--output", output}).exit_code == 0);
  const TensorFile result = load_safetensors(output);
  CHECK(result.at("values").to_doubles() == std::vector<double>{3, 5});
  CHECK(result.at("indices").to_doubles() == std::vector<double>{0, 1});
  CHECK(result.at("grad_x").to_doubles() == std::vector<double>{10, 0, 0, 20});
}

TEST_CASE("apply refuses what does not fit and writes nothing", "[command]") {
  const TemporaryDirectory scratch;
  const std::string input = (scratch / "in.safetensors").string(), output = (scratch / "out.safetensors").string();
  const auto apply = [&](const std::string& op, const std::string& options = "{}") {
    return run({"apply", op, "--input", input, "--options", options, "--output", output});
  };
  check_refused(apply("matmul"), 1, input);  // no such file
  const Tensor a = Tensor::zeros({2, 3}), b = Tensor::zeros({4, 5});
  save_safetensors(input, {{"a", a}});
  check_refused(apply("matmul"), 2, "holds no tensor 'b'");
  save_safetensors(input, {{"a", a}, {"b", b}, {"grad_outptu", a}});
  check_refused(apply("matmul"), 2, "did you mean 'grad_output'?");
  save_safetensors(input, {{"a", a}, {"b", b}});
  check_refused(apply("matmul"), 1, "needs equal inner sizes");
  check_refused(apply("matmul", "{"), 2, "--options");
  check_refused(apply("matmul", "[]"), 2, "needs a JSON object");
  check_refused(apply("matmul", R"({"transpose_c": true})"), 2, "did you mean \"transpose_a\"?");
  check_refused(apply("matmul", R"({"transpose_b": 1})"), 2, "transpose_b");
  save_safetensors(input, {{"a", a}, {"b", Tensor::zeros({3, 5})}, {"grad_output", Tensor::zeros({5, 2})}});
  check_refused(apply("matmul"), 1, "cotangent");
  CHECK_FALSE(std::filesystem::exists(output));
}

TEST_CASE("bench measures ops beside the machine", "[command][slow]") {
  const TemporaryDirectory scratch;
  const std::string path = (scratch / "bench.json").string();
  const CommandResult result = run({"bench", "matmul", "add", "--threads", "2", "--repeats", "3", "--json", path});
  CHECK(result.exit_code == 0);
  CHECK_THAT(result.out, Contains("GFLOP/s") && Contains("GB/s") && Contains("matmul"));
  const Json report = read_json(path);
  CHECK(report.at("threads").as_integer() == 2);
  CHECK(report.at("sgemm_flops_per_second").as_double() > 1e8);
  CHECK(report.at("memory_bytes_per_second").as_double() > 1e8);
  const Json& matmul = report.at("ops").at(0);
  CHECK(matmul.at("forward_seconds").as_double() > 0);
  CHECK(matmul.at("forward_backward_seconds").as_double() > 0);
  CHECK(matmul.at("forward_product_flops").as_double() == 2.0 * 2048 * 256 * 256);
}

TEST_CASE("a number of threads that cannot be is refused in one sentence", "[commands]") {
  for (const char* number : {"0", "-3", "abc", "2x", "129", "99999999999999999999"}) {
    INFO(number);
    const auto said =
        test::run_command("env", {std::string("TALLY_NUM_THREADS=") + number, TALLY_COMMAND, "bench", "relu"});
    check_refused(said, 2, "[TALLY_NUM_THREADS] needs a number from 1 to 128; got '");
  }
  check_refused(run({"bench", "relu", "--threads", "5000"}), 1, "needs 1 to 128 threads; got 5000");
}

TEST_CASE("commands in a program with a decimal comma read and write points", "[command][locale]") {
  const std::vector<const char*> words{"own", "gradcheck", "exp", "--rtol", "0.00001", "--seed", "1234"};
  const CommandResult plain = run_own(ops::standard_catalog(), words);
  const test::HostileLocale locale;
  const CommandResult result = run_own(ops::standard_catalog(), words);
  CHECK(result.exit_code == 0);
  CHECK(result.error == "");
  CHECK(result.out == plain.out);
  CHECK(std::use_facet<std::numpunct<char>>(std::locale()).decimal_point() == ',');
  if (locale.has_c_locale()) CHECK(std::string(std::localeconv()->decimal_point) == ",");
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which take terabytes of addresses
TEST_CASE("with little address space there is a sentence, and never a crash or a hang", "[commands]") {
  for (const char* threads : {"1", "2"}) {
    // Below 120,000 the loader may not get the libraries in, which is its own sentence and exit code.
    for (int kilobytes = 90'000; kilobytes < 480'000; kilobytes += 30'000) {
      const std::string limited = "ulimit -v " + std::to_string(kilobytes) + "; OPENBLAS_NUM_THREADS=" + threads +
                                  " exec timeout 20 " TALLY_COMMAND " version";
      const CommandResult result = test::run_command("/bin/sh", {"-c", limited});
      INFO(limited << '\n' << result.error);
      CHECK((result.exit_code == 0 || result.exit_code == 1));
      CHECK(std::count(result.error.begin(), result.error.end(), '\n') == (result.exit_code == 0 ? 0 : 1));
    }
  }
}

TEST_CASE("threads find the working memory of products, whatever else took addresses", "[commands]") {
  const test::Workshop workshop;
  for (int kilobytes = 250'000; kilobytes < 620'000; kilobytes += 25'000) {
    const std::string limited =
        "ulimit -v " + std::to_string(kilobytes) +
        "; unset TALLY_NUM_THREADS; OPENBLAS_NUM_THREADS=1 exec timeout 60 " TALLY_COMMAND " train " +
        workshop.config().string() + " --threads 2 --output=" + (workshop.files() / std::to_string(kilobytes)).string();
    const CommandResult result = test::run_command("/bin/sh", {"-c", limited});
    INFO(limited << '\n' << result.error);
    CHECK((result.exit_code == 0 || result.exit_code == 1));
    CHECK(std::count(result.error.begin(), result.error.end(), '\n') == (result.exit_code == 0 ? 0 : 1));
  }
}
#endif

}  // namespace op_commands_test
