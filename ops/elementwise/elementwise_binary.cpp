#include <cmath>
#include <limits>
#include <string>

#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/broadcast.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/elementwise.h"

namespace tally::ops {
namespace {

using kernels::BinaryOp;

void check_types(std::string_view op, const Var& a, const Var& b) {
  check<DTypeError>(a.dtype() == b.dtype() && is_floating(a.dtype()), op, "needs equal floating types; got ", a.dtype(),
                    a.shape(), " and ", b.dtype(), b.shape());
}

/// op(a, b) of equal shapes, in the shape of both.
Tensor combine(BinaryOp op, const Tensor& a, const Tensor& b) { return broadcast_binary(op, a, b, a.shape()); }

Tensor negated(const Tensor& x) { return combine(BinaryOp::multiply, x, Tensor::scalar(-1, x.dtype())); }

struct AddRule {
  static constexpr std::string_view name = "add";
  Shape a, b;

  void backward(BackwardContext& g) const {
    if (g.needs(0)) g.give(0, sum_to(g.cotangent(), a));
    if (g.needs(1)) g.give(1, sum_to(g.cotangent(), b));
  }
};

struct SubtractRule {
  static constexpr std::string_view name = "subtract";
  Shape a, b;

  void backward(BackwardContext& g) const {
    if (g.needs(0)) g.give(0, sum_to(g.cotangent(), a));
    if (g.needs(1)) g.give(1, negated(sum_to(g.cotangent(), b)));
  }
};

struct MultiplyRule {
  static constexpr std::string_view name = "multiply";
  Shape a_shape, b_shape;
  Saved a, b;

  void backward(BackwardContext& g) const {
    if (g.needs(0)) g.give(0, sum_to(combine(BinaryOp::multiply, g.cotangent(), b.get()), a_shape));
    if (g.needs(1)) g.give(1, sum_to(combine(BinaryOp::multiply, g.cotangent(), a.get()), b_shape));
  }
};

/// gy quotient / b, b broadcast to the shape of both.
Tensor times_quotient(const Tensor& gy, const Tensor& quotient, const Tensor& b) {
  const Tensor divisor = b.contiguous();
  Tensor result(gy.shape(), gy.dtype());
  dispatch_floating(gy.dtype(), "divide", [&]<class T>(T) {
    const T *pg = gy.data<T>(), *pq = quotient.data<T>(), *pb = divisor.data<T>();
    T* y = result.mutable_data<T>();
    BroadcastLoop(gy.shape(), {&gy.shape(), &divisor.shape()}).run([&](const BroadcastLoop::Run& run) {
      kernels::times_quotient(pg + run.output, pq + run.output,
                              kernels::RowOperand<T>{pb + run.offset[1], run.row_stride[1], run.step[1]},
                              y + run.output, run.rows, run.n);
    });
  });
  return result;
}

struct DivideRule {
  static constexpr std::string_view name = "divide";
  Shape a_shape, b_shape;
  Saved b, quotient;

  void backward(BackwardContext& g) const {
    const Tensor& gy = g.cotangent();
    if (g.needs(1)) g.give(1, negated(sum_to(times_quotient(gy, quotient.get(), b.get()), b_shape)));
    if (g.needs(0)) g.give(0, sum_to(combine(BinaryOp::divide, gy, b.get()), a_shape));
  }
};

/// maximum, minimum and power: a rule for each, so that every node tells its name.
template <BinaryOp kOp>
struct BinaryRule {
  static constexpr std::string_view name = kOp == BinaryOp::maximum   ? "maximum"
                                           : kOp == BinaryOp::minimum ? "minimum"
                                                                      : "tensor_power";
  Saved a, b;

  void backward(BackwardContext& g) const {
    for (const int side : {0, 1}) {
      if (g.needs(side)) g.give(side, sum_to(slopes(g.cotangent(), side == 1), (side == 0 ? a : b).get().shape()));
    }
  }

 private:
  /// The gradient of a or of b, in the shape of the cotangent.
  Tensor slopes(const Tensor& gy, bool by_second) const {
    const Tensor left = a.get().contiguous(), right = b.get().contiguous();
    Tensor result(gy.shape(), gy.dtype());
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      const T *pg = gy.data<T>(), *pa = left.data<T>(), *pb = right.data<T>();
      T* y = result.mutable_data<T>();
      BroadcastLoop(gy.shape(), {&left.shape(), &right.shape()}).run([&](const BroadcastLoop::Run& run) {
        kernels::binary_backward_rows(kOp, by_second, pg + run.output,
                                      kernels::RowOperand<T>{pa + run.offset[0], run.row_stride[0], run.step[0]},
                                      kernels::RowOperand<T>{pb + run.offset[1], run.row_stride[1], run.step[1]},
                                      y + run.output, run.rows, run.n);
      });
    });
    return result;
  }
};

Tensor forward(std::string_view op, BinaryOp kind, const Var& a, const Var& b) {
  check_types(op, a, b);
  return broadcast_binary(kind, a.value(), b.value(), broadcast_shape(op, {&a.shape(), &b.shape()}));
}

template <BinaryOp kOp>
Var apply_binary(const Var& a, const Var& b) {
  using Rule = BinaryRule<kOp>;
  Tensor y = forward(Rule::name, kOp, a, b);
  return record(Rule{Saved(a.value()), Saved(b.value())}, {&a, &b}, std::move(y));
}

struct WhereRule {
  static constexpr std::string_view name = "where";
  Shape a, b;
  Saved mask;

  void backward(BackwardContext& g) const;
};

/// Element by element in the shape `output`: a where the mask is not 0, else b.
Tensor select(const Tensor& mask, const Tensor& a, const Tensor& b, const Shape& output) {
  const Tensor flags = mask.contiguous(), left = a.contiguous(), right = b.contiguous();
  Tensor result(output, a.dtype());
  dispatch_all(a.dtype(), [&]<class T>(T) {
    const std::uint8_t* pm = flags.data<std::uint8_t>();
    const T *pa = left.data<T>(), *pb = right.data<T>();
    T* y = result.mutable_data<T>();
    BroadcastLoop(output, {&flags.shape(), &left.shape(), &right.shape()}).run([&](const BroadcastLoop::Run& run) {
      kernels::select_rows(kernels::RowOperand<std::uint8_t>{pm + run.offset[0], run.row_stride[0], run.step[0]},
                           kernels::RowOperand<T>{pa + run.offset[1], run.row_stride[1], run.step[1]},
                           kernels::RowOperand<T>{pb + run.offset[2], run.row_stride[2], run.step[2]}, y + run.output,
                           run.rows, run.n);
    });
  });
  return result;
}

void WhereRule::backward(BackwardContext& g) const {
  const Tensor& gy = g.cotangent();
  const Tensor zero = Tensor::scalar(0, gy.dtype());
  if (g.needs(0)) g.give(0, sum_to(select(mask.get(), gy, zero, gy.shape()), a));
  if (g.needs(1)) g.give(1, sum_to(select(mask.get(), zero, gy, gy.shape()), b));
}

/// The mask of op(a, b).
Tensor compare(std::string_view name, kernels::CompareOp op, const Var& a, const Var& b) {
  check<DTypeError>(a.dtype() == b.dtype(), name, "needs operands of one type; got ", a.dtype(), a.shape(), " and ",
                    b.dtype(), b.shape());
  const Tensor left = a.value().contiguous(), right = b.value().contiguous();
  Tensor mask(broadcast_shape(name, {&a.shape(), &b.shape()}), DType::u8);
  dispatch_all(a.dtype(), [&]<class T>(T) {
    const T *pa = left.data<T>(), *pb = right.data<T>();
    std::uint8_t* y = mask.mutable_data<std::uint8_t>();
    BroadcastLoop(mask.shape(), {&left.shape(), &right.shape()}).run([&](const BroadcastLoop::Run& run) {
      kernels::compare_rows(op, kernels::RowOperand<T>{pa + run.offset[0], run.row_stride[0], run.step[0]},
                            kernels::RowOperand<T>{pb + run.offset[1], run.row_stride[1], run.step[1]}, y + run.output,
                            run.rows, run.n);
    });
  });
  return mask;
}

}  // namespace

Var add(const Var& a, const Var& b) {
  Tensor y = forward("add", BinaryOp::add, a, b);
  return record(AddRule{a.shape(), b.shape()}, {&a, &b}, std::move(y));
}

Var subtract(const Var& a, const Var& b) {
  Tensor y = forward("subtract", BinaryOp::subtract, a, b);
  return record(SubtractRule{a.shape(), b.shape()}, {&a, &b}, std::move(y));
}

Var multiply(const Var& a, const Var& b) {
  Tensor y = forward("multiply", BinaryOp::multiply, a, b);
  MultiplyRule rule{a.shape(), b.shape(), Saved(a.value(), b.tracked()), Saved(b.value(), a.tracked())};
  return record(std::move(rule), {&a, &b}, std::move(y));
}

Var divide(const Var& a, const Var& b) {
  Tensor y = forward("divide", BinaryOp::divide, a, b);
  DivideRule rule{a.shape(), b.shape(), Saved(b.value()), Saved(y, b.tracked())};
  return record(std::move(rule), {&a, &b}, std::move(y));
}

Var maximum(const Var& a, const Var& b) { return apply_binary<BinaryOp::maximum>(a, b); }
Var minimum(const Var& a, const Var& b) { return apply_binary<BinaryOp::minimum>(a, b); }
Var power(const Var& base, const Var& exponent) { return apply_binary<BinaryOp::power>(base, exponent); }

Tensor equal(const Var& a, const Var& b) { return compare("equal", kernels::CompareOp::equal, a, b); }
Tensor not_equal(const Var& a, const Var& b) { return compare("not_equal", kernels::CompareOp::not_equal, a, b); }
Tensor less(const Var& a, const Var& b) { return compare("less", kernels::CompareOp::less, a, b); }
Tensor less_equal(const Var& a, const Var& b) { return compare("less_equal", kernels::CompareOp::less_equal, a, b); }
Tensor greater(const Var& a, const Var& b) { return compare("greater", kernels::CompareOp::less, b, a); }
Tensor greater_equal(const Var& a, const Var& b) {
  return compare("greater_equal", kernels::CompareOp::less_equal, b, a);
}

Var where(const Tensor& mask, const Var& a, const Var& b) {
  check<DTypeError>(a.dtype() == b.dtype(), "where", "needs operands of one type; got ", a.dtype(), a.shape(), " and ",
                    b.dtype(), b.shape());
  check<DTypeError>(mask.dtype() == DType::u8, "where", "needs a u8 mask; got ", mask.dtype(), mask.shape());
  const Shape output = broadcast_shape("where", {&mask.shape(), &a.shape(), &b.shape()});
  Tensor y = select(mask, a.value(), b.value(), output);
  return record(WhereRule{a.shape(), b.shape(), Saved(mask)}, {&a, &b}, std::move(y));
}

// ---- Catalog

namespace {

/// Values at least 0.5 away from 0, of both signs: divisors.
Tensor away_from_zero(const Shape& shape, std::uint64_t stream) {
  Tensor values = sample_normal(shape, stream);
  for (double& value : values.mutable_span<double>()) value += value < 0 ? -0.5 : 0.5;
  return values;
}

/// Pairs of shapes that broadcast in every way.
std::vector<std::pair<std::string, std::pair<Shape, Shape>>> broadcast_pairs() {
  return {
      {"odd", {{3, 5}, {3, 5}}},
      {"row", {{4, 7}, {7}}},
      {"row first", {{7}, {4, 7}}},
      {"column", {{4, 7}, {4, 1}}},
      {"row and column", {{1, 5}, {3, 1}}},
      {"scalar", {{3, 5}, {}}},
      {"scalar first", {{}, {6}}},
      {"one", {{1}, {1, 1}}},
      {"middle", {{2, 1, 3}, {2, 4, 3}}},
      {"outer and inner", {{2, 1, 3, 1}, {1, 2, 1, 2}}},
      {"empty", {{0, 3}, {1, 3}}},
      {"empty by broadcasting", {{2, 1}, {2, 0}}},
  };
}

/// What the entries of two operands differ in.
struct BinaryEntry {
  std::string name, summary;
  Var (*call)(const Var&, const Var&);
  bool positive = false;  ///< a above 0
  bool kinks = false;     ///< where a = b
};

std::vector<Tensor> binary_operands(const BinaryEntry& entry, const Shape& a, const Shape& b) {
  Tensor left = sample_normal(a, 1);
  if (entry.positive) {
    for (double& value : left.mutable_span<double>()) value = 0.1 + std::abs(value);
  }
  return {left, away_from_zero(b, 2)};
}

std::vector<OpSample> binary_samples(const BinaryEntry& entry) {
  std::vector<OpSample> samples;
  for (const auto& [label, shapes] : broadcast_pairs()) {
    samples.push_back({label, binary_operands(entry, shapes.first, shapes.second)});
  }
  samples.push_back({"wide", binary_operands(entry, {2, 67}, {67})});
  if (entry.kinks) {
    samples.push_back(
        {"at kinks", {Tensor::from({1.0, -2.0, 0.0}, {3}), Tensor::from({1.0, -2.0, 0.5}, {3})}, {}, true, true});
  }
  const Tensor a =
      entry.positive ? Tensor::from({1e15, 1e-15, 1e-10, 0.0}, {4}) : Tensor::from({1e15, -1e-15, 1e-10, 0.0}, {4});
  const Tensor b =
      entry.positive ? Tensor::from({-2.0, 2.0, 0.0, 0.5}, {4}) : Tensor::from({-1e10, 1e-15, 1e15, 1e-30}, {4});
  samples.push_back({"extreme", {a, b}, {}, false});
  return samples;
}

void add_binary(Catalog& catalog, const BinaryEntry& entry) {
  catalog.add({
      .name = entry.name,
      .summary = entry.summary + "; shapes broadcast.",
      .inputs = {{"a", "[...]"}, {"b", "[...]"}},
      .outputs = {{"y", "[...] the broadcast shape"}},
      .call = [call = entry.call](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {call(in[0], in[1])};
      },
      .samples = [entry] { return binary_samples(entry); },
      .errors =
          [] {
            return std::vector<OpError>{
                {"shapes", {sample_normal({2, 3}, 1), sample_normal({4, 3}, 2)}, {}, "got [2, 3] and [4, 3]"},
                {"types",
                 {sample_normal({2}, 1), sample_normal({2}, 2).to(DType::f32)},
                 {},
                 "needs equal floating types"},
                {"integers",
                 {sample_integers({2}, 1, 3), sample_integers({2}, 1, 3)},
                 {},
                 "needs equal floating types; got i64"},
            };
          },
      .large =
          [entry] {
            return OpSample{"large", binary_operands(entry, {2048, 256}, {256})};
          },
      .kinks = entry.kinks,
  });
}

void add_comparison(Catalog& catalog, const std::string& name, const std::string& summary,
                    Tensor (*call)(const Var&, const Var&)) {
  const std::string reason = "a mask does not move with it";
  catalog.add({
      .name = name,
      .summary = summary + " as a mask of 1 and 0; shapes broadcast.",
      .inputs = {{.name = "a", .shape = "[...]", .kind = InputKind::constant, .no_gradient = reason},
                 {.name = "b", .shape = "[...]", .kind = InputKind::constant, .no_gradient = reason}},
      .outputs = {{"mask", "[...] the broadcast shape, u8"}},
      .call = [call](std::span<const Var> in, const OpOptions&) -> std::vector<Var> { return {call(in[0], in[1])}; },
      .samples =
          [] {
            std::vector<OpSample> samples;
            for (const auto& [label, shapes] : broadcast_pairs()) {
              // Of few values, so that many are equal.
              samples.push_back({label,
                                 {sample_integers(shapes.first, 1, 3).to(DType::f64),
                                  sample_integers(shapes.second, 2, 3).to(DType::f64)}});
            }
            const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
            samples.push_back({"extreme",
                               {Tensor::from({nan, nan, 1.0, infinity, -infinity, 0.0, 1e-30}, {7}),
                                Tensor::from({nan, 1.0, nan, infinity, infinity, -0.0, -1e-30}, {7})}});
            samples.push_back({"wide", {sample_normal({2, 67}, 3), sample_normal({67}, 4)}});
            return samples;
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"shapes", {sample_normal({2, 3}, 1), sample_normal({4, 3}, 2)}, {}, "aligned at the last dimension"},
                {"types",
                 {sample_normal({2}, 1), sample_normal({2}, 2).to(DType::f32)},
                 {},
                 "needs operands of one type"},
            };
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({2048, 256}, 1), sample_normal({2048, 256}, 2)}};
          },
  });
}

}  // namespace

void entries::add_elementwise_binary(Catalog& catalog) {
  add_binary(catalog, {"add", "a + b", add});
  add_binary(catalog, {"subtract", "a - b", subtract});
  add_binary(catalog, {"multiply", "a b", multiply});
  add_binary(catalog, {"divide", "a / b", divide});
  add_binary(catalog,
             {"maximum", "The larger of a and b, half of the gradient to each of equals", maximum, false, true});
  add_binary(catalog,
             {"minimum", "The smaller of a and b, half of the gradient to each of equals", minimum, false, true});
  add_binary(catalog, {"tensor_power", "a^b, as std::pow in double", power, true});
  add_comparison(catalog, "equal", "a = b", equal);
  add_comparison(catalog, "not_equal", "a other than b", not_equal);
  add_comparison(catalog, "less", "a < b", less);
  add_comparison(catalog, "less_equal", "a <= b", less_equal);
  add_comparison(catalog, "greater", "a > b", greater);
  add_comparison(catalog, "greater_equal", "a >= b", greater_equal);
  catalog.add({
      .name = "where",
      .summary = "a where the mask is not 0, else b; shapes broadcast.",
      .inputs = {{"mask", "[...]", InputKind::integer, false, "u8"}, {"a", "[...]"}, {"b", "[...]"}},
      .outputs = {{"y", "[...] the broadcast shape"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {where(in[0].value(), in[1], in[2])};
      },
      .samples =
          [] {
            const auto mask = [](const Shape& shape) { return sample_integers(shape, 5, 2).to(DType::u8); };
            std::vector<OpSample> samples;
            for (const auto& [label, shapes] : broadcast_pairs()) {
              const Shape both = broadcast_shape("where", {&shapes.first, &shapes.second});
              samples.push_back({label, {mask(both), sample_normal(shapes.first, 1), sample_normal(shapes.second, 2)}});
            }
            samples.push_back({"mask of rows", {mask({4, 1}), sample_normal({4, 3}, 1), sample_normal({3}, 2)}});
            samples.push_back({"one mask", {mask({1}), sample_normal({5}, 1), sample_normal({}, 2)}});
            return samples;
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"mask type",
                 {sample_integers({2}, 1, 2), sample_normal({2}, 1), sample_normal({2}, 2)},
                 {},
                 "u8 mask"},
                {"shapes",
                 {sample_integers({3}, 1, 2).to(DType::u8), sample_normal({2}, 1), sample_normal({2}, 2)},
                 {},
                 "got [3] and [2] and [2]"},
                {"types",
                 {sample_integers({2}, 1, 2).to(DType::u8), sample_normal({2}, 1), sample_integers({2}, 2, 9)},
                 {},
                 "operands of one type"},
            };
          },
      .large =
          [] {
            return OpSample{"large",
                            {sample_integers({2048, 1}, 5, 2).to(DType::u8), sample_normal({2048, 256}, 1),
                             sample_normal({256}, 2)}};
          },
  });
}

}  // namespace tally::ops

namespace tally {
namespace {

/// A number as a constant operand.
Var constant(double value, const Var& other) { return Tensor::scalar(value, other.dtype()); }

}  // namespace

Var operator+(const Var& a, const Var& b) { return ops::add(a, b); }
Var operator-(const Var& a, const Var& b) { return ops::subtract(a, b); }
Var operator*(const Var& a, const Var& b) { return ops::multiply(a, b); }
Var operator/(const Var& a, const Var& b) { return ops::divide(a, b); }
Var operator+(const Var& a, double b) { return ops::add(a, constant(b, a)); }
Var operator+(double a, const Var& b) { return ops::add(constant(a, b), b); }
Var operator-(const Var& a, double b) { return ops::subtract(a, constant(b, a)); }
Var operator-(double a, const Var& b) { return ops::subtract(constant(a, b), b); }
Var operator*(const Var& a, double b) { return ops::multiply(a, constant(b, a)); }
Var operator*(double a, const Var& b) { return ops::multiply(constant(a, b), b); }
Var operator/(const Var& a, double b) { return ops::divide(a, constant(b, a)); }
Var operator/(double a, const Var& b) { return ops::divide(constant(a, b), b); }
Var operator-(const Var& x) { return ops::negate(x); }
Var& operator+=(Var& a, const Var& b) { return a = a + b; }
Var& operator+=(Var& a, double b) { return a = a + b; }

}  // namespace tally
