#include "tally/recsys/models/item_scorer.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/ops/quantization/decode_codes.h"

namespace tally::recsys {
namespace {

constexpr std::string_view kItemScorer = "ItemScorer";

// Rows meet blocks of items that stay in cache meanwhile. The cut does not depend on the number of rows, so that a
// row's scores do not.
constexpr std::int64_t kBlockElements = 1 << 16;

void score_table(const Tensor& table, std::int64_t rows, const float* row, float* scores) {
  const std::int64_t items = table.dim(0), width = table.dim(1);
  const std::int64_t block = std::max<std::int64_t>(1, kBlockElements / std::max<std::int64_t>(1, width));
  for (std::int64_t first = 0; first < items; first += block) {
    const std::int64_t n = std::min(block, items - first);
    for (std::int64_t r = 0; r < rows; ++r) {
      blas::gemv(blas::Transpose::no, n, width, 1.0F, table.data<float>() + first * width, width, row + r * width, 0.0F,
                 scores + r * items + first);
    }
  }
}

/// Sums of B numbers, the ones that an item's codes name, in the order of codebooks. The common numbers of codebooks
/// are constants, whose loops are unrolled.
template <class Code, std::int64_t kCodebooks>
void add_up(const Code* codes, std::int64_t codebooks, std::int64_t codewords, const float* of_codewords,
            std::int64_t items, float* scores) {
  const std::int64_t books = kCodebooks > 0 ? kCodebooks : codebooks;
  for (std::int64_t i = 0; i < items; ++i, codes += books) {
    float sum = of_codewords[codes[0]];
    for (std::int64_t b = 1; b < books; ++b) sum += of_codewords[b * codewords + codes[b]];
    scores[i] = sum;
  }
}

template <class Code>
void score_codes(const Tensor& codes, const Tensor& codebooks, std::int64_t rows, const float* row, float* scores) {
  const std::int64_t items = codes.dim(0), books = codebooks.dim(0), words = codebooks.dim(1), width = codebooks.dim(2);
  std::vector<float> of_codewords(static_cast<std::size_t>(rows * books * words));
  for (std::int64_t r = 0; r < rows; ++r) {
    blas::gemv(blas::Transpose::no, books * words, width, 1.0F, codebooks.data<float>(), width, row + r * width, 0.0F,
               of_codewords.data() + r * books * words);
  }
  const auto sum = books == 8 ? &add_up<Code, 8> : books == 4 ? &add_up<Code, 4> : &add_up<Code, 0>;
  const std::int64_t block = std::max<std::int64_t>(1, kBlockElements / books);
  for (std::int64_t first = 0; first < items; first += block) {
    const std::int64_t n = std::min(block, items - first);
    for (std::int64_t r = 0; r < rows; ++r) {
      sum(codes.data<Code>() + first * books, books, words, of_codewords.data() + r * books * words, n,
          scores + r * items + first);
    }
  }
}

template <class Code>
void check_codes(const Tensor& codes, std::int64_t codewords) {
  for (const Code code : codes.span<Code>()) {
    check<ValueError>(code >= 0 && code < codewords, kItemScorer, "needs codes in [0, ", codewords, "); got ",
                      static_cast<std::int64_t>(code));
  }
}

}  // namespace

ItemScorer ItemScorer::of_table(const Tensor& table) {
  check<ShapeError>(table.rank() == 2 && table.dim(0) > 0, kItemScorer, "needs a candidate table [items, D]; got ",
                    table.shape());
  check<DTypeError>(table.dtype() == DType::f32, kItemScorer, "needs a candidate table of f32; got ", table.dtype());
  return {table.contiguous(), Tensor()};
}

ItemScorer ItemScorer::of_codes(const Tensor& codes, const Tensor& codebooks) {
  check<ShapeError>(codebooks.rank() == 3 && codes.rank() == 2 && codes.dim(0) > 0 && codebooks.dim(0) > 0 &&
                        codes.dim(1) == codebooks.dim(0),
                    kItemScorer, "needs codes [items, B] and codebooks [B, W, D]; got ", codes.shape(), " and ",
                    codebooks.shape());
  check<DTypeError>(codebooks.dtype() == DType::f32 && (codes.dtype() == DType::u8 || codes.dtype() == DType::i32),
                    kItemScorer, "needs codes of u8 or i32 and codebooks of f32; got ", codes.dtype(), " and ",
                    codebooks.dtype());
  const Tensor rows = codes.contiguous();
  if (rows.dtype() == DType::u8) {
    check_codes<std::uint8_t>(rows, codebooks.dim(1));
  } else {
    check_codes<std::int32_t>(rows, codebooks.dim(1));
  }
  return {codebooks.contiguous(), rows};
}

void ItemScorer::score(std::span<const float> rows, std::span<float> scores) const {
  const std::int64_t count = std::ssize(rows) / std::max<std::int64_t>(1, width());
  check<ShapeError>(count * width() == std::ssize(rows) && count * num_items() == std::ssize(scores), kItemScorer,
                    "needs rows of ", width(), " and room for ", num_items(), " scores of each; got ", rows.size(),
                    " elements and room for ", scores.size());
  if (!codes_.defined()) return score_table(vectors_, count, rows.data(), scores.data());
  if (codes_.dtype() == DType::u8) {
    score_codes<std::uint8_t>(codes_, vectors_, count, rows.data(), scores.data());
  } else {
    score_codes<std::int32_t>(codes_, vectors_, count, rows.data(), scores.data());
  }
}

Tensor ItemScorer::vectors() const {
  if (!codes_.defined()) return vectors_;
  const Paused paused;
  return ops::decode_codes(Var(vectors_), codes_).value();
}

}  // namespace tally::recsys
