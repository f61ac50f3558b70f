// The recipes of CONTRIBUTING.md, compiled as they stand there.
#include <catch2/catch.hpp>
#include <cmath>
#include <iostream>
#include <span>
#include <sstream>

#include "tally/autograd/tape.h"
#include "tally/nn/attention/attention_kinds.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/entry_checks.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/ops/recurrent/decayed_sum.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/recsys/config/config.h"
#include "tally/recsys/run/check_model.h"
#include "tools/commands.h"

namespace {

using namespace tally;

#include "contributing_recipes.h"

namespace contributing_test {

}  // namespace

TEST_CASE("the recipe of an op keeps the contract", "[contributing]") {
  ops::Catalog catalog;
  add_log_cosh(catalog);
  const ops::EntryReport gradients = ops::check_entry(catalog.find("log_cosh"), {});
  CHECK(gradients.verdict == ops::EntryVerdict::pass);
  CHECK(ops::check_entry(catalog.find("log_cosh"), {.injected_bug = 1.001}).verdict == ops::EntryVerdict::fail);
  CHECK(log_cosh(Tensor::from<double>({-2}, {1})).item() == Approx(std::log(std::cosh(2.0))));
}

TEST_CASE("the recipe of an attention has two forms that agree", "[contributing]") {
  nn::AttentionKinds kinds = nn::attention_kinds();
  kinds.add(mean_row());
  const nn::Attention attention = nn::make_attention({kinds, "mean"}, {.width = 6}, RngKey{1});
  Tensor x({9, 6});
  fill_normal(RngKey{2}, x, 0, 1);
  const Tensor whole = attention(x, x, {Offsets::single(9)}, {}).value();
  nn::AttentionState state = attention.initial_state();
  for (std::int64_t t = 0; t < 9; ++t) {
    const Tensor row = x.slice(0, t, t + 1), step = attention.step(state, row, row, {.place = t}).value();
    for (std::size_t i = 0; i < 6; ++i) {
      CHECK(step.to_doubles()[i] == Approx(whole.slice(0, t, t + 1).to_doubles()[i]).margin(1e-6));
    }
  }
}

TEST_CASE("the recipes of a model, a loss and a protocol are rows that a config names", "[contributing]") {
  const recsys::Tables tables = with_rows_of_ones_own();
  Json json = Json::object();
  for (const char* set : {"data.path=x.csv", "protocol=quick", "model.name=pairs", "hidden_size=5",
                          "loss_type=penalized", "hidden_penalty=0.3"}) {
    recsys::apply_override(json, set, tables);
  }
  const recsys::RunConfig config = recsys::parse_config(json, tables);
  const GradientReport report = recsys::check_model_gradients(config.model, config.train.loss);
  CHECK(config.train.epochs == 3);
  CHECK(report.passed());
  CHECK(report.leaves.size() == 2);
}

TEST_CASE("the recipe of a command is one more subcommand", "[contributing]") {
  CLI::App app;
  int exit_code = 1;
  const recsys::Tables tables = recsys::standard();
  add_hello(app, {ops::standard_catalog(), tables, exit_code});
  std::ostringstream out;
  std::streambuf* const before = std::cout.rdbuf(out.rdbuf());
  app.parse("hello tally");
  std::cout.rdbuf(before);
  CHECK(out.str() == "hello tally\n");
  CHECK(exit_code == 0);
}

}  // namespace contributing_test
