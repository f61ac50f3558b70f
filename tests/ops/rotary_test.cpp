#include "tally/ops/attention/rotary.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/ops/catalog.h"

namespace rotary_test {

using namespace tally;

namespace {

Tensor normal(const Shape& shape, std::uint64_t stream, DType dtype = DType::f32) {
  return ops::sample_normal(shape, stream).to(dtype);
}

Tensor at(const std::vector<std::int64_t>& positions) {
  return Tensor::from(positions, {static_cast<std::int64_t>(positions.size())});
}

double inner_product(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace

TEST_CASE("rotary positions: angles are right wherever the position is", "[rotary]") {
  // Frequencies 1 and 1/4 are exact, so is the angle, and extended precision knows its cosine.
  const std::vector<std::int64_t> positions{
      0, 1, -1, 63, 64, 43'884, 300'001, 1 << 20, (1 << 24) - 1, 1 << 24, 999'999'999, (1LL << 40) - 3, -(1LL << 40)};
  const auto rows = static_cast<std::int64_t>(positions.size());
  for (const DType dtype : {DType::f32, DType::f64}) {
    std::vector<double> ones(static_cast<std::size_t>(4 * rows));
    for (std::size_t i = 0; i < ones.size(); ++i) ones[i] = i % 4 < 2 ? 1 : 0;
    const Tensor x = Tensor::from(ones, {rows, 4}).to(dtype);
    const std::vector<double> y = ops::rotary(x, at(positions), {.base = 16}).value().to_doubles();
    const double tolerance = dtype == DType::f32 ? 6.1e-8 : 1e-15;
    for (std::size_t t = 0; t < positions.size(); ++t) {
      for (std::size_t i = 0; i < 2; ++i) {
        const long double angle = static_cast<long double>(positions[t]) / (i == 0 ? 1 : 4);
        CHECK(std::abs(y[4 * t + i] - static_cast<double>(std::cos(angle))) <= tolerance);
        CHECK(std::abs(y[4 * t + 2 + i] - static_cast<double>(std::sin(angle))) <= tolerance);
      }
    }
  }
}

TEST_CASE("rotary positions: inner products depend on differences of positions alone", "[rotary]") {
  const Tensor q = normal({1, 16}, 1), k = normal({1, 16}, 2);
  for (const ops::RotaryPairs pairs : {ops::RotaryPairs::halves, ops::RotaryPairs::interleaved}) {
    const auto score = [&](std::int64_t query, std::int64_t key) {
      const ops::RotaryOptions options{.pairs = pairs};
      return inner_product(ops::rotary(q, at({query}), options).value(), ops::rotary(k, at({key}), options).value());
    };
    for (const std::int64_t far : {1'000LL, 100'000LL, 1'000'000'000LL}) {
      CHECK(score(far + 7, far) == Approx(score(7, 0)).margin(2e-6));
      CHECK(score(far, far) == Approx(inner_product(q, k)).margin(2e-6));
    }
  }
}

TEST_CASE("rotary positions: a sequence in pieces and events gives the bits of the whole one", "[rotary]") {
  const std::int64_t length = 200, width = 38;
  const Tensor x = normal({length, width}, 3);
  const ops::RotaryOptions options{.heads = 2, .rotary_width = 14};
  const Tensor whole = ops::rotary(x, Offsets::single(length), {}, options).value();
  // Table of angles or not, in company or not.
  CHECK(identical(ops::rotary(x, Tensor::arange(length), options).value(), whole));
  for (const std::int64_t piece : {1, 3, 70, 199}) {
    for (std::int64_t begin = 0; begin < length; begin += piece) {
      const std::int64_t end = std::min(begin + piece, length);
      const Tensor part =
          ops::rotary(x.slice(0, begin, end), Offsets::single(end - begin), at({begin}), options).value();
      CHECK(identical(part, whole.slice(0, begin, end).contiguous()));
    }
  }
  // Two sequences that begin anew and later on.
  const std::vector<std::int64_t> lengths{120, 80};
  const Tensor two = ops::rotary(x, Offsets::from_lengths(lengths), at({0, 120}), options).value();
  CHECK(identical(two, whole));
  const Tensor anew = ops::rotary(x, Offsets::from_lengths(lengths), {}, options).value();
  CHECK(identical(anew.slice(0, 0, 120).contiguous(), whole.slice(0, 0, 120).contiguous()));
  CHECK(identical(anew.slice(0, 120, 200).contiguous(),
                  ops::rotary(x.slice(0, 120, 200), Offsets::single(80), {}, options).value()));
}

TEST_CASE("rotary positions: backward turns back", "[rotary]") {
  const Tensor x = normal({90, 24}, 4, DType::f64);
  const ops::RotaryOptions options{.heads = 3, .rotary_width = 6, .pairs = ops::RotaryPairs::interleaved};
  Tape tape;
  const Var in = tape.input(x);
  Var y;
  {
    const Recording on(tape);
    y = ops::rotary(in, Offsets::single(90), at({1'000'000}), options);
  }
  const Tensor cotangent = y.value();
  const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
  const std::vector<double> back = gradients[in].to_doubles(), before = x.to_doubles();
  for (std::size_t i = 0; i < back.size(); ++i) CHECK(back[i] == Approx(before[i]).margin(1e-13));
  CHECK_FALSE(identical(y.value(), x));
}

TEST_CASE("rotary positions: heads turn alike, and the other columns stay", "[rotary]") {
  const Tensor x = normal({5, 21}, 5);
  const Tensor positions = at({4, 0, 9, 2, 100});
  const Tensor y = ops::rotary(x, positions, {.heads = 3, .rotary_width = 4}).value();
  for (std::int64_t head = 0; head < 3; ++head) {
    const Tensor own = x.slice(1, 7 * head, 7 * head + 7).contiguous();
    CHECK(identical(y.slice(1, 7 * head, 7 * head + 7).contiguous(),
                    ops::rotary(own, positions, {.rotary_width = 4}).value()));
    CHECK(identical(y.slice(1, 7 * head + 4, 7 * head + 7).contiguous(), own.slice(1, 4, 7).contiguous()));
  }
}

TEST_CASE("rotary positions: tables of the base's own angles are the base", "[rotary]") {
  std::vector<float> cosines, sines;
  for (int position = 0; position < 40; ++position) {
    for (int i = 0; i < 3; ++i) {
      const double angle = position * std::pow(10000.0, -i / 3.0);
      cosines.push_back(static_cast<float>(std::cos(angle)));
      sines.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  const Tensor x = normal({40, 6}, 6);
  ops::RotaryOptions options;
  options.cosines = Tensor::from(cosines, {40, 3});
  options.sines = Tensor::from(sines, {40, 3});
  const std::vector<double> by_table = ops::rotary(x, Offsets::single(40), {}, options).value().to_doubles();
  const std::vector<double> by_base = ops::rotary(x, Offsets::single(40)).value().to_doubles();
  for (std::size_t i = 0; i < by_base.size(); ++i) CHECK(by_table[i] == Approx(by_base[i]).margin(1e-6));
}

}  // namespace rotary_test
