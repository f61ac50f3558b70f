// Scores of all items from a table and from codes, against sums written out.
#include "tally/recsys/models/item_scorer.h"

#include <catch2/catch.hpp>

#include "tally/core/random.h"

namespace tally::recsys::item_scorer_test {
namespace {

using Catch::Matchers::Contains;

Tensor normal(const Shape& shape, std::uint64_t stream) {
  Tensor tensor(shape);
  fill_normal(RngKey{11, stream}, tensor, 0, 1);
  return tensor;
}

template <class Code>
Tensor random_codes(std::int64_t items, std::int64_t codebooks, std::int64_t codewords) {
  std::vector<Code> codes;
  for (std::int64_t i = 0; i < items * codebooks; ++i) {
    codes.push_back(static_cast<Code>(
        uniform_below(RngKey{12}, static_cast<std::uint64_t>(i), 0, static_cast<std::uint64_t>(codewords))));
  }
  return Tensor::from(codes, {items, codebooks});
}

/// Rows times vectors, in double.
std::vector<double> products(const Tensor& rows, const std::vector<double>& vectors, std::int64_t width) {
  const std::vector<double> all = rows.to_doubles();
  std::vector<double> scores;
  for (std::size_t r = 0; r < all.size(); r += static_cast<std::size_t>(width)) {
    for (std::size_t i = 0; i < vectors.size(); i += static_cast<std::size_t>(width)) {
      double sum = 0;
      for (std::size_t d = 0; d < static_cast<std::size_t>(width); ++d) sum += all[r + d] * vectors[i + d];
      scores.push_back(sum);
    }
  }
  return scores;
}

std::vector<double> decoded(const Tensor& codes, const Tensor& codebooks) {
  const std::int64_t books = codebooks.dim(0), words = codebooks.dim(1), width = codebooks.dim(2);
  const std::vector<double> named = codes.to_doubles(), codewords = codebooks.to_doubles();
  std::vector<double> vectors(static_cast<std::size_t>(codes.dim(0) * width));
  for (std::int64_t i = 0; i < codes.dim(0); ++i) {
    for (std::int64_t b = 0; b < books; ++b) {
      const auto word = b * words + static_cast<std::int64_t>(named[static_cast<std::size_t>(i * books + b)]);
      for (std::int64_t d = 0; d < width; ++d) {
        vectors[static_cast<std::size_t>(i * width + d)] += codewords[static_cast<std::size_t>(word * width + d)];
      }
    }
  }
  return vectors;
}

void check_scores(const ItemScorer& scorer, const Tensor& rows, const std::vector<double>& expected) {
  const std::int64_t count = rows.dim(0), width = rows.dim(1), items = scorer.num_items();
  std::vector<float> scores(static_cast<std::size_t>(count * items));
  scorer.score(rows.span<float>(), scores);
  REQUIRE(scores.size() == expected.size());
  double largest = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(scores[i]) - expected[i]));
  }
  CHECK(largest < 1e-4);
  // Alone, the same bits.
  for (std::int64_t r = 0; r < count; ++r) {
    std::vector<float> alone(static_cast<std::size_t>(items));
    scorer.score(rows.span<float>().subspan(static_cast<std::size_t>(r * width), static_cast<std::size_t>(width)),
                 alone);
    CHECK(std::equal(alone.begin(), alone.end(), scores.begin() + r * items));
  }
}

}  // namespace

TEST_CASE("scores from a table", "[scorer]") {
  for (const std::int64_t items : {1, 5, 4099}) {  // more than a block of rows of 17
    const Tensor table = normal({items, 17}, 1);
    for (const std::int64_t count : {0, 1, 19}) {
      const Tensor rows = normal({count, 17}, 2);
      check_scores(ItemScorer::of_table(table), rows, products(rows, table.to_doubles(), 17));
    }
  }
  CHECK(ItemScorer::of_table(normal({3, 4}, 1)).bytes() == 48);
}

TEST_CASE("scores from codes", "[scorer]") {
  const auto check_codes = [](const Tensor& codes, std::int64_t words) {
    const Tensor codebooks = normal({codes.dim(1), words, 9}, 3), rows = normal({5, 9}, 4);
    const ItemScorer scorer = ItemScorer::of_codes(codes, codebooks);
    CHECK(scorer.num_items() == codes.dim(0));
    CHECK(scorer.width() == 9);
    check_scores(scorer, rows, products(rows, decoded(codes, codebooks), 9));
  };
  for (const std::int64_t books : {1, 3, 4, 8, 11}) {
    check_codes(random_codes<std::uint8_t>(203, books, 256), 256);
    check_codes(random_codes<std::int32_t>(203, books, 300), 300);
    check_codes(random_codes<std::uint8_t>(1, books, 1), 1);
  }
}

TEST_CASE("what no scorer can be made of is refused", "[scorer]") {
  const Tensor codes = random_codes<std::uint8_t>(7, 2, 3), codebooks = normal({2, 3, 4}, 5);
  CHECK_THROWS_AS(ItemScorer::of_table(normal({3}, 1)), ShapeError);
  CHECK_THROWS_AS(ItemScorer::of_table(normal({0, 4}, 1)), ShapeError);
  CHECK_THROWS_AS(ItemScorer::of_table(Tensor({3, 4}, DType::f64)), DTypeError);
  CHECK_THROWS_AS(ItemScorer::of_codes(codes, normal({3, 3, 4}, 5)), ShapeError);
  CHECK_THROWS_AS(ItemScorer::of_codes(codes, normal({6, 4}, 5)), ShapeError);
  CHECK_THROWS_AS(ItemScorer::of_codes(codes.to(DType::i64), codebooks), DTypeError);
  CHECK_THROWS_AS(ItemScorer::of_codes(codes, Tensor::zeros({2, 3, 4}, DType::f64)), DTypeError);
  for (const std::int32_t bad : {-1, 3}) {
    CHECK_THROWS_WITH(ItemScorer::of_codes(Tensor::from<std::int32_t>({0, bad}, {1, 2}), codebooks),
                      Contains("codes in [0, 3); got " + std::to_string(bad)));
  }
  CHECK_THROWS_WITH(ItemScorer::of_codes(Tensor::from<std::uint8_t>({0, 3}, {1, 2}), codebooks), Contains("got 3"));
  const ItemScorer scorer = ItemScorer::of_codes(codes, codebooks);
  std::vector<float> row(4), scores(7);
  CHECK_THROWS_AS(scorer.score(std::span(row).first(3), scores), ShapeError);
  CHECK_THROWS_AS(scorer.score(row, std::span(scores).first(6)), ShapeError);
}

}  // namespace tally::recsys::item_scorer_test
