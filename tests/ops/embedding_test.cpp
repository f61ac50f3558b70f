#include "tally/ops/tensor/embedding.h"

#include <catch2/catch.hpp>

#include "tally/autograd/tape.h"

namespace embedding_test {

using namespace tally;

TEST_CASE("the gradient of a table names the rows used, once each", "[embedding]") {
  const Tensor table = Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {4, 2});
  const Tensor indices = Tensor::from<std::int32_t>({2, 0, 2}, {3});
  Tape tape;
  const Var leaf = tape.input(table);
  Var y;
  {
    const Recording on(tape);
    y = ops::embedding(leaf, indices, {.scale = 2});
  }
  CHECK(y.value().to_doubles() == std::vector<double>{10, 12, 2, 4, 10, 12});
  const Var outputs[] = {y};
  const Tensor cotangents[] = {Tensor::from<float>({1, 2, 3, 4, 10, 20}, {3, 2})};
  const Gradients gradients = tape.backward(outputs, cotangents);
  const auto* rows = std::get_if<RowGrad>(gradients.find(leaf.leaf_id()));
  REQUIRE(rows != nullptr);
  CHECK(rows->rows.to_doubles() == std::vector<double>{0, 2});
  CHECK(rows->values.to_doubles() == std::vector<double>{6, 8, 22, 44});
  CHECK(rows->shape == Shape{4, 2});
}

TEST_CASE("a table that was computed gets a dense gradient", "[embedding]") {
  Tape tape;
  const Var leaf = tape.input(Tensor::from<double>({1, 2, 3}, {3, 1}));
  Var y;
  {
    const Recording on(tape);
    y = ops::embedding(ops::embedding(leaf, Tensor::from<std::int64_t>({2, 1, 2}, {3})),
                       Tensor::from<std::int64_t>({0, 2, 2, 1}, {4}));
  }
  CHECK(y.value().to_doubles() == std::vector<double>{3, 3, 3, 2});
  const Var outputs[] = {y};
  const Tensor cotangents[] = {Tensor::from<double>({1, 10, 100, 1000}, {4, 1})};
  CHECK(tape.backward(outputs, cotangents)[leaf].to_doubles() == std::vector<double>{0, 1000, 111});
}

}  // namespace embedding_test
