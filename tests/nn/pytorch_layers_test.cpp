// Layers beside PyTorch's, forward and backward; tests/golden/make_pytorch_ops_golden.py wrote what it computed.
#include <catch2/catch.hpp>
#include <functional>

#include "tally/autograd/tape.h"
#include "tally/core/io/json.h"
#include "tally/core/io/safetensors.h"
#include "tally/nn/buffer_updates.h"
#include "tally/nn/recurrent.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"

namespace pytorch_layers_test {

using namespace tally;

namespace {

/// A case of the file; tensors in the type that is asked for.
struct LayerCase {
  const TensorFile& file;
  std::string name;
  DType dtype;

  Tensor at(const std::string& tensor) const {
    const Tensor& found = file.at(name + '/' + tensor);
    return is_floating(found.dtype()) ? found.to(dtype) : found;
  }
  Offsets offsets() const { return Offsets(at("offsets")); }

  void close(const Tensor& got, const std::string& tensor) const {
    INFO(name << ' ' << dtype << ' ' << tensor);
    const Tensor& expected = file.at(name + '/' + tensor);
    REQUIRE(got.shape() == expected.shape());
    const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
    double largest = 0;
    for (const double value : b) largest = std::max(largest, std::abs(value));
    // As the catalog holds ops.
    const double tolerance = (dtype == DType::f64 ? 1e-11 : 2e-6) * largest;
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).epsilon(0).margin(tolerance));
  }

  /// The result, and the gradients of x and of parameters by PyTorch's names.
  void check(const std::function<Var(const Var&)>& layer,
             const std::vector<std::pair<std::string, const nn::Parameter*>>& parameters) const {
    const Var x = Var::leaf(at("x"));
    Tensor result;
    const auto [value, gradients] = value_and_gradients([&] {
      const Var y = layer(x);
      result = y.value();
      return ops::sum(y * Var(at("cotangent/y")));
    });
    close(result, "expected/y");
    close(gradients[x], "gradient/x");
    for (const auto& [key, parameter] : parameters) close(gradients[parameter->var()], "gradient/" + key);
  }
};

nn::Gru gru_of(const LayerCase& each, const std::string& end = "") {
  return {{nn::Parameter(each.at("weight_ih" + end)), nn::Parameter(each.at("bias_ih" + end))},
          nn::Parameter(each.at("weight_hh" + end)),
          nn::Parameter(each.at("bias_hh" + end))};
}

using Named = std::vector<std::pair<std::string, const nn::Parameter*>>;
template <class M>
Named named(const M& layer, const std::string& end = "") {
  return {{"weight_ih" + end, &layer.input.weight},
          {"bias_ih" + end, &layer.input.bias},
          {"weight_hh" + end, &layer.hidden_weight},
          {"bias_hh" + end, &layer.hidden_bias}};
}

}  // namespace

TEST_CASE("layers give PyTorch's results and gradients", "[layers][pytorch]") {
  const TensorFile file = load_safetensors(TALLY_SOURCE_DIR "/tests/golden/pytorch_layers.safetensors");
  for (const DType dtype : {DType::f64, DType::f32}) {
    for (const bool training : {true, false}) {
      const LayerCase each{file, training ? "batch_norm.0" : "batch_norm.1", dtype};
      nn::BatchNorm layer{nn::Parameter(each.at("weight")),
                          nn::Parameter(each.at("bias")),
                          nn::Buffer(each.at("running_mean")),
                          nn::Buffer(each.at("running_variance")),
                          1e-3,
                          0.25};
      nn::BufferUpdates updates;
      each.check([&](const Var& x) { return layer(x, {.training = training, .updates = &updates}); },
                 {{"weight", &layer.weight}, {"bias", &layer.bias}});
      updates.apply();
      each.close(layer.running_mean.value(), "expected/running_mean");
      each.close(layer.running_variance.value(), "expected/running_variance");
    }
    const LayerCase one{file, "gru.0", dtype}, two{file, "bidirectional_gru.0", dtype}, cells{file, "lstm.0", dtype};
    const nn::Gru gru = gru_of(one);
    one.check([&](const Var& x) { return gru(x, one.offsets()); }, named(gru));
    const nn::BidirectionalGru both{gru_of(two), gru_of(two, "_reverse")};
    Named parameters = named(both.forward);
    for (const auto& each : named(both.backward, "_reverse")) parameters.push_back(each);
    two.check([&](const Var& x) { return both(x, two.offsets()); }, parameters);
    const nn::Lstm lstm{{nn::Parameter(cells.at("weight_ih")), nn::Parameter(cells.at("bias_ih"))},
                        nn::Parameter(cells.at("weight_hh")),
                        nn::Parameter(cells.at("bias_hh"))};
    cells.check([&](const Var& x) { return lstm(x, cells.offsets()).states; }, named(lstm));
  }
}

}  // namespace pytorch_layers_test
