// ONNX's own node cases through `tally apply`; tests/golden/make_onnx_golden.py wrote them.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "tally/core/io/json.h"
#include "tally/core/io/safetensors.h"
#include "tally/ops/check.h"
#include "tests/support/run_command.h"
#include "tools/option_json.h"

namespace onnx_cases_test {

using namespace tally;

namespace {

struct OnnxCase {
  std::map<std::string, Tensor> inputs, expected;
};

std::map<std::string, OnnxCase> cases_of(const TensorFile& file) {
  std::map<std::string, OnnxCase> cases;
  const std::string mark = "expected/";
  for (const auto& [path, tensor] : file.tensors) {
    const std::size_t slash = path.find('/');
    const std::string name = path.substr(slash + 1);
    OnnxCase& each = cases[path.substr(0, slash)];
    if (name.rfind(mark, 0) == 0) {
      each.expected[name.substr(mark.size())] = tensor;
    } else {
      each.inputs[name] = tensor;
    }
  }
  return cases;
}

/// Of each sequence.
Tensor last_rows(const Tensor& rows, const Tensor& offsets) {
  const std::int64_t count = offsets.numel() - 1, width = rows.dim(1);
  Tensor last({count, width});
  for (std::int64_t s = 0; s < count; ++s) {
    const float* from = rows.data<float>() + (offsets.data<std::int64_t>()[s + 1] - 1) * width;
    std::copy_n(from, width, last.mutable_data<float>() + s * width);
  }
  return last;
}

void check_close(const Tensor& got, const Tensor& expected, double tolerance) {
  REQUIRE(got.shape() == expected.shape());
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  for (std::size_t i = 0; i < a.size(); ++i) {
    const bool close = a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])) ||
                       std::abs(a[i] - b[i]) <= tolerance * std::max(1.0, std::abs(b[i]));
    INFO(i << ": " << a[i] << " for " << b[i]);
    CHECK(close);
  }
}

}  // namespace

TEST_CASE("cases of ONNX's node suite", "[command][onnx]") {
  const std::map<std::string, std::size_t> counts{{"attention_scores", 18},
                                                  {"causal_conv1d", 13},
                                                  {"elementwise", 47},
                                                  {"last_rows", 13},
                                                  {"linear_attention", 14},
                                                  {"losses", 31},
                                                  {"rotary", 8},
                                                  {"scaled_dot_product_attention", 93},
                                                  {"gru", 7},
                                                  {"lstm", 6},
                                                  {"tensors", 57}};
  for (const auto& [family, count] : counts) {
    const TensorFile file = load_safetensors(TALLY_SOURCE_DIR "/tests/golden/onnx_" + family + ".safetensors");
    const Json options = parse_json(file.metadata.at("options"), "options");
    // ONNX's own results of cases in half precision are rounded to few digits; they are computed in f32.
    const auto written = file.metadata.find("rounded");
    const Json rounded = written == file.metadata.end() ? Json::object() : parse_json(written->second, "rounded");
    const std::map<std::string, OnnxCase> cases = cases_of(file);
    CHECK(cases.size() == count);
    for (const auto& [name, each] : cases) {
      const std::size_t dot = name.find('.');
      const std::string op = dot == std::string::npos ? family : name.substr(0, dot);
      INFO(op << ' ' << name);
      const test::TemporaryDirectory scratch;
      save_safetensors(scratch / "input.safetensors", each.inputs);
      const test::CommandResult result =
          test::run_command(TALLY_COMMAND, {"apply", op, "--input", scratch / "input.safetensors", "--options",
                                            options.at(name).as_string(), "--output", scratch / "output.safetensors"});
      INFO(result.error);
      REQUIRE(result.exit_code == 0);
      const Json* rounding = rounded.find(name);
      const double tolerance = rounding == nullptr ? 2e-6 : std::max(2e-6, rounding->as_double());
      const TensorFile output = load_safetensors(scratch / "output.safetensors");
      REQUIRE_FALSE(each.expected.empty());
      for (const auto& [result_name, tensor] : each.expected) {
        const std::size_t colon = result_name.find(':');
        const Tensor& got = output.at(result_name.substr(0, colon));
        check_close(colon == std::string::npos ? got : last_rows(got, each.inputs.at("offsets")), tensor, tolerance);
      }
    }
  }
}

TEST_CASE("cases of ONNX's node suite that are several ops", "[command][onnx]") {
  // tests/golden/count_onnx_cases.py ran and wrote them.
  const TensorFile file = load_safetensors(TALLY_SOURCE_DIR "/tests/golden/onnx_compositions.safetensors");
  const Json programs = parse_json(file.metadata.at("programs"), "programs");
  const std::map<std::string, OnnxCase> cases = cases_of(file);
  CHECK(cases.size() == 331);
  for (const auto& [name, each] : cases) {
    INFO(name);
    const Json& program = programs.at(name);
    std::map<std::string, Tensor> values = each.inputs;
    std::size_t count = 0;
    for (const Json& step : program.at("steps").elements()) {
      const ops::OpEntry& entry = ops::standard_catalog().find(step.at("op").as_string());
      INFO(count << ": " << entry.name);
      std::vector<Tensor> inputs;
      for (const ops::OpInput& input : entry.inputs) {
        const Json* from = step.at("inputs").find(input.name);
        inputs.push_back(from == nullptr ? Tensor() : values.at(from->as_string()));
      }
      const std::vector<Tensor> outputs = ops::evaluate(entry, inputs, tools::read_options(entry, step.at("options")));
      for (std::size_t k = 0; k < outputs.size(); ++k) {
        values["s" + std::to_string(count) + "." + entry.outputs[k].name] = outputs[k];
      }
      ++count;
    }
    REQUIRE_FALSE(each.expected.empty());
    for (const auto& [result, tensor] : each.expected) {
      check_close(values.at(program.at("results").at(result).as_string()), tensor, program.at("tolerance").as_double());
    }
  }
}

}  // namespace onnx_cases_test
