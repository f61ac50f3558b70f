#include "tally/ops/elementwise/dropout.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/core/simd.h"

namespace dropout_test {

using namespace tally;

namespace {

constexpr RngKey kKey{11, 5};

Tensor mask_of(const Tensor& y) {
  Tensor mask(y.shape(), DType::u8);
  const std::vector<double> values = y.to_doubles();
  for (std::size_t i = 0; i < values.size(); ++i) mask.mutable_data<std::uint8_t>()[i] = values[i] != 0;
  return mask;
}

}  // namespace

TEST_CASE("a dropout mask does not depend on how rows are cut into shards", "[dropout]") {
  for (const std::int64_t columns : {1, 3, 64, 1027}) {
    const Tensor x = Tensor::full({23, columns}, 1);
    const Tensor whole = ops::dropout(x, {.rate = 0.4, .key = kKey, .first_row = 100}).value();
    for (const auto& [begin, end] : {std::pair{0, 23}, {5, 6}, {7, 20}, {22, 23}, {4, 4}}) {
      const Tensor part = ops::dropout(x.slice(0, begin, end).clone(),
                                       {.rate = 0.4, .key = kKey, .first_row = 100 + static_cast<std::uint64_t>(begin)})
                              .value();
      CHECK(identical(part, whole.slice(0, begin, end).clone()));
    }
  }
}

TEST_CASE("the same mask in f32 and f64 and on every SIMD target", "[dropout]") {
  const ops::DropoutOptions options{.rate = 0.25, .key = kKey, .first_row = 3};
  const Tensor expected = mask_of(ops::dropout(Tensor::full({9, 37}, 1, DType::f64), options).value());
  for (const std::string& target : simd_targets()) {
    set_simd_target(target);
    CHECK(identical(mask_of(ops::dropout(Tensor::full({9, 37}, 1), options).value()), expected));
    set_simd_target("");
  }
}

TEST_CASE("dropout keeps the share of elements it is asked to, in every column", "[dropout]") {
  const std::int64_t rows = 20000, columns = 8;
  const double rate = 0.3;
  const std::vector<double> y =
      ops::dropout(Tensor::full({rows, columns}, 1), {.rate = rate, .key = kKey}).value().to_doubles();
  for (std::int64_t j = 0; j < columns; ++j) {
    double kept = 0;
    for (std::int64_t i = 0; i < rows; ++i) kept += y[static_cast<std::size_t>(i * columns + j)] != 0;
    CHECK(std::fabs(kept / static_cast<double>(rows) - (1 - rate)) <
          4 * std::sqrt(rate * (1 - rate) / static_cast<double>(rows)));
  }
  CHECK(*std::max_element(y.begin(), y.end()) == Approx(1 / (1 - rate)));
}

TEST_CASE("backward draws the mask of the forward again", "[dropout]") {
  Tape tape;
  const Var x = tape.input(Tensor::full({40, 33}, 1));
  Var y;
  {
    const Recording on(tape);
    y = ops::dropout(x, {.rate = 0.5, .key = kKey, .first_row = 9});
  }
  const Var outputs[] = {y};
  const Tensor cotangents[] = {Tensor::full({40, 33}, 1)};
  CHECK(identical(tape.backward(outputs, cotangents)[x], y.value()));
}

TEST_CASE("rate 0 is the identity and records nothing; another key is another mask", "[dropout]") {
  Tape tape;
  const Recording on(tape);
  const Var x = tape.input(Tensor::full({4, 50}, 1));
  CHECK(ops::dropout(x, {.rate = 0}).value().shares_storage_with(x.value()));
  CHECK(tape.size() == 0);
  const Tensor a = ops::dropout(x, {.rate = 0.5, .key = kKey}).value();
  CHECK_FALSE(identical(a, ops::dropout(x, {.rate = 0.5, .key = kKey.fold_in(1)}).value()));
  CHECK_FALSE(identical(a, ops::dropout(x, {.rate = 0.5, .key = kKey, .first_row = 1}).value()));
}

TEST_CASE("a dropped NaN is gone", "[dropout]") {
  const Tensor y = ops::dropout(Tensor::full({1, 400}, std::nan("")), {.rate = 0.5, .key = kKey}).value();
  const std::vector<double> values = y.to_doubles();
  const auto nans = std::count_if(values.begin(), values.end(), [](double v) { return std::isnan(v); });
  CHECK(nans > 100);
  CHECK(nans < 300);
}

}  // namespace dropout_test
