#include "tally/autograd/gradient_check.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>

#include "tally/autograd/numeric_derivative.h"

namespace gradient_check_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

// Elementwise y = value(x) whose backward multiplies the cotangent by slope(x), right or wrong.
struct ElementwiseRule {
  static constexpr std::string_view name = "elementwise";
  std::function<double(double)> slope;
  Saved x;
  void backward(BackwardContext& g) const {
    const Tensor gy = g.cotangent();
    Tensor out(gy.shape(), DType::f64);
    double* to = out.mutable_data<double>();
    for (std::int64_t i = 0; i < out.numel(); ++i) to[i] = gy.data<double>()[i] * slope(x.get().data<double>()[i]);
    g.give(0, out);
  }
};

Var elementwise(const Var& x, const std::function<double(double)>& value, const std::function<double(double)>& slope) {
  Tensor out(x.shape(), DType::f64);
  double* to = out.mutable_data<double>();
  for (std::int64_t i = 0; i < x.numel(); ++i) to[i] = value(x.value().data<double>()[i]);
  return record(ElementwiseRule{slope, Saved(x.value())}, {&x}, out);
}

double sine(double x) { return std::sin(x); }
double cosine(double x) { return std::cos(x); }

// y [1] = mean of x, whose backward gives the gradient of the sum when wrong.
struct MeanRule {
  static constexpr std::string_view name = "mean";
  bool wrong;
  Shape shape;
  void backward(BackwardContext& g) const {
    const double divisor = wrong ? 1 : static_cast<double>(shape.numel());
    g.give(0, Tensor::full(shape, g.cotangent().item() / divisor, DType::f64));
  }
};

Var mean(const Var& x, bool wrong) {
  double total = 0;
  for (const double v : x.value().span<double>()) total += v;
  return record(MeanRule{wrong, x.shape()}, {&x},
                Tensor::full({1}, total / static_cast<double>(x.numel()), DType::f64));
}

Tensor points(std::initializer_list<double> values) {
  return Tensor::from<double>(values, {static_cast<std::int64_t>(values.size())});
}

GradientReport run(const Tensor& x, const std::function<Var(const Var&)>& f, GradientCheckOptions options = {}) {
  const Var leaf = Var::leaf(x);
  return check_gradients([&] { return std::vector<Var>{f(leaf)}; }, {{"x", x, leaf.leaf_id()}}, options);
}

LeafReport run_one(const Tensor& x, const std::function<double(double)>& value,
                   const std::function<double(double)>& slope, GradientCheckOptions options = {}) {
  return run(
             x, [&](const Var& v) { return elementwise(v, value, slope); }, options)
      .leaves[0];
}

}  // namespace

TEST_CASE("a right gradient passes far below the tolerance", "[gradient_check]") {
  const Tensor x = points({-1.3, 0.2, 0.7, 2.9, 40});
  const Tensor before = x.clone();
  const LeafReport leaf = run_one(x, sine, cosine);
  CHECK(leaf.verdict == GradientVerdict::ok);
  CHECK(leaf.checked == 5);
  CHECK(leaf.total == 5);
  CHECK(leaf.max_relative < 1e-8);
  CHECK(leaf.cosine == Approx(1).margin(1e-12));
  CHECK(leaf.norm_ratio == Approx(1).margin(1e-8));
  CHECK(leaf.hint.empty());
  CHECK(identical(x, before));
}

TEST_CASE("wrong gradients fail, with the pattern named", "[gradient_check]") {
  const Tensor x = points({-1.3, 0.2, 0.7, 2.9});
  const auto scaled = [&](double factor) {
    return run_one(x, sine, [factor](double v) { return factor * std::cos(v); });
  };
  SECTION("sign") {
    const LeafReport leaf = scaled(-1);
    CHECK(leaf.verdict == GradientVerdict::fail);
    CHECK(leaf.cosine == Approx(-1));
    CHECK_THAT(leaf.hint, Contains("sign"));
  }
  SECTION("half") { CHECK_THAT(scaled(0.5).hint, Contains("half")); }
  SECTION("twice") { CHECK_THAT(scaled(2).hint, Contains("twice")); }
  SECTION("constant factor") {
    CHECK_THAT(scaled(1.3).hint, Contains("1.3 times"));
    CHECK_THAT(scaled(-1.3).hint, Contains("sign is wrong, and it is 1.3 times"));
  }
  SECTION("mean taken for a sum") {
    const LeafReport leaf = run(points({1, 2, 3, 4, 5}), [](const Var& v) { return mean(v, true); }).leaves[0];
    CHECK(leaf.verdict == GradientVerdict::fail);
    CHECK_THAT(leaf.hint, Contains("a mean taken for a sum"));
    CHECK(run(points({1, 2, 3, 4, 5}), [](const Var& v) { return mean(v, false); }).passed());
  }
  SECTION("a missing term of relative size 1e-5") {
    const LeafReport leaf = run_one(
        x, [](double v) { return std::sin(v) + 1e-5 * v * v; }, cosine);
    CHECK(leaf.verdict == GradientVerdict::fail);
    CHECK(leaf.max_scaled > 1);
    CHECK_THAT(leaf.hint, Contains("small term"));
    CHECK(leaf.worst.size() == 4);
    for (std::size_t i = 1; i < leaf.worst.size(); ++i) CHECK(leaf.worst[i - 1].scaled >= leaf.worst[i].scaled);
  }
  SECTION("one element of many") {
    const LeafReport leaf = run_one(x, sine, [](double v) { return v > 2 ? 0.0 : std::cos(v); });
    CHECK(leaf.verdict == GradientVerdict::fail);
    REQUIRE(leaf.worst.size() >= 1);
    CHECK(leaf.worst[0].index == 3);
    CHECK(leaf.worst[0].analytic == 0);
    CHECK(leaf.worst[0].numeric != 0);
    CHECK_THAT(leaf.hint, Contains("only 1 of 4"));
  }
  SECTION("not finite") {
    const LeafReport leaf = run_one(x, sine, [](double) { return std::nan(""); });
    CHECK(leaf.verdict == GradientVerdict::fail);
    CHECK_THAT(leaf.hint, Contains("not finite"));
  }
  SECTION("injected bug") { CHECK(run_one(x, sine, cosine, {.injected_bug = 1.001}).verdict == GradientVerdict::fail); }
}

TEST_CASE("a leaf that no gradient reaches counts as zero", "[gradient_check]") {
  const Tensor x = points({0.5, 1.5});
  const auto stopped = run(x, [](const Var& v) { return elementwise(v.detach(), sine, cosine); });
  CHECK(stopped.failed());
  CHECK_THAT(stopped.leaves[0].hint, Contains("no gradient reaches it"));
  const Tensor other = points({1, 2});
  CHECK(run(x, [&](const Var&) { return elementwise(other, sine, cosine); }).passed());
  const auto invented = run(x, [](const Var& v) {
    return elementwise(
        v, [](double) { return 1.0; }, cosine);
  });
  CHECK_THAT(invented.leaves[0].hint, Contains("does not depend on it"));
}

TEST_CASE("gradients that are zero but for rounding have no direction", "[gradient_check]") {
  const LeafReport leaf = run_one(
      points({0.5, 1.5}), [](double) { return 1.0; }, [](double) { return 1e-17; });
  CHECK(leaf.verdict == GradientVerdict::ok);
  CHECK(leaf.cosine == 1);
  CHECK(leaf.norm_ratio == 1);
}

TEST_CASE("kinks are counted and not failed, unless they are many or the value lies outside the slopes",
          "[gradient_check]") {
  const auto relu = [](double v) { return v > 0 ? v : 0.0; };
  const auto step = [](double v) { return v > 0 ? 1.0 : 0.0; };
  Tensor x(Shape{30}, DType::f64);
  for (std::int64_t i = 0; i < 30; ++i) x.mutable_data<double>()[i] = 0.1 * static_cast<double>(i + 1);
  SECTION("at the kink") {
    x.mutable_data<double>()[7] = 0;
    const LeafReport leaf = run_one(x, relu, step);
    CHECK(leaf.verdict == GradientVerdict::kink);
    CHECK(leaf.kinks == 1);
    CHECK(run_one(x, relu, [&](double v) { return v == 0 ? 1.5 : step(v); }).verdict == GradientVerdict::fail);
  }
  SECTION("within the small step of the kink") {
    x.mutable_data<double>()[7] = 5e-7;
    CHECK(run_one(x, relu, step).verdict == GradientVerdict::kink);
  }
  SECTION("within the large step only, the small one decides") {
    x.mutable_data<double>()[7] = 4e-4;
    CHECK(run_one(x, relu, step).verdict == GradientVerdict::ok);
    x.mutable_data<double>()[7] = -1e-5;
    CHECK(run_one(x, relu, step).verdict == GradientVerdict::ok);
  }
  SECTION("too many") {
    for (std::int64_t i = 0; i < 5; ++i) x.mutable_data<double>()[i] = 0;
    const LeafReport leaf = run_one(x, relu, step);
    CHECK(leaf.verdict == GradientVerdict::fail);
    CHECK(leaf.kinks == 5);
    CHECK_THAT(leaf.hint, Contains("5 of 30"));
  }
  SECTION("a jump") {
    x.mutable_data<double>()[7] = 0;
    CHECK(run_one(x, step, [](double) { return 0.0; }).kinks == 1);
  }
  SECTION("steep but smooth is no kink") {
    const LeafReport leaf = run_one(
        points({0, 1e-4}), [](double v) { return std::tanh(3e3 * v) / 3e3; },
        [](double v) { return 1 / std::cosh(3e3 * v) / std::cosh(3e3 * v); }, {.rtol = 1e-4});
    CHECK(leaf.kinks == 0);
    CHECK(leaf.verdict == GradientVerdict::ok);
  }
}

TEST_CASE("a nondeterministic op is found", "[gradient_check]") {
  const Tensor x = points({0.5, 1.5});
  std::atomic<int> calls{0};
  SECTION("in backward") {
    const LeafReport leaf = run_one(x, sine, [&](double v) { return std::cos(v) * (1 + 1e-14 * ++calls); });
    CHECK_FALSE(leaf.deterministic);
    CHECK(leaf.verdict == GradientVerdict::fail);
    CHECK_THAT(leaf.hint, Contains("second backward"));
  }
  SECTION("in forward") {
    const LeafReport leaf = run_one(
        x, [&](double v) { return std::sin(v) + 1e-13 * ++calls; }, cosine);
    CHECK_FALSE(leaf.deterministic);
    CHECK_THAT(leaf.hint, Contains("random draws"));
  }
}

TEST_CASE("a derivative that cannot be measured is inconclusive", "[gradient_check]") {
  // Noise of 1e-6 of the value is far above what the difference needs.
  const auto rough = [](double v) { return std::sin(v) + 1e-6 * std::sin(1e9 * v); };
  const GradientReport report =
      run(points({0.51, 1.1, -0.7}), [&](const Var& v) { return elementwise(v, rough, cosine); });
  CHECK(report.leaves[0].verdict == GradientVerdict::noise);
  CHECK(report.inconclusive());
  CHECK_FALSE(report.passed());
  CHECK_FALSE(report.failed());
  // A value rounded so coarsely that the small step moves nothing.
  const auto coarse = [](double v) { return std::round(std::sin(v) * 1e5) / 1e5; };
  CHECK(run_one(points({0.51, 1.1, -0.7}), coarse, cosine).verdict == GradientVerdict::noise);
  // The offset costs digits that the extrapolation still has to spare.
  CHECK(run_one(
            points({0.51, 1.1}), [](double v) { return std::sin(v) + 1e3; }, cosine)
            .verdict == GradientVerdict::ok);
  // Hugely wrong is wrong, noise or not.
  const LeafReport wrong = run_one(points({0.51, 1.1}), rough, [](double v) { return 50 * std::cos(v); });
  CHECK(wrong.verdict == GradientVerdict::fail);
}

TEST_CASE("a straight-through function is checked against its surrogate", "[gradient_check]") {
  // Forward rounds, backward is that of tanh.
  const Tensor x = points({0.3, 1.7, -2.2});
  const Tensor base = x.clone();
  const Var leaf = Var::leaf(x);
  const auto slope = [](double v) { return 1 - std::tanh(v) * std::tanh(v); };
  const CheckedFunction rounded = [&] {
    return std::vector<Var>{elementwise(
        leaf, [](double v) { return std::round(v); }, slope)};
  };
  GradientCheckOptions options;
  CHECK(check_gradients(rounded, {{"x", x, leaf.leaf_id()}}).failed());
  options.surrogate = [&] {
    Tensor out(x.shape(), DType::f64);
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const double start = base.data<double>()[i];
      out.mutable_data<double>()[i] = std::round(start) + std::tanh(x.data<double>()[i]) - std::tanh(start);
    }
    return std::vector<Var>{Var(out)};
  };
  CHECK(check_gradients(rounded, {{"x", x, leaf.leaf_id()}}, options).passed());
  options.surrogate = [&] {
    return std::vector<Var>{elementwise(
        leaf, [](double v) { return std::tanh(v); }, slope)};
  };
  const GradientReport other_value = check_gradients(rounded, {{"x", x, leaf.leaf_id()}}, options);
  CHECK(other_value.failed());
  CHECK_THAT(other_value.leaves[0].hint, Contains("surrogate's value"));
}

TEST_CASE("elements are sampled by the key", "[gradient_check]") {
  const Tensor x = Tensor::full({1000}, 0.5, DType::f64);
  int calls = 0;
  const auto count = [&](RngKey key) {
    calls = 0;
    return run(x,
               [&](const Var& v) {
                 ++calls;
                 return elementwise(v, sine, cosine);
               },
               {.max_elements = 10, .key = key});
  };
  const GradientReport report = count({1, 1});
  CHECK(report.leaves[0].checked == 10);
  CHECK(report.leaves[0].total == 1000);
  CHECK(calls <= 4 + (10 + 2 * 2) * 12);  // the elements, and directions of two kinds
  CHECK(count({1, 1}).leaves[0].worst[0].index == report.leaves[0].worst[0].index);
}

TEST_CASE("one wrong element among 2,000 is found wherever it is", "[gradient_check]") {
  Tensor x(Shape{2000}, DType::f64);
  fill_normal(RngKey{3, 4}, x, 0, 2);
  const auto wrong_at = [&](std::int64_t place, double factor, const GradientCheckOptions& options = {}) {
    const double at = x.data<double>()[place];
    return run_one(
        x, sine, [at, factor](double v) { return v == at ? factor * std::cos(v) : std::cos(v); }, options);
  };
  CHECK(wrong_at(0, 1).verdict == GradientVerdict::ok);
  CHECK(wrong_at(0, 1).directions == 4);
  for (std::int64_t place = 0; place < 2000; place += 111) {
    for (const double factor : {0.0, -1.0, 1.01}) {
      const LeafReport leaf = wrong_at(place, factor);
      INFO("element " << place << " times " << factor);
      CHECK(leaf.verdict == GradientVerdict::fail);
      REQUIRE_FALSE(leaf.worst.empty());
      CHECK(leaf.worst[0].index == place);
      CHECK_THAT(leaf.hint, Contains("only 1 of"));
    }
  }
  CHECK(wrong_at(7, 0, {.max_elements = 1, .directions = 1}).verdict == GradientVerdict::fail);
}

TEST_CASE("an element that matters little is held to its own scale", "[gradient_check]") {
  // Gradients of 1 but for one: 10^-6, in many and in few elements.
  for (const std::int64_t total : {2000, 20}) {
    Tensor x = Tensor::full({total}, 0.5, DType::f64);
    x.mutable_data<double>()[13] = 1.5;
    const auto value = [](double v) { return v > 1 ? 1e-6 * v * v : v; };
    const auto slope = [](double factor) { return [factor](double v) { return v > 1 ? factor * 2e-6 * v : 1.0; }; };
    CHECK(run_one(x, value, slope(1)).verdict == GradientVerdict::ok);
    for (const double factor : {0.0, 2.0, 1.5, -1.0}) {
      const LeafReport leaf = run_one(x, value, slope(factor));
      INFO(total << " elements, times " << factor);
      CHECK(leaf.verdict == GradientVerdict::fail);
      CHECK(leaf.worst.at(0).index == 13);
    }
  }
  // Below the absolute tolerance, which is the most that is allowed and not what is.
  CHECK(run_one(
            points({0.5}), [](double v) { return 1e-10 * v; }, [](double) { return 2e-10; })
            .verdict == GradientVerdict::fail);
}

TEST_CASE("a difference that only all inputs together show is told", "[gradient_check]") {
  // x^2 y / (x^2 + y^2) at 0: both partial derivatives are 0, the derivative along a direction is not.
  const Tensor x = points({0}), y = points({0});
  const Var a = Var::leaf(x), b = Var::leaf(y);
  const auto f = [&] {
    const double u = x.item(), v = y.item();
    const Tensor out = Tensor::full({1}, u == 0 && v == 0 ? 0 : u * u * v / (u * u + v * v), DType::f64);
    return std::vector<Var>{record(ElementwiseRule{[](double) { return 0.0; }, Saved(x)}, {&a}, out)};
  };
  const GradientReport report = check_gradients(f, {{"x", x, a.leaf_id()}, {"y", y, b.leaf_id()}});
  REQUIRE(report.leaves.size() == 3);
  CHECK(report.leaves[0].verdict == GradientVerdict::ok);
  CHECK(report.leaves[2].verdict == GradientVerdict::fail);
  CHECK_THAT(report.leaves[2].hint, Contains("through all inputs"));
}

TEST_CASE("at ties and kinks any value between the slopes is right, and none outside", "[gradient_check]") {
  const auto relu = [](double v) { return v > 0 ? v : 0.0; };
  const Tensor x = Tensor::zeros({5}, DType::f64);
  const GradientCheckOptions at_kinks{.at_kinks = true};
  for (const double convention : {0.0, 0.5, 1.0}) {
    const LeafReport leaf = run_one(
        x, relu, [=](double) { return convention; }, at_kinks);
    CHECK(leaf.verdict == GradientVerdict::kink);
    CHECK(leaf.kinks == 5);
  }
  for (const double mistake : {-0.001, 1.001, 2.0}) {
    CHECK(run_one(
              x, relu, [=](double) { return mistake; }, at_kinks)
              .verdict == GradientVerdict::fail);
  }
  CHECK(run_one(x, relu, [](double) { return 0.0; }).verdict == GradientVerdict::fail);  // too many, undeclared
}

TEST_CASE("tolerances without meaning are refused", "[gradient_check]") {
  const double infinity = HUGE_VAL, nan = std::nan("");
  for (const double bad : {infinity, nan, -1e-9, 1e-3, 1.0}) {
    CHECK_THROWS_AS(run_one(points({1}), sine, cosine, {.rtol = bad}), ValueError);
    CHECK_THROWS_WITH(run_one(points({1}), sine, cosine, {.atol = bad}), Contains("0.1 % too large would pass"));
  }
  CHECK_THROWS_AS(run_one(points({1}), sine, cosine, {.atol = 0}), ValueError);
  CHECK(run_one(points({1}), sine, cosine, {.rtol = 0, .atol = 1e-8}).verdict == GradientVerdict::ok);
  // At the loosest that is allowed an injected bug still fails.
  CHECK(run_one(points({1}), sine, cosine, {.rtol = 1e-4, .atol = 1e-4, .injected_bug = 1.001}).verdict ==
        GradientVerdict::fail);
}

TEST_CASE("no row that passes shows a relative error near 1", "[gradient_check]") {
  // The gradient is zero but for rounding, on both sides of the comparison.
  const LeafReport leaf = run_one(
      points({0.5, 1.5, 2.5}), [](double v) { return v + 1e-14 * std::sin(1e3 * v); },
      [](double v) { return v > 2 ? 1.0 : 1 + 1e-15; });
  CHECK(leaf.verdict == GradientVerdict::ok);
  const LeafReport nothing = run_one(
      points({0.5}), [](double v) { return 1e-14 * v; }, [](double) { return 0.0; });
  CHECK(nothing.verdict == GradientVerdict::ok);
  CHECK(nothing.max_relative < 1e-5);
}

TEST_CASE("what cannot be checked is refused or named", "[gradient_check]") {
  const Tensor f32 = Tensor::full({2}, 1);
  CHECK_THROWS_AS(check_gradients([] { return std::vector<Var>{}; }, {{"x", f32, new_leaf_id()}}), DTypeError);
  const Tensor x = points({1, 2});
  const GradientReport none =
      check_gradients([] { return std::vector<Var>{Var(Tensor::arange(3))}; }, {{"x", x, new_leaf_id()}});
  CHECK(none.leaves[0].verdict == GradientVerdict::not_differentiable);
  CHECK(none.passed());
  // An exception leaves the inputs as they were.
  int calls = 0;
  const Tensor before = x.clone();
  const auto breaks = [&](const Var& v) {
    if (++calls == 6) throw ValueError("[f] breaks");
    return elementwise(v, sine, cosine);
  };
  CHECK_THROWS_AS(run(x, breaks), ValueError);
  CHECK(identical(x, before));
}

TEST_CASE("numeric derivatives carry an honest error", "[gradient_check]") {
  const auto derivative = [](const std::function<double(double)>& f) {
    return numeric_derivative([&](double delta) {
      const double to = f(delta), from = f(0);
      return Change{to - from, 2.2e-16 * std::max(std::abs(to), std::abs(from))};
    });
  };
  struct Case {
    std::function<double(double)> f;
    double truth;
  };
  const std::vector<Case> cases{
      {[](double v) { return std::exp(v); }, 1},
      {[](double v) { return std::sin(30 * v) / 30; }, 1},
      {[](double v) { return 1e4 + std::log1p(v); }, 1},
      {[](double v) { return 1 / (1 + std::exp(-12 - v)); }, 6.14413e-6},
      {[](double v) { return v * std::abs(v); }, 0},
  };
  for (const Case& one : cases) {
    const NumericDerivative found = derivative(one.f);
    CHECK_FALSE(found.kink);
    CHECK(std::abs(found.value - one.truth) <= found.error + 1e-11);
  }
  const NumericDerivative bend = derivative([](double v) { return v + std::abs(v); });
  CHECK(bend.kink);
  CHECK(bend.left == Approx(0).margin(1e-9));
  CHECK(bend.right == Approx(2));
}

}  // namespace gradient_check_test
