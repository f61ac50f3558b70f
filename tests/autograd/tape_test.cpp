#include "tally/autograd/tape.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <thread>

#include "tally/autograd/checkpoint.h"
#include "tally/core/memory.h"

namespace tape_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

// A small op of the test's own: y = a * b elementwise, in double.
struct ProductRule {
  static constexpr std::string_view name = "product";
  Saved a, b;
  void backward(BackwardContext& g) const {
    const Tensor gy = g.cotangent();
    const auto times = [&](const Tensor& x) {
      Tensor out(x.shape(), x.dtype());
      double* to = out.mutable_data<double>();
      for (std::int64_t i = 0; i < x.numel(); ++i) to[i] = gy.data<double>()[i] * x.data<double>()[i];
      return out;
    };
    if (g.needs(0)) g.give(0, times(b.get()));
    if (g.needs(1)) g.give(1, times(a.get()));
  }
};

Var product(const Var& a, const Var& b) {
  Tensor out(a.shape(), DType::f64);
  double* to = out.mutable_data<double>();
  for (std::int64_t i = 0; i < a.numel(); ++i) to[i] = a.value().data<double>()[i] * b.value().data<double>()[i];
  return record(ProductRule{Saved(a.value(), b.tracked()), Saved(b.value(), a.tracked())}, {&a, &b}, out);
}

struct ThrowingRule {
  static constexpr std::string_view name = "throwing";
  void backward(BackwardContext&) const { throw ValueError("[throwing] on purpose"); }
};

struct WrongShapeRule {
  static constexpr std::string_view name = "wrong_shape";
  void backward(BackwardContext& g) const { g.give(0, Tensor::zeros({7}, DType::f64)); }
};

// Two outputs: x and 2x.
struct TwoRule {
  static constexpr std::string_view name = "two";
  void backward(BackwardContext& g) const {
    Tensor out(g.cotangent(0).shape(), DType::f64);
    for (std::int64_t i = 0; i < out.numel(); ++i) {
      out.mutable_data<double>()[i] = g.cotangent(0).data<double>()[i] + 2 * g.cotangent(1).data<double>()[i];
    }
    g.give(0, out);
  }
};

Tensor vec(std::initializer_list<double> values) {
  return Tensor::from<double>(values, {static_cast<std::int64_t>(values.size())});
}
Tensor one(double value) { return Tensor::full({1}, value, DType::f64); }

}  // namespace

TEST_CASE("gradients of a diamond add up", "[tape]") {
  Tape tape;
  const Var x = tape.input(one(3));
  Var y;
  {
    const Recording on(tape);
    const Var square = product(x, x);
    y = product(square, square);
  }
  const Gradients gradients = tape.backward(y);
  CHECK(gradients[x].item() == Approx(4 * 27));
}

TEST_CASE("nothing is recorded without a Recording, nor for constants", "[tape]") {
  Tape tape;
  const Var x = tape.input(one(3));
  CHECK_FALSE(product(x, x).tracked());
  const Recording on(tape);
  CHECK_FALSE(product(one(1), one(2)).tracked());
  CHECK(tape.size() == 0);
  CHECK(product(x, one(2)).tracked());
  CHECK(tape.size() == 1);
}

TEST_CASE("backward takes several outputs with cotangents", "[tape]") {
  Tape tape;
  const Var x = tape.input(vec({1, 2, 3}));
  std::vector<Var> outputs;
  {
    const Recording on(tape);
    outputs.push_back(product(x, vec({10, 20, 30})));
    outputs.push_back(product(x, x));
  }
  const std::vector<Tensor> cotangents{vec({1, 0, 2}), vec({0, 1, 1})};
  CHECK(tape.backward(outputs, cotangents)[x].to_doubles() == std::vector<double>{10, 4, 60 + 6});
}

TEST_CASE("an output that no cotangent reached counts as zeros", "[tape]") {
  for (const int which : {0, 1}) {
    Tape tape;
    const Var x = tape.input(vec({1, 2}));
    std::vector<Var> pair;
    {
      const Recording on(tape);
      const Var* inputs[] = {&x};
      pair = record(TwoRule{}, inputs, {vec({1, 2}), vec({2, 4})});
    }
    const Tensor seed = vec({1, 1});
    const Var& output = pair[static_cast<std::size_t>(which)];
    CHECK(tape.backward(std::span(&output, 1), std::span(&seed, 1))[x].to_doubles() ==
          std::vector<double>(2, which + 1.0));
  }
}

TEST_CASE("a leaf that is its own output gets the cotangent", "[tape]") {
  Tape tape;
  const Var x = tape.input(one(3));
  CHECK(tape.backward(x)[x].item() == 1);
}

TEST_CASE("stale Vars are refused with advice", "[tape]") {
  Tape first;
  const Var x = first.input(one(3));
  Var total;
  {
    const Recording on(first);
    total = product(x, x);
  }
  first.backward(total);
  Tape second;
  const Recording on(second);
  CHECK_THROWS_WITH(product(total, x), Contains("detach()") && Contains("product"));
  CHECK_NOTHROW(product(total.detach(), x));
}

TEST_CASE("a second backward says what to do", "[tape]") {
  Tape tape;
  const Var x = tape.input(one(3));
  Var y;
  {
    const Recording on(tape);
    y = product(x, x);
  }
  tape.backward(y);
  CHECK_THROWS_WITH(tape.backward(y), Contains("record the computation again"));
  const Recording on(tape);
  CHECK_THROWS_WITH(product(x, x), Contains("new Tape"));
  tape.clear();
  CHECK_NOTHROW(product(x, x));
}

TEST_CASE("an overwritten saved tensor is noticed", "[tape]") {
  Tape tape;
  Tensor value = one(3);
  const Var x = tape.input(value);
  Var y;
  {
    const Recording on(tape);
    y = product(x, x);
  }
  value.fill(4);
  CHECK_THROWS_WITH(tape.backward(y), Contains("[product]") && Contains("overwritten"));
}

TEST_CASE("a view shares the version of what it views", "[tape]") {
  Tape tape;
  Tensor table = vec({1, 2, 3});
  const Var x = tape.input(table.slice(0, 1, 2));
  Var y;
  {
    const Recording on(tape);
    y = product(x, x);
  }
  table.mutable_data<double>()[0] = 5;
  CHECK_THROWS_AS(tape.backward(y), AutogradError);
}

TEST_CASE("an exception inside a rule leaves the tape clean", "[tape]") {
  Tape tape;
  const Var x = tape.input(one(3));
  const std::int64_t before = memory_stats().active_bytes;
  {
    Var y;
    {
      const Recording on(tape);
      const Var square = product(x, x);
      y = record(ThrowingRule{}, {&square}, one(1));
    }
    CHECK_THROWS_AS(tape.backward(y), ValueError);
  }
  CHECK(tape.size() == 0);
  CHECK(memory_stats().active_bytes == before);
  CHECK(Tape::current() == nullptr);
}

TEST_CASE("a gradient of the wrong shape names the op", "[tape]") {
  Tape tape;
  const Var x = tape.input(one(3));
  Var y;
  {
    const Recording on(tape);
    y = record(WrongShapeRule{}, {&x}, one(1));
  }
  CHECK_THROWS_WITH(tape.backward(y), Contains("wrong_shape") && Contains("[7]"));
}

namespace {

enum class Mistake { gives_input, gives_rows, needs_input, asks_output, takes_output, gives_nothing };

struct MistakenRule {
  static constexpr std::string_view name = "mistaken";
  Mistake mistake;
  void backward(BackwardContext& g) const {
    switch (mistake) {
      case Mistake::gives_input:
        return g.give(3, one(1));
      case Mistake::gives_rows:
        return g.give(-1, RowGrad{Tensor::zeros({0}, DType::i64), Tensor::zeros({0}, DType::f64), {1}});
      case Mistake::needs_input:
        return static_cast<void>(g.needs(1));
      case Mistake::asks_output:
        return static_cast<void>(g.cotangent(1));
      case Mistake::takes_output:
        return static_cast<void>(g.has_cotangent(-1));
      case Mistake::gives_nothing:
        return g.give(0, Tensor());
    }
  }
};

}  // namespace

TEST_CASE("a rule that speaks of what its op does not have is told so", "[tape]") {
  const std::pair<Mistake, const char*> mistakes[] = {{Mistake::gives_input, "input 3, and was recorded with 1"},
                                                      {Mistake::gives_rows, "input -1, and was recorded with 1"},
                                                      {Mistake::needs_input, "input 1, and was recorded with 1"},
                                                      {Mistake::asks_output, "output 1, and was recorded with 1"},
                                                      {Mistake::takes_output, "output -1, and was recorded with 1"},
                                                      {Mistake::gives_nothing, "an undefined tensor"}};
  for (const auto& [mistake, text] : mistakes) {
    const Var x = Var::leaf(one(3));
    CHECK_THROWS_AS(value_and_gradients([&] { return record(MistakenRule{mistake}, {&x}, one(1)); }), AutogradError);
    CHECK_THROWS_WITH(value_and_gradients([&] { return record(MistakenRule{mistake}, {&x}, one(1)); }),
                      Contains("[mistaken]") && Contains(text));
  }
}

TEST_CASE("a loss without leaves says what it may be", "[tape]") {
  CHECK_THROWS_WITH(value_and_gradients([] { return product(one(1), one(2)); }),
                    Contains("needs a loss that depends on a leaf") && Contains("frozen"));
}

TEST_CASE("non-finite values are traced to the op that made them", "[tape]") {
  Tape tape;
  tape.trace_non_finite(true);
  const Var x = tape.input(one(1e200));
  const Recording on(tape);
  const Var square = product(x, one(1));
  CHECK_THROWS_WITH(product(square, square), Contains("[product]") && Contains("non-finite"));
}

TEST_CASE("value_and_gradients names the op that made the first NaN when asked to", "[tape]") {
  const Var x = Var::leaf(one(1e200));
  const auto overflowing = [&] {
    const Var square = product(x, x);
    return product(square, one(0));
  };
  CHECK(std::isnan(value_and_gradients(overflowing).value.item()));
  CHECK_THROWS_WITH(value_and_gradients(overflowing, {.trace_non_finite = true}),
                    Contains("[product]") && Contains("non-finite"));
  const auto [value, gradients] = value_and_gradients([&] { return product(x, one(2)); }, {.trace_non_finite = true});
  CHECK(gradients[x].item() == 2);
}

TEST_CASE("a chain of a million nodes works", "[tape]") {
  Tape tape;
  const Var x = tape.input(one(1));
  Var y = x;
  {
    const Recording on(tape);
    const Var factor(one(1));
    for (int i = 0; i < 1000000; ++i) y = product(y, factor);
  }
  CHECK(tape.size() == 1000000);
  CHECK(tape.backward(y)[x].item() == 1);
}

TEST_CASE("memory falls during backward", "[tape]") {
  Tape tape;
  const Tensor start = Tensor::full({32768}, 1, DType::f64);
  const Var x = tape.input(start);
  Var y = x;
  {
    const Recording on(tape);
    for (int i = 0; i < 40; ++i) y = product(y, y);
  }
  const Tensor seed = Tensor::full(start.shape(), 1, DType::f64);
  const MemoryScope scope;
  {
    const Gradients gradients = tape.backward(std::span(&y, 1), std::span(&seed, 1));
    CHECK(gradients[x].numel() == 32768);
  }
  const std::int64_t tensor_bytes = 32768 * 8;
  CHECK(scope.peak() <= 3 * tensor_bytes);      // gradients in flight, never one per node
  CHECK(scope.change() <= -38 * tensor_bytes);  // what the nodes had saved is gone; y itself lives
}

TEST_CASE("a tape may be moved and entered again on another thread", "[tape]") {
  Tape tape;
  const Var x = tape.input(one(2));
  Var y;
  {
    const Recording on(tape);
    y = product(x, x);
  }
  Tape moved = std::move(tape);
  Var z;
  std::thread([&] {
    const Recording on(moved);
    z = product(y, x);
  }).join();
  CHECK(moved.backward(z)[x].item() == Approx(12));
}

TEST_CASE("nested recordings restore the outer tape", "[tape]") {
  Tape outer, inner;
  const Recording on(outer);
  {
    const Recording in(inner);
    CHECK(Tape::current() == &inner);
    {
      const Paused paused;
      CHECK(Tape::current() == nullptr);
    }
  }
  CHECK(Tape::current() == &outer);
}

TEST_CASE("row gradients gather, merge and densify in order", "[gradients]") {
  const Tensor rows = Tensor::from<std::int32_t>({2, 0, 2}, {3});
  const RowGrad a = RowGrad::gather(rows, vec({1, 2, 3, 4, 5, 6}).reshape({3, 2}), {4, 2});
  CHECK(a.rows.to_doubles() == std::vector<double>{0, 2});
  CHECK(a.values.to_doubles() == std::vector<double>{3, 4, 6, 8});
  const RowGrad b{Tensor::from<std::int64_t>({2, 3}, {2}), vec({10, 10, 20, 20}).reshape({2, 2}), {4, 2}};
  const Gradient sum = add(Gradient(a), Gradient(b));
  CHECK(std::get<RowGrad>(sum).rows.to_doubles() == std::vector<double>{0, 2, 3});
  CHECK(to_dense(sum).to_doubles() == std::vector<double>{3, 4, 0, 0, 16, 18, 20, 20});
  const Tensor dense = Tensor::full({4, 2}, 1, DType::f64);
  const Gradient mixed = add(Gradient(b), Gradient(dense));
  CHECK(to_dense(mixed).to_doubles() == std::vector<double>{1, 1, 1, 1, 11, 11, 21, 21});
  CHECK(dense.to_doubles() == std::vector<double>(8, 1));  // not written through
  CHECK_THROWS_AS(RowGrad::gather(Tensor::from<std::int64_t>({4}, {1}), vec({1, 2}).reshape({1, 2}), {4, 2}),
                  IndexError);
  CHECK(RowGrad::gather(Tensor({0}, DType::i64), Tensor({0, 2}, DType::f64), {4, 2}).to_dense().to_doubles() ==
        std::vector<double>(8, 0));
}

TEST_CASE("a leaf's row gradient is laid out as a dense one", "[gradients]") {
  const Var table = Var::leaf(Tensor::zeros({3, 2}, DType::f64)), other = Var::leaf(Tensor::zeros({1}, DType::f64));
  Gradients gradients;
  gradients.make_dense(table.leaf_id());
  CHECK(gradients.size() == 0);
  gradients.add(table.leaf_id(), RowGrad{Tensor::from<std::int64_t>({2}, {1}), vec({5, 7}).reshape({1, 2}), {3, 2}});
  gradients.add(other.leaf_id(), vec({9}));
  for (int twice = 0; twice < 2; ++twice) {
    gradients.make_dense(table.leaf_id());
    CHECK(std::get<Tensor>(*gradients.find(table.leaf_id())).to_doubles() == std::vector<double>{0, 0, 0, 0, 5, 7});
  }
  CHECK(gradients[other].to_doubles() == std::vector<double>{9});
}

TEST_CASE("checkpointing recomputes and gives the same gradients with less memory", "[checkpoint]") {
  const Tensor start = Tensor::full({4096}, 1.0001, DType::f64);
  const Var parameter = Var::leaf(Tensor::full({4096}, 0.999, DType::f64));
  const auto block = [&](std::span<const Var> in) {
    Var y = in[0];
    for (int i = 0; i < 8; ++i) y = product(product(y, y), parameter);
    return y;
  };
  const auto run = [&](bool recompute, std::int64_t& held) {
    Tape tape;
    const Var x = tape.input(start);
    Var y;
    const MemoryScope scope;
    {
      const Recording on(tape);
      y = recompute ? checkpoint(block, std::span(&x, 1)) : block(std::span(&x, 1));
    }
    held = scope.change();
    const Tensor seed = Tensor::full(start.shape(), 1, DType::f64);
    const Gradients gradients = tape.backward(std::span(&y, 1), std::span(&seed, 1));
    return std::pair(gradients[x], gradients[parameter]);
  };
  std::int64_t plain_held = 0, checkpoint_held = 0;
  const auto plain = run(false, plain_held);
  const auto recomputed = run(true, checkpoint_held);
  CHECK(identical(plain.first, recomputed.first));
  CHECK(identical(plain.second, recomputed.second));
  CHECK(checkpoint_held * 8 < plain_held);
}

TEST_CASE("a watch is told of ops in their order, forward and back", "[tape]") {
  struct Watch final : TapeWatch {
    std::vector<std::string> events;
    void recorded(std::string_view op, std::span<const Var* const> inputs, std::span<const Tensor> outputs) override {
      events.push_back(std::string(op) + " " + std::to_string(inputs.size()) + " " + std::to_string(outputs.size()));
    }
    void backward_begins() override { events.emplace_back("backward"); }
    void differentiated(std::string_view op) override { events.push_back("d " + std::string(op)); }
  } watch;
  Tape tape;
  const Var x = tape.input(Tensor::full({2}, 3, DType::f64));
  Var y;
  {
    const Recording on(tape);
    tape.watch(&watch);
    y = product(product(x, x), x);
    product(x, x);  // reached by no cotangent
  }
  tape.backward(std::vector{y}, std::vector{Tensor::full({2}, 1, DType::f64)});
  CHECK(watch.events ==
        std::vector<std::string>{"product 2 1", "product 2 1", "product 2 1", "backward", "d product", "d product"});
}

}  // namespace tape_test
