#include "tally/recsys/run/check_model.h"

#include <algorithm>
#include <catch2/catch.hpp>

namespace check_model_test {

using namespace tally;
using namespace tally::recsys;

TEST_CASE("every parameter of sasrec has a right gradient, in each placement of the norm", "[sasrec]") {
  for (const std::string norm : {"sasrec", "pre", "post"}) {
    ModelConfig config("sasrec");
    config.set("hidden_size", 16);
    config.set("n_heads", 2);
    config.set("hidden_act", "gelu");
    config.set("norm", norm);
    const GradientReport report = check_model_gradients(config);
    CHECK(report.leaves.size() > 20);
    for (const LeafReport& leaf : report.leaves) {
      INFO(norm << ' ' << leaf.name << ": " << leaf.hint << " scaled error " << leaf.max_scaled);
      CHECK(leaf.verdict == GradientVerdict::ok);
    }
  }
}

TEST_CASE("every parameter of gru4rec and of untied tables has a right gradient", "[gru4rec]") {
  for (const std::string name : {"gru4rec", "sasrec"}) {
    for (const bool tied : {true, false}) {
      ModelConfig config(name);
      config.set("hidden_size", 5);
      if (name == "sasrec") config.set("hidden_act", "gelu");
      config.set("tie_embeddings", tied);
      const GradientReport report = check_model_gradients(config);
      const bool has_output = std::any_of(report.leaves.begin(), report.leaves.end(),
                                          [](const LeafReport& leaf) { return leaf.name == "output"; });
      CHECK(has_output != tied);
      for (const LeafReport& leaf : report.leaves) {
        INFO(name << ' ' << leaf.name << ": " << leaf.hint << " scaled error " << leaf.max_scaled);
        CHECK(leaf.verdict == GradientVerdict::ok);
      }
    }
  }
}

TEST_CASE("the check of a model refuses hard codes, which pass gradients straight through", "[lisa]") {
  ModelConfig config("lisa");
  config.set("hidden_size", 6);
  config.set("codebooks", 2);
  config.set("codewords", 3);
  config.set("hidden_act", "gelu");
  CHECK_THROWS_WITH(check_model_gradients(config), Catch::Matchers::Contains("check the variant soft"));
  config.set("lisa_variant", "soft");
  CHECK_FALSE(check_model_gradients(config, {.rtol = 1e-5, .atol = 1e-7}).failed());
}

TEST_CASE("the check of a model sees an injected bug", "[sasrec]") {
  ModelConfig config("sasrec");
  config.set("hidden_size", 8);
  config.set("hidden_act", "gelu");
  GradientCheckOptions options;
  options.injected_bug = 1.001;
  options.max_elements = 8;
  CHECK_FALSE(check_model_gradients(config, options).passed());
}

}  // namespace check_model_test
