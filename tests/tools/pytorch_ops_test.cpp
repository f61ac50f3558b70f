// Ops beside PyTorch, forward and backward; tests/golden/make_pytorch_ops_golden.py wrote what it computed.
#include <catch2/catch.hpp>
#include <map>

#include "tally/core/io/json.h"
#include "tally/core/io/safetensors.h"
#include "tally/ops/check.h"
#include "tally/ops/entry_checks.h"
#include "tally/ops/losses/bpr_loss.h"
#include "tally/ops/losses/mean_squared_error.h"
#include "tools/option_json.h"

namespace pytorch_ops_test {

using namespace tally;

namespace {

/// Every op, and losses that are composed in a header.
ops::Catalog with_composed_losses() {
  ops::Catalog catalog = ops::standard_catalog();
  const auto add = [&](std::string name, Var (*loss)(const Var&, const Var&)) {
    ops::OpEntry entry;
    entry.name = std::move(name);
    entry.inputs = {{"a", "[...]"}, {"b", "[...]"}};
    entry.outputs = {{"y", "[]"}};
    entry.call = [loss](std::span<const Var> in, const ops::OpOptions&) -> std::vector<Var> {
      return {loss(in[0], in[1])};
    };
    entry.samples = [] { return std::vector<ops::OpSample>{}; };
    catalog.add(std::move(entry));
  };
  add("mean_squared_error", ops::mean_squared_error);
  add("bpr_loss", ops::bpr_loss);
  return catalog;
}

void expect_close(const std::string& what, const Tensor& got, const Tensor& expected, double tolerance) {
  const Tensor same = is_floating(got.dtype()) ? expected.to(got.dtype()) : expected;
  REQUIRE(got.shape() == same.shape());
  const bool whole = !is_floating(got.dtype());
  for (const std::string& complaint :
       ops::compare_tensors(what, whole ? got.to(DType::i64) : got, whole ? same.to(DType::i64) : same, tolerance, 0)) {
    INFO(complaint);
    CHECK(false);
  }
}

}  // namespace

TEST_CASE("ops give PyTorch's results and gradients", "[pytorch]") {
  const TensorFile file = load_safetensors(TALLY_SOURCE_DIR "/tests/golden/pytorch_ops.safetensors");
  const Json cases = parse_json(file.metadata.at("cases"), "cases");
  const ops::Catalog catalog = with_composed_losses();
  std::map<std::string, int> compared;
  for (const auto& [name, each] : cases.members()) {
    const ops::OpEntry& entry = catalog.find(each.at("op").as_string());
    const ops::OpOptions options = tools::read_options(entry, each.at("options"));
    const auto find = [&, &name = name](const std::string& tensor) {
      const auto found = file.tensors.find(name + '/' + tensor);
      return found == file.tensors.end() ? Tensor() : found->second;
    };
    std::vector<Tensor> inputs, cotangents;
    for (const ops::OpInput& input : entry.inputs) inputs.push_back(find(input.name));
    for (const ops::OpOutput& output : entry.outputs) cotangents.push_back(find("cotangent/" + output.name));
    // f32 as the catalog holds it to f64.
    for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-11}, {DType::f32, entry.f32_tolerance}}) {
      INFO(name << ' ' << dtype);
      const std::vector<Tensor> given = ops::converted(inputs, dtype), along = ops::converted(cotangents, dtype);
      const ops::Evaluation got = ops::evaluate(entry, given, options, ops::differentiable_inputs(entry, given), along);
      for (std::size_t k = 0; k < entry.outputs.size(); ++k) {
        const Tensor expected = find("expected/" + entry.outputs[k].name);
        // The third piece of two, say.
        if (expected.defined())
          expect_close("output '" + entry.outputs[k].name + "'", got.outputs[k], expected, tolerance);
      }
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const Tensor expected = find("gradient/" + entry.inputs[i].name);
        if (!expected.defined()) continue;
        // Of the sign nothing comes.
        const Tensor gradient = got.gradients[i] ? *got.gradients[i] : Tensor::zeros(expected.shape(), dtype);
        expect_close("the gradient of '" + entry.inputs[i].name + "'", gradient, expected, tolerance);
        ++compared[entry.name];
      }
    }
  }
  CHECK(cases.members().size() == 152);
  CHECK(compared.size() == 68);
}

}  // namespace pytorch_ops_test
