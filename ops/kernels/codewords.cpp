// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/codewords.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/kernels.h"
#include "tally/ops/kernels/codewords.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using I = hn::RebindToSigned<F>;
using V = hn::Vec<F>;

constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// One book's final scores of one row at [j, j + count): bias added, the chosen rows subtracted; -infinity beyond.
HWY_INLINE V final_score(const float* scores, const float* bias, const float* const* chosen, std::int64_t books_before,
                         std::int64_t j, std::int64_t count) {
  const F d;
  V v = load_lanes(d, scores + j, count);
  if (bias != nullptr) v = hn::Add(v, load_lanes(d, bias + j, count));
  for (std::int64_t a = 0; a < books_before; ++a) v = hn::Sub(v, load_lanes(d, chosen[a] + j, count));
  if (count == static_cast<std::int64_t>(hn::Lanes(d))) return v;
  return hn::IfThenElse(hn::FirstN(d, static_cast<std::size_t>(count)), v, hn::Set(d, kLowest));
}

/// The lowest lane index of `places` among lanes whose value is the largest; 0 when no value exceeds -infinity.
HWY_INLINE std::int64_t lowest_place(V best, hn::Vec<I> places) {
  const F d;
  const I di;
  const auto largest = hn::MaxOfLanes(d, best);
  const auto at = hn::IfThenElse(hn::RebindMask(di, hn::Eq(best, largest)), places,
                                 hn::Set(di, std::numeric_limits<std::int32_t>::max()));
  const std::int32_t place = hn::GetLane(hn::MinOfLanes(di, at));
  return place == std::numeric_limits<std::int32_t>::max() ? 0 : place;
}

/// The best word of one book for one row.
HWY_INLINE std::int64_t choose_word(const float* scores, const float* bias, const float* const* chosen,
                                    std::int64_t books_before, std::int64_t words, float* final_scores, float scale) {
  const F d;
  const I di;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  if (words == lanes) {
    const V v = final_score(scores, bias, chosen, books_before, 0, lanes);
    if (final_scores != nullptr) hn::StoreU(hn::Mul(v, factor), d, final_scores);
    const std::intptr_t place = hn::FindFirstTrue(d, hn::Eq(v, hn::MaxOfLanes(d, v)));
    return place < 0 ? 0 : static_cast<std::int64_t>(place);
  }
  V best = hn::Set(d, kLowest);
  auto places = hn::Zero(di);
  const auto first_places = hn::Iota(di, 0);
  for_each_vector(d, words, [&](std::int64_t j, std::int64_t count) {
    const V v = final_score(scores, bias, chosen, books_before, j, count);
    if (final_scores != nullptr) store_lanes(hn::Mul(v, factor), d, final_scores + j, count);
    const auto better = hn::Gt(v, best);
    best = hn::IfThenElse(better, v, best);
    places = hn::IfThenElse(hn::RebindMask(di, better),
                            hn::Add(first_places, hn::Set(di, static_cast<std::int32_t>(j))), places);
  });
  return lowest_place(best, places);
}

template <class Code>
HWY_INLINE void choose(const CodewordScores<float>& in, Code* codes, std::int64_t code_stride, float* final_scores,
                       float scale) {
  // A row's books depend on each other, rows do not: four rows at a time keep the core busy.
  constexpr std::int64_t kTogether = 4;
  std::vector<const float*> chosen(static_cast<std::size_t>(kTogether * in.books));
  for (std::int64_t first = 0; first < in.rows; first += kTogether) {
    const std::int64_t end = std::min(in.rows, first + kTogether);
    for (std::int64_t book = 0; book < in.books; ++book) {
      const std::int64_t begin = book * in.words;
      for (std::int64_t row = first; row < end; ++row) {
        const float** mine = chosen.data() + (row - first) * in.books;
        const std::int64_t word =
            choose_word(in.scores + row * in.stride + begin, in.bias == nullptr ? nullptr : in.bias + begin, mine,
                        in.products == nullptr ? 0 : book, in.words,
                        final_scores == nullptr ? nullptr : final_scores + row * in.stride + begin, scale);
        codes[row * code_stride + book] = static_cast<Code>(word);
        if (in.products == nullptr) continue;
        // Points to where the next book's part of the row begins, and moves on with the books.
        for (std::int64_t a = 0; a < book; ++a) mine[a] += in.words;
        mine[book] = in.products + (begin + word) * in.product_stride + begin + in.words;
      }
    }
  }
}

void choose_u8(const CodewordScores<float>& in, std::uint8_t* codes, std::int64_t code_stride, float* final_scores,
               float scale) {
  choose(in, codes, code_stride, final_scores, scale);
}
void choose_i32(const CodewordScores<float>& in, std::int32_t* codes, std::int64_t code_stride, float* final_scores,
                float scale) {
  choose(in, codes, code_stride, final_scores, scale);
}

template <class Code>
HWY_INLINE void sum_chosen(const float* codebooks, const CodeRows<Code>& in, float* out, std::int64_t out_stride,
                           bool keep) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t row = 0; row < in.rows; ++row) {
    const Code* chosen = in.codes + row * in.stride;
    float* sums = out + row * out_stride;
    const auto word_at = [&](std::int64_t book) { return codebooks + (book * in.words + chosen[book]) * in.width; };
    std::int64_t i = 0;
    for (; i + 4 * lanes <= in.width; i += 4 * lanes) {
      V s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
      if (keep) {
        s0 = hn::LoadU(d, sums + i);
        s1 = hn::LoadU(d, sums + i + lanes);
        s2 = hn::LoadU(d, sums + i + 2 * lanes);
        s3 = hn::LoadU(d, sums + i + 3 * lanes);
      }
      for (std::int64_t book = 0; book < in.books; ++book) {
        const float* from = word_at(book) + i;
        s0 = hn::Add(s0, hn::LoadU(d, from));
        s1 = hn::Add(s1, hn::LoadU(d, from + lanes));
        s2 = hn::Add(s2, hn::LoadU(d, from + 2 * lanes));
        s3 = hn::Add(s3, hn::LoadU(d, from + 3 * lanes));
      }
      hn::StoreU(s0, d, sums + i);
      hn::StoreU(s1, d, sums + i + lanes);
      hn::StoreU(s2, d, sums + i + 2 * lanes);
      hn::StoreU(s3, d, sums + i + 3 * lanes);
    }
    for (; i < in.width; i += lanes) {
      const std::int64_t count = std::min(lanes, in.width - i);
      V s = keep ? load_lanes(d, sums + i, count) : hn::Zero(d);
      for (std::int64_t book = 0; book < in.books; ++book) s = hn::Add(s, load_lanes(d, word_at(book) + i, count));
      store_lanes(s, d, sums + i, count);
    }
  }
}

void sum_u8(const float* codebooks, const CodeRows<std::uint8_t>& in, float* out, std::int64_t out_stride, bool keep) {
  sum_chosen(codebooks, in, out, out_stride, keep);
}
void sum_i32(const float* codebooks, const CodeRows<std::int32_t>& in, float* out, std::int64_t out_stride, bool keep) {
  sum_chosen(codebooks, in, out, out_stride, keep);
}

/// scatter of rows of one vector, whose sums all stay in the first cache.
template <class Code>
HWY_INLINE void scatter_vectors(const float* values, std::int64_t value_stride, float factor, const CodeRows<Code>& in,
                                float* sums) {
  const F d;
  const V scale = hn::Set(d, factor);
  const std::int64_t book_size = in.words * in.width;
  for (std::int64_t row = 0; row < in.rows; ++row) {
    const V v = hn::LoadU(d, values + row * value_stride);
    const Code* codes = in.codes + row * in.stride;
    float* to = sums;
    for (std::int64_t book = 0; book < in.books; ++book, to += book_size) {
      float* at = to + static_cast<std::int64_t>(codes[book]) * in.width;
      hn::StoreU(hn::MulAdd(scale, v, hn::LoadU(d, at)), d, at);
    }
  }
}

template <class Code>
HWY_INLINE void scatter(const float* values, std::int64_t value_stride, float factor, const CodeRows<Code>& in,
                        float* sums) {
  constexpr std::int64_t kNear = 4096;  // half of a first cache of 32 KiB
  if (in.width == static_cast<std::int64_t>(hn::Lanes(F())) && in.books * in.words * in.width <= kNear) {
    return scatter_vectors(values, value_stride, factor, in, sums);
  }
  // Book by book for a few rows, so that these rows and the sums of one book stay in the first cache.
  constexpr std::int64_t kTogether = 32;
  const F d;
  const V scale = hn::Set(d, factor);
  for (std::int64_t first = 0; first < in.rows; first += kTogether) {
    const std::int64_t end = std::min(in.rows, first + kTogether);
    for (std::int64_t book = 0; book < in.books; ++book) {
      for (std::int64_t row = first; row < end; ++row) {
        const float* from = values + row * value_stride;
        float* to = sums + (book * in.words + in.codes[row * in.stride + book]) * in.width;
        for_each_vector(d, in.width, [&](std::int64_t i, std::int64_t count) {
          const V sum = hn::MulAdd(scale, load_lanes(d, from + i, count), load_lanes(d, to + i, count));
          store_lanes(sum, d, to + i, count);
        });
      }
    }
  }
}

void scatter_u8(const float* values, std::int64_t value_stride, float factor, const CodeRows<std::uint8_t>& in,
                float* sums) {
  scatter(values, value_stride, factor, in, sums);
}
void scatter_i32(const float* values, std::int64_t value_stride, float factor, const CodeRows<std::int32_t>& in,
                 float* sums) {
  scatter(values, value_stride, factor, in, sums);
}

/// 0 when all are finite: infinity and NaN times 0 are NaN, and stay.
bool finite_f32(const float* x, std::int64_t n) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V zero = hn::Zero(d);
  V s0 = zero, s1 = zero, s2 = zero, s3 = zero;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::MulAdd(hn::LoadU(d, x + i), zero, s0);
    s1 = hn::MulAdd(hn::LoadU(d, x + i + lanes), zero, s1);
    s2 = hn::MulAdd(hn::LoadU(d, x + i + 2 * lanes), zero, s2);
    s3 = hn::MulAdd(hn::LoadU(d, x + i + 3 * lanes), zero, s3);
  }
  for (; i < n; i += lanes) s0 = hn::MulAdd(load_lanes(d, x + i, std::min(lanes, n - i)), zero, s0);
  const V all = hn::Add(hn::Add(s0, s1), hn::Add(s2, s3));
  return hn::AllTrue(d, hn::Eq(all, zero));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(choose_u8);
HWY_EXPORT(choose_i32);
HWY_EXPORT(sum_u8);
HWY_EXPORT(sum_i32);
HWY_EXPORT(scatter_u8);
HWY_EXPORT(scatter_i32);
HWY_EXPORT(finite_f32);

bool all_finite(const float* x, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(finite_f32)(x, n); }
bool all_finite(const double* x, std::int64_t n) {
  return std::all_of(x, x + n, [](double value) { return std::isfinite(value); });
}

template <class T>
std::int64_t first_bad_row(const T* x, std::int64_t rows, std::int64_t width, std::int64_t stride) {
  if (stride == width && all_finite(x, rows * width)) return -1;
  for (std::int64_t row = 0; row < rows; ++row) {
    if (!all_finite(x + row * stride, width)) return row;
  }
  return -1;
}

}  // namespace

template <>
void choose_codewords(const CodewordScores<float>& in, std::uint8_t* codes, std::int64_t code_stride,
                      float* final_scores, float scale) {
  HWY_DYNAMIC_DISPATCH(choose_u8)(in, codes, code_stride, final_scores, scale);
}
template <>
void choose_codewords(const CodewordScores<float>& in, std::int32_t* codes, std::int64_t code_stride,
                      float* final_scores, float scale) {
  HWY_DYNAMIC_DISPATCH(choose_i32)(in, codes, code_stride, final_scores, scale);
}

template <class Code>
void choose_codewords(const CodewordScores<double>& in, Code* codes, std::int64_t code_stride, double* final_scores,
                      double scale) {
  for (std::int64_t row = 0; row < in.rows; ++row) {
    Code* chosen = codes + row * code_stride;
    for (std::int64_t book = 0; book < in.books; ++book) {
      double best = -std::numeric_limits<double>::infinity();
      chosen[book] = 0;
      for (std::int64_t word = 0; word < in.words; ++word) {
        const std::int64_t column = book * in.words + word;
        double score = in.scores[row * in.stride + column];
        if (in.bias != nullptr) score += in.bias[column];
        for (std::int64_t a = 0; in.products != nullptr && a < book; ++a) {
          score -= in.products[(a * in.words + chosen[a]) * in.product_stride + column];
        }
        if (final_scores != nullptr) final_scores[row * in.stride + column] = score * scale;
        if (score > best) {
          best = score;
          chosen[book] = static_cast<Code>(word);
        }
      }
    }
  }
}
template void choose_codewords(const CodewordScores<double>&, std::uint8_t*, std::int64_t, double*, double);
template void choose_codewords(const CodewordScores<double>&, std::int32_t*, std::int64_t, double*, double);

template <>
void sum_codewords(const float* codebooks, const CodeRows<std::uint8_t>& in, float* out, std::int64_t out_stride,
                   bool keep) {
  HWY_DYNAMIC_DISPATCH(sum_u8)(codebooks, in, out, out_stride, keep);
}
template <>
void sum_codewords(const float* codebooks, const CodeRows<std::int32_t>& in, float* out, std::int64_t out_stride,
                   bool keep) {
  HWY_DYNAMIC_DISPATCH(sum_i32)(codebooks, in, out, out_stride, keep);
}

template <class T, class Code>
void sum_codewords(const T* codebooks, const CodeRows<Code>& in, T* out, std::int64_t out_stride, bool keep) {
  for (std::int64_t row = 0; row < in.rows; ++row) {
    T* sums = out + row * out_stride;
    if (!keep) std::fill_n(sums, in.width, T{0});
    for (std::int64_t book = 0; book < in.books; ++book) {
      add_into(sums, codebooks + (book * in.words + in.codes[row * in.stride + book]) * in.width, in.width);
    }
  }
}
template void sum_codewords(const double*, const CodeRows<std::uint8_t>&, double*, std::int64_t, bool);
template void sum_codewords(const double*, const CodeRows<std::int32_t>&, double*, std::int64_t, bool);

template <>
void scatter_to_codewords(const float* values, std::int64_t value_stride, float factor,
                          const CodeRows<std::uint8_t>& in, float* sums) {
  HWY_DYNAMIC_DISPATCH(scatter_u8)(values, value_stride, factor, in, sums);
}
template <>
void scatter_to_codewords(const float* values, std::int64_t value_stride, float factor,
                          const CodeRows<std::int32_t>& in, float* sums) {
  HWY_DYNAMIC_DISPATCH(scatter_i32)(values, value_stride, factor, in, sums);
}

template <class T, class Code>
void scatter_to_codewords(const T* values, std::int64_t value_stride, T factor, const CodeRows<Code>& in, T* sums) {
  for (std::int64_t row = 0; row < in.rows; ++row) {
    for (std::int64_t book = 0; book < in.books; ++book) {
      axpy(sums + (book * in.words + in.codes[row * in.stride + book]) * in.width, factor, values + row * value_stride,
           in.width);
    }
  }
}
template void scatter_to_codewords(const double*, std::int64_t, double, const CodeRows<std::uint8_t>&, double*);
template void scatter_to_codewords(const double*, std::int64_t, double, const CodeRows<std::int32_t>&, double*);

std::int64_t first_row_not_finite(const float* x, std::int64_t rows, std::int64_t width, std::int64_t stride) {
  return first_bad_row(x, rows, width, stride);
}
std::int64_t first_row_not_finite(const double* x, std::int64_t rows, std::int64_t width, std::int64_t stride) {
  return first_bad_row(x, rows, width, stride);
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
