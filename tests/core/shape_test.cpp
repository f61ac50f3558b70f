#include "tally/core/shape.h"

#include <catch2/catch.hpp>
#include <sstream>
#include <vector>

#include "tally/core/error.h"

namespace shape_test {

using namespace tally;

TEST_CASE("shapes know their sizes", "[shape]") {
  const Shape shape{2, 3, 4};
  CHECK(shape.rank() == 3);
  CHECK(shape.numel() == 24);
  CHECK(shape[0] == 2);
  CHECK(shape[-1] == 4);
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{5, 0}.numel() == 0);
  CHECK(shape.with_appended(7) == Shape{2, 3, 4, 7});
  CHECK(shape.without(1) == Shape{2, 4});
  CHECK(shape.without(-1) == Shape{2, 3});
  CHECK(shape != Shape{2, 3});
  CHECK(shape != Shape{2, 3, 5});
  std::ostringstream out;
  out << shape << Shape{};
  CHECK(out.str() == "[2, 3, 4][]");
}

TEST_CASE("impossible shapes are refused", "[shape]") {
  constexpr std::int64_t kBig = std::int64_t{1} << 62;
  CHECK_THROWS_AS(Shape({2, -1}), ShapeError);
  CHECK_THROWS_AS(Shape({1, 1, 1, 1, 1, 1, 1, 1, 1}), ShapeError);
  CHECK_THROWS_AS(Shape({kBig, 2}), ShapeError);
  CHECK(Shape({kBig, 1}).numel() == kBig);
  // A zero hides no overflow, whatever its place.
  CHECK_THROWS_AS(Shape({0, kBig, 2}), ShapeError);
  CHECK_THROWS_AS(Shape({kBig, 2, 0}), ShapeError);
  CHECK_THROWS_AS(Shape({kBig, 0, 2}), ShapeError);
  CHECK_THROWS_AS(Shape({1, 1, 1, 1, 1, 1, 1, 1}).with_appended(1), ShapeError);
  CHECK_THROWS_AS(Shape({kBig}).with_appended(2), ShapeError);
  CHECK_THROWS_AS((Shape{2, 3}[2]), ShapeError);
  CHECK_THROWS_AS((Shape{2, 3}[-3]), ShapeError);
  CHECK_THROWS_WITH((Shape{2, 3}[2]), Catch::Contains("[2, 3]"));
  CHECK_THROWS_AS(Shape{}.without(0), ShapeError);
}

TEST_CASE("checked_multiply refuses overflow and negative factors", "[shape]") {
  CHECK(checked_multiply(3, 5) == 15);
  CHECK(checked_multiply(0, INT64_MAX) == 0);
  CHECK_THROWS_AS(checked_multiply(INT64_MAX, 2), ShapeError);
  CHECK_THROWS_AS(checked_multiply(-1, 2), ShapeError);
}

}  // namespace shape_test
