#include "tally/nn/optim/optimizer.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tally/nn/layers.h"
#include "tally/nn/optim/schedule.h"

namespace optimizer_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

struct Table {
  nn::Parameter weight;
  static constexpr void fields(auto& self, auto&& visit) { visit("weight", self.weight); }
};

Table make_table(std::int64_t rows, std::int64_t width, DType dtype = DType::f32) {
  Tensor value({rows, width}, dtype);
  fill_normal(RngKey{1, 2}, value, 0, 1);
  return {nn::Parameter(value)};
}

RowGrad step_gradient(const Table& table, std::uint64_t step) {
  Tensor values({3, table.weight.shape()[1]}, table.weight.value().dtype());
  fill_normal(RngKey{7, step}, values, 0, 1);
  return {Tensor::from<std::int64_t>({1, 4 + static_cast<std::int64_t>(step), 9}, {3}), values, table.weight.shape()};
}

/// Three steps with row gradients; `densify` gives the same gradients as dense tensors.
Tensor train(optim::Optimizer& optimizer, Table& table, bool densify) {
  for (std::uint64_t step = 0; step < 3; ++step) {
    const RowGrad rows = step_gradient(table, step);
    Gradients gradients;
    gradients.add(table.weight.id(), densify ? Gradient(rows.to_dense()) : Gradient(rows));
    optimizer.step(nn::parameters(table), gradients);
  }
  return table.weight.value();
}

}  // namespace

TEST_CASE("adam matches its formula written out in double", "[optim]") {
  Table table = make_table(10, 7, DType::f64);
  std::vector<double> w = table.weight.value().to_doubles(), m(w.size(), 0), v(w.size(), 0);
  for (std::uint64_t t = 1; t <= 3; ++t) {
    const std::vector<double> g = step_gradient(table, t - 1).to_dense().to_doubles();
    for (std::size_t i = 0; i < w.size(); ++i) {
      m[i] = 0.8 * m[i] + 0.2 * g[i];
      v[i] = 0.95 * v[i] + 0.05 * g[i] * g[i];
      const double n = static_cast<double>(t);
      w[i] -= 0.01 * 0.1 * w[i];
      w[i] -= 0.01 * (m[i] / (1 - std::pow(0.8, n))) / (std::sqrt(v[i] / (1 - std::pow(0.95, n))) + 1e-8);
    }
  }
  optim::Adam adam({.learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.1});
  const std::vector<double> got = train(adam, table, false).to_doubles();
  for (std::size_t i = 0; i < w.size(); ++i) CHECK(got[i] == Approx(w[i]).epsilon(1e-12));
}

TEMPLATE_TEST_CASE("exact steps on row gradients equal dense steps bit for bit", "[optim]", optim::Adam, optim::Adagrad,
                   optim::Sgd) {
  for (const std::int64_t width : {1, 7, 16, 64, 65}) {
    Table sparse = make_table(1000, width), dense = make_table(1000, width);
    TestType a({.learning_rate = 0.1}), b({.learning_rate = 0.1});
    CHECK(identical(train(a, sparse, false), train(b, dense, true)));
    for (const auto& [name, tensor] : a.state()) CHECK(identical(tensor, b.state().at(name)));
  }
}

TEST_CASE("exact momentum equals dense, lazy leaves untouched rows alone", "[optim]") {
  Table sparse = make_table(50, 8), dense = make_table(50, 8), lazy = make_table(50, 8);
  const Tensor before = lazy.weight.value().clone();
  optim::Sgd a({.momentum = 0.9, .weight_decay = 0.1}), b({.momentum = 0.9, .weight_decay = 0.1});
  optim::Sgd c({.momentum = 0.9, .weight_decay = 0.1, .rows = optim::RowPolicy::lazy});
  CHECK(identical(train(a, sparse, false), train(b, dense, true)));
  const Tensor after = train(c, lazy, false);
  CHECK(identical(after.slice(0, 10, 50), before.slice(0, 10, 50)));
  CHECK_FALSE(identical(after.slice(0, 9, 10), before.slice(0, 9, 10)));
  CHECK_FALSE(identical(sparse.weight.value().slice(0, 10, 50), before.slice(0, 10, 50)));  // exact decays every row
}

TEST_CASE("steps are the same bits for 1, 2 and 8 threads", "[optim][threads]") {
  std::vector<Tensor> results;
  const int threads_before = num_threads();
  for (const int threads : {1, 2, 8}) {
    set_num_threads(threads);
    Table table = make_table(20000, 16);
    optim::Adam adam;
    results.push_back(train(adam, table, true).clone());
  }
  set_num_threads(threads_before);
  CHECK(identical(results[0], results[1]));
  CHECK(identical(results[0], results[2]));
}

TEST_CASE("optimizer state survives saving and loading", "[optim]") {
  Table whole = make_table(20, 4), split = make_table(20, 4);
  optim::Adam uninterrupted, first, second;
  train(uninterrupted, whole, false);
  const Tensor expected = train(uninterrupted, whole, false).clone();
  train(first, split, false);
  std::map<std::string, Tensor> saved;
  for (const auto& [name, tensor] : first.state()) saved[name] = tensor.clone();
  second.load_state(saved);
  CHECK(second.steps() == 3);
  CHECK(identical(train(second, split, false), expected));
  saved["momentum.x/weight"] = Tensor::zeros({1});
  CHECK_THROWS_WITH(second.load_state(saved), Contains("momentum.x/weight"));
}

TEST_CASE("frozen parameters and gradients of a wrong shape", "[optim]") {
  Table table = make_table(10, 2);
  const Tensor before = table.weight.value().clone();
  table.weight.freeze();
  optim::Sgd sgd({.learning_rate = 1});
  CHECK(identical(train(sgd, table, true), before));
  table.weight.freeze(false);
  Gradients wrong;
  wrong.add(table.weight.id(), Tensor::zeros({10, 3}));
  CHECK_THROWS_WITH(sgd.step(nn::parameters(table), wrong), Contains("weight") && Contains("[10, 3]"));
}

TEST_CASE("gradients and states of another type name their parameter", "[optim]") {
  Table table = make_table(10, 2);
  const auto gradient = [&](DType dtype) {
    Gradients gradients;
    gradients.add(table.weight.id(), Tensor::zeros({10, 2}, dtype));
    return gradients;
  };
  const Tensor before = table.weight.value().clone();
  optim::Adam adam;
  CHECK_THROWS_AS(adam.step(nn::parameters(table), gradient(DType::f64)), DTypeError);
  CHECK_THROWS_WITH(adam.step(nn::parameters(table), gradient(DType::f64)),
                    Contains("[optimizer] parameter weight of type f32 has a gradient of type f64"));
  Gradients rows;
  rows.add(table.weight.id(),
           RowGrad{Tensor::zeros({1}, DType::i64), Tensor::zeros({1, 2}, DType::f64), Shape({10, 2})});
  CHECK_THROWS_WITH(adam.step(nn::parameters(table), rows),
                    Contains("[optimizer] parameter weight of type f32 has a gradient of type f64"));
  CHECK(identical(table.weight.value(), before));
  adam.step(nn::parameters(table), gradient(DType::f32));
  std::map<std::string, Tensor> state = adam.state();
  for (auto& [name, tensor] : state) {
    if (name != "steps") tensor = tensor.to(DType::f64);
  }
  adam.load_state(state);
  CHECK_THROWS_WITH(adam.step(nn::parameters(table), gradient(DType::f32)),
                    Contains("[optimizer] parameter weight of type f32 has a state of type f64"));
}

namespace {

struct Pair {
  nn::Linear left, right;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("left", self.left);
    visit("right", self.right);
  }
};

Pair make_pair() {
  return {nn::Linear::make({.in = 3, .out = 2}, {1, 1}), nn::Linear::make({.in = 3, .out = 2}, {1, 1})};
}

Gradients ones_for(Pair& pair) {
  Gradients gradients;
  for (const auto& [path, parameter] : nn::parameters(pair)) {
    gradients.add(parameter->id(), Tensor::full(parameter->shape(), 1));
  }
  return gradients;
}

}  // namespace

TEMPLATE_TEST_CASE("groups have rates and decays of their own", "[optim]", optim::Adam, optim::Sgd) {
  Pair grouped = make_pair(), plain = make_pair(), slow = make_pair();
  TestType a({.learning_rate = 0.5, .weight_decay = 0.25}), b({.learning_rate = 0.5, .weight_decay = 0.25});
  TestType c({.learning_rate = 0.125, .weight_decay = 0});
  a.groups = {{.pattern = "left.*", .learning_rate_factor = 0.25, .weight_decay = 0.0},
              {.pattern = "*.bias", .frozen = true},
              {.pattern = "*", .learning_rate_factor = 1}};
  for (int step = 0; step < 3; ++step) {
    a.step(nn::parameters(grouped), ones_for(grouped));
    b.step(nn::parameters(plain), ones_for(plain));
    c.step(nn::parameters(slow), ones_for(slow));
  }
  CHECK(identical(grouped.left.weight.value(), slow.left.weight.value()));
  CHECK(identical(grouped.left.bias.value(), slow.left.bias.value()));  // the first group that matches
  CHECK(identical(grouped.right.weight.value(), plain.right.weight.value()));
  CHECK(grouped.right.bias.value().to_doubles() == std::vector<double>{0, 0});
  CHECK_FALSE(identical(grouped.left.weight.value(), grouped.right.weight.value()));
  CHECK_FALSE(a.state().contains("adam.m/right.bias"));
}

TEST_CASE("groups that say nothing sensible are refused", "[optim]") {
  Pair pair = make_pair();
  const Tensor before = pair.left.weight.value().clone();
  const auto refused = [&](optim::Optimizer& optimizer, const optim::ParameterGroup& group, const std::string& why) {
    optimizer.groups = {group};
    CHECK_THROWS_WITH(optimizer.step(nn::parameters(pair), ones_for(pair)), Contains(why));
    CHECK(optimizer.steps() == 0);
  };
  optim::Adam adam;
  optim::Adagrad adagrad;
  refused(adam, {.pattern = "lef.*"}, "none matches 'lef.*'");
  refused(adam, {.pattern = "left.*", .learning_rate_factor = -1}, "'left.*'; got -1");
  refused(adam, {.pattern = "*", .weight_decay = -0.5}, "got 1 and -0.5");
  refused(adagrad, {.pattern = "*", .weight_decay = 0.1}, "adagrad has no weight decay");
  CHECK(identical(pair.left.weight.value(), before));
}

TEST_CASE("gradients without a parameter and paths of two parameters are named", "[optim]") {
  Pair pair = make_pair();
  nn::ParameterList list = nn::parameters(pair);
  optim::Sgd sgd;
  nn::ParameterList fewer(list.begin(), list.end() - 1);
  CHECK_THROWS_WITH(sgd.step(fewer, ones_for(pair)), Contains("none takes those of shape [2]"));
  Gradients rows = ones_for(pair);
  nn::Parameter table(Tensor::zeros({5, 4}));
  rows.add(table.id(), RowGrad{Tensor::from<std::int64_t>({1}, {1}), Tensor::full({1, 4}, 1), Shape{5, 4}});
  CHECK_THROWS_WITH(sgd.step(list, rows), Contains("none takes those of shape [5, 4]"));
  nn::ParameterList twice = list;
  twice[1].path = twice[0].path;
  CHECK_THROWS_WITH(sgd.step(twice, ones_for(pair)), Contains("two have the path 'left.weight'"));
  nn::ParameterList repeated = list;
  repeated.push_back({"again", list[2].parameter});
  CHECK_THROWS_WITH(sgd.step(repeated, ones_for(pair)), Contains("'right.weight' and 'again'"));
  CHECK(sgd.steps() == 0);
  CHECK_NOTHROW(sgd.step(list, {}));
}

TEST_CASE("clipping by the global norm", "[optim]") {
  Table a = make_table(3, 2), b = make_table(2, 2);
  Gradients gradients;
  gradients.add(a.weight.id(), Tensor::full({3, 2}, 2));
  gradients.add(b.weight.id(), RowGrad{Tensor::from<std::int64_t>({1}, {1}), Tensor::full({1, 2}, 1), Shape{2, 2}});
  nn::ParameterList both = nn::parameters(a);
  both.push_back(nn::parameters(b)[0]);
  const double norm = std::sqrt(6 * 4 + 2 * 1);
  CHECK(optim::clip_by_global_norm(both, gradients, 100) == Approx(norm));
  CHECK(gradients[a.weight.id()].to_doubles()[0] == 2);
  CHECK(optim::clip_by_global_norm(both, gradients, 1) == Approx(norm));
  CHECK(optim::global_norm(both, gradients) == Approx(1));
  gradients.add(a.weight.id(), Tensor::full({3, 2}, std::nan("")));
  CHECK_THROWS_AS(optim::clip_by_global_norm(both, gradients, 1), ValueError);
}

TEST_CASE("schedules", "[optim]") {
  const optim::Schedule warm{.peak = 2, .warmup = 4};
  CHECK(warm.at(0) == 0.5);
  CHECK(warm.at(3) == 2);
  CHECK(warm.at(1000) == 2);
  const optim::Schedule cosine{.peak = 1, .decay = optim::Decay::cosine, .total = 100, .floor = 0.1};
  CHECK(cosine.at(0) == Approx(1));
  CHECK(cosine.at(50) == Approx(0.55));
  CHECK(cosine.at(500) == Approx(0.1));
  const optim::Schedule steps{.peak = 1, .decay = optim::Decay::step, .period = 10, .factor = 0.5};
  CHECK(steps.at(9) == 1);
  CHECK(steps.at(10) == 0.5);
  CHECK(steps.at(25) == 0.25);
  const optim::LearningRate function = steps;
  CHECK(function(25) == 0.25);
  const optim::Schedule wrong{.peak = 0};
  CHECK_THROWS_AS(wrong.at(0), ValueError);
}

}  // namespace optimizer_test
