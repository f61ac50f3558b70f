#include "tally/ops/quantization/vector_quantization.h"

#include <catch2/catch.hpp>

#include "tally/autograd/tape.h"
#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/quantization/decode_codes.h"
#include "tally/ops/tensor/reduce.h"
#include "tests/ops/references.h"

namespace vector_quantization_test {

using namespace tally;
using Catch::Matchers::Contains;
using ops::CodewordAssignment;
using ops::CodewordSimilarity;
using ops::VectorQuantizationOptions;

namespace {

struct Problem {
  Tensor x, codebooks, bilinear;
};

Problem problem(std::int64_t rows, std::int64_t books, std::int64_t words, std::int64_t width,
                DType dtype = DType::f64) {
  Problem made{Tensor({rows, width}, dtype), Tensor({books, words, width}, dtype), Tensor({width, width}, dtype)};
  fill_normal({1, 1}, made.x, 0, 1);
  fill_normal({1, 2}, made.codebooks, 0, 0.5);
  fill_normal({1, 3}, made.bilinear, 0, 0.4);
  return made;
}

struct Differentiated {
  Tensor reconstruction, logits, codes, x, codebooks, bilinear;
};

Differentiated differentiate(const Problem& in, const VectorQuantizationOptions& options, const Tensor& rows,
                             const Tensor& logits) {
  Tape tape;
  const Var x = tape.input(in.x), codebooks = tape.input(in.codebooks), bilinear = tape.input(in.bilinear);
  ops::VectorQuantization out;
  {
    const Recording on(tape);
    out = ops::vector_quantization(x, codebooks, bilinear, options);
  }
  const std::vector<Var> outputs{out.reconstruction, out.logits};
  const std::vector<Tensor> cotangents{rows, logits};
  const Gradients gradients = tape.backward(outputs, cotangents);
  return {out.reconstruction.value(), out.logits.value(), out.codes, gradients[x],
          gradients[codebooks],       gradients[bilinear]};
}

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<double> va = a.to_doubles(), vb = b.to_doubles();
  double largest = 0;
  for (std::size_t i = 0; i < va.size(); ++i) largest = std::max(largest, std::abs(va[i] - vb[i]));
  return largest;
}

Tensor normal(const Shape& shape, std::uint64_t stream, DType dtype) {
  Tensor tensor(shape, dtype);
  fill_normal({2, stream}, tensor, 0, 1);
  return tensor;
}

}  // namespace

TEST_CASE("codes are those of the plain residual loop", "[vector_quantization]") {
  for (const std::int64_t words : {1, 16, 31, 256, 257}) {
    const Problem in = problem(120, 6, words, 24);
    for (const std::string similarity : {"bilinear", "dot", "squared_distance"}) {
      INFO(similarity << " with " << words << " words");
      const bool bilinear = similarity == "bilinear";
      const VectorQuantizationOptions options{.similarity = bilinear ? CodewordSimilarity::bilinear
                                                            : similarity == "dot"
                                                                ? CodewordSimilarity::dot
                                                                : CodewordSimilarity::squared_distance};
      const Tensor matrix = bilinear ? in.bilinear : Tensor();
      const std::vector<Tensor> expected = tally::testing::all_references().at("vector_quantization")(
          std::vector<Tensor>{in.x, in.codebooks, matrix}, {{"similarity", similarity}});
      const auto out = ops::vector_quantization(Var(in.x), Var(in.codebooks), Var(matrix), options);
      CHECK(out.codes.dtype() == (words <= 256 ? DType::u8 : DType::i32));
      CHECK(identical(out.codes, expected[2]));
      CHECK(largest_difference(out.reconstruction.value(), expected[0]) < 1e-12);
      CHECK(largest_difference(out.logits.value(), expected[1]) < 1e-10);
    }
  }
}

TEST_CASE("codes alone, and rows decoded from them, are those of the whole op", "[vector_quantization]") {
  for (const std::int64_t words : {5, 16, 40, 300}) {
    for (const std::int64_t together : {0, 1, 3}) {
      const VectorQuantizationOptions options{.books_together = together};
      const Problem in = problem(1030, 4, words, 20, DType::f32);
      const auto tables = ops::vector_quantization_tables(Var(in.codebooks), Var(in.bilinear), options);
      const auto out = ops::vector_quantization(Var(in.x), tables, options);
      CHECK(identical(ops::encode_codes(in.x, tables, options), out.codes));
      CHECK(identical(ops::decode_codes(Var(in.codebooks), out.codes).value(), out.reconstruction.value()));
    }
  }
}

TEST_CASE("what goes together matters to nothing but rounding", "[vector_quantization]") {
  for (const CodewordAssignment assignment : {CodewordAssignment::hard, CodewordAssignment::soft}) {
    const Problem in = problem(300, 7, 9, 12);
    const Tensor rows = normal({300, 12}, 1, DType::f64), logits = normal({300, 7, 9}, 2, DType::f64);
    const Differentiated whole = differentiate(in, {.assignment = assignment, .books_together = 7}, rows, logits);
    for (const std::int64_t together : {0, 1, 2, 3, 5, 100}) {
      const Differentiated other =
          differentiate(in, {.assignment = assignment, .books_together = together}, rows, logits);
      INFO(together << " together");
      CHECK(identical(other.codes, whole.codes));
      for (const auto member : {&Differentiated::reconstruction, &Differentiated::logits, &Differentiated::x,
                                &Differentiated::codebooks, &Differentiated::bilinear}) {
        CHECK(largest_difference(other.*member, whole.*member) < 1e-9);
      }
    }
  }
}

TEST_CASE("gradients of many rows are the sum over pieces, for any number of threads", "[vector_quantization]") {
  struct Restore {
    int threads = num_threads();
    ~Restore() { set_num_threads(threads); }
  } restore;
  // Words few and many for the width: backward goes through the tables, then through x; so it does between groups.
  for (const auto& [width, together] : {std::pair{20, 0}, std::pair{3, 0}, std::pair{12, 1}, std::pair{12, 2}}) {
    for (const CodewordAssignment assignment : {CodewordAssignment::hard, CodewordAssignment::soft}) {
      const VectorQuantizationOptions options{.assignment = assignment, .books_together = together};
      const Problem in = problem(4500, 3, 6, width);
      const Tensor rows = normal({4500, width}, 1, DType::f64), logits = normal({4500, 3, 6}, 2, DType::f64);
      const Differentiated whole = differentiate(in, options, rows, logits);
      std::vector<double> codebooks(static_cast<std::size_t>(whole.codebooks.numel()));
      std::vector<double> bilinear(static_cast<std::size_t>(whole.bilinear.numel()));
      for (std::int64_t begin = 0; begin < 4500; begin += 900) {
        const auto cut = [&](const Tensor& tensor) { return tensor.slice(0, begin, begin + 900).clone(); };
        const Differentiated piece =
            differentiate({cut(in.x), in.codebooks, in.bilinear}, options, cut(rows), cut(logits));
        CHECK(largest_difference(piece.x, cut(whole.x)) < 1e-12);
        for (std::size_t i = 0; i < codebooks.size(); ++i) codebooks[i] += piece.codebooks.to_doubles()[i];
        for (std::size_t i = 0; i < bilinear.size(); ++i) bilinear[i] += piece.bilinear.to_doubles()[i];
      }
      CHECK(largest_difference(whole.codebooks, Tensor::from(codebooks, whole.codebooks.shape())) < 1e-8);
      CHECK(largest_difference(whole.bilinear, Tensor::from(bilinear, whole.bilinear.shape())) < 1e-8);

      const Problem narrow{in.x.to(DType::f32), in.codebooks.to(DType::f32), in.bilinear.to(DType::f32)};
      std::vector<Differentiated> runs;
      for (const int threads : {1, 2, 8}) {
        set_num_threads(threads);
        runs.push_back(differentiate(narrow, options, rows.to(DType::f32), logits.to(DType::f32)));
      }
      for (const Differentiated& run : runs) {
        CHECK(identical(run.codes, runs[0].codes));
        CHECK(identical(run.reconstruction, runs[0].reconstruction));
        CHECK(identical(run.x, runs[0].x));
        CHECK(identical(run.codebooks, runs[0].codebooks));
        CHECK(identical(run.bilinear, runs[0].bilinear));
      }
    }
  }
}

TEST_CASE("gradients in f32 are those in f64, for any number of words and rows", "[vector_quantization]") {
  // Whole vectors of words and parts of one, one row and rows that are no multiple of those that go together.
  for (const std::int64_t words : {1, 5, 8, 16, 24, 32, 64, 100, 128, 256}) {
    for (const std::int64_t count : {1, 7, 70}) {
      for (const CodewordAssignment assignment : {CodewordAssignment::hard, CodewordAssignment::soft}) {
        INFO(words << " words, " << count << " rows, " << (assignment == CodewordAssignment::soft ? "soft" : "hard"));
        // One group for one row, two for seven, as many as words make of them for seventy.
        const VectorQuantizationOptions options{.temperature = 0.7,
                                                .assignment = assignment,
                                                .books_together = count == 70  ? 0
                                                                  : count == 7 ? 2
                                                                               : 3};
        const Problem in = problem(count, 3, words, 12);
        const Tensor rows = normal({count, 12}, 1, DType::f64), logits = normal({count, 3, words}, 2, DType::f64);
        const Differentiated exact = differentiate(in, options, rows, logits);
        const Problem narrow{in.x.to(DType::f32), in.codebooks.to(DType::f32), in.bilinear.to(DType::f32)};
        const Differentiated out = differentiate(narrow, options, rows.to(DType::f32), logits.to(DType::f32));
        REQUIRE(identical(out.codes, exact.codes));
        for (const auto gradient : {&Differentiated::x, &Differentiated::codebooks, &Differentiated::bilinear}) {
          const Tensor zero = Tensor::zeros((exact.*gradient).shape(), DType::f64);
          CHECK(largest_difference(out.*gradient, exact.*gradient) <
                3e-6 * (1 + largest_difference(exact.*gradient, zero)));
        }
      }
    }
  }
}

TEST_CASE("what is not reconstructed changes neither codes nor logits nor their gradients", "[vector_quantization]") {
  for (const std::int64_t together : {0, 1, 2}) {
    for (const CodewordAssignment assignment : {CodewordAssignment::hard, CodewordAssignment::soft}) {
      VectorQuantizationOptions options{.assignment = assignment, .books_together = together};
      const Problem in = problem(700, 3, 16, 24, DType::f32);
      const Tensor cotangent = normal({700, 3, 16}, 2, DType::f32);
      const auto run = [&](bool reconstruct) {
        options.reconstruct = reconstruct;
        Tape tape;
        const Var x = tape.input(in.x), codebooks = tape.input(in.codebooks), bilinear = tape.input(in.bilinear);
        ops::VectorQuantization out;
        {
          const Recording on(tape);
          out = ops::vector_quantization(x, codebooks, bilinear, options);
        }
        CHECK(out.reconstruction.defined() == reconstruct);
        const Gradients gradients = tape.backward(std::span(&out.logits, 1), std::span(&cotangent, 1));
        return Differentiated{{},           out.logits.value(),   out.codes,
                              gradients[x], gradients[codebooks], gradients[bilinear]};
      };
      const Differentiated with = run(true), without = run(false);
      CHECK(identical(with.codes, without.codes));
      CHECK(identical(with.logits, without.logits));
      CHECK(identical(with.x, without.x));
      CHECK(identical(with.codebooks, without.codebooks));
      CHECK(identical(with.bilinear, without.bilinear));
    }
  }
}

TEST_CASE("a single word has no choice, so no gradient passes through it to x", "[vector_quantization]") {
  const Problem in = problem(5, 3, 1, 4);
  const Differentiated out = differentiate(in, {}, normal({5, 4}, 1, DType::f64), Tensor::zeros({5, 3, 1}, DType::f64));
  for (const double value : out.x.to_doubles()) CHECK(value == 0);
}

TEST_CASE("equal similarities take the lowest word", "[vector_quantization]") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t words : {3, 16, 33, 300}) {
      const Tensor x = Tensor::zeros({7, 2}, dtype), codebooks = Tensor::full({2, words, 2}, 0.5, dtype);
      const auto out = ops::vector_quantization(Var(x), Var(codebooks), Var(), {.similarity = CodewordSimilarity::dot});
      for (const double code : out.codes.to_doubles()) CHECK(code == 0);
    }
  }
}

TEST_CASE("of equal codewords the lowest is taken, wherever they stand", "[vector_quantization]") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t words : {3, 5, 16, 31, 33, 128, 300}) {
      for (const std::int64_t width : {1, 7, 16, 128}) {
        Problem in = problem(301, 2, words, width, dtype);
        // The last and the middle word are copies of the first.
        const std::size_t bytes = static_cast<std::size_t>(width) * size_of(dtype);
        for (const std::int64_t book : {0, 1}) {
          std::byte* const first = in.codebooks.mutable_raw_data() + static_cast<std::size_t>(book * words) * bytes;
          for (const std::int64_t copy : {words / 2, words - 1}) {
            std::copy_n(first, bytes, first + static_cast<std::size_t>(copy) * bytes);
          }
        }
        for (const CodewordSimilarity similarity :
             {CodewordSimilarity::bilinear, CodewordSimilarity::dot, CodewordSimilarity::squared_distance}) {
          const bool bilinear = similarity == CodewordSimilarity::bilinear;
          const auto out = ops::vector_quantization(Var(in.x), Var(in.codebooks), bilinear ? Var(in.bilinear) : Var(),
                                                    {.similarity = similarity});
          INFO(dtype << ", " << words << " words of " << width << ", similarity " << static_cast<int>(similarity));
          std::int64_t copies = 0;
          for (const double code : out.codes.to_doubles()) copies += code == words / 2 || code == words - 1;
          CHECK(copies == 0);
        }
      }
    }
  }
}

TEST_CASE("codes alone need no memory for the scores of all rows", "[vector_quantization]") {
  const Problem in = problem(40000, 4, 16, 8, DType::f32);
  const auto tables = ops::vector_quantization_tables(Var(in.codebooks), Var(in.bilinear));
  const MemoryScope scope;
  const Tensor codes = ops::encode_codes(in.x, tables);
  CHECK(scope.peak() < 40000 * 64 * 4 / 2);
}

TEST_CASE("kernels' own memory is counted", "[vector_quantization]") {
  const Problem in = problem(3000, 4, 16, 8, DType::f32);
  const MemoryScope forward;
  (void)ops::encode_codes(in.x, ops::vector_quantization_tables(Var(in.codebooks), Var(in.bilinear)));
  CHECK(forward.peak() > 64 * 64 * 4);  // scores of a tile
  const Tensor rows = normal({3000, 8}, 1, DType::f32), logits = normal({3000, 4, 16}, 2, DType::f32);
  const MemoryScope scope;
  (void)differentiate(in, {}, rows, logits);
  CHECK(scope.peak() > 3000 * 64 * 4 + 2048 * 64 * 4);  // logits, and slopes of a band
}

TEST_CASE("the losses of VQ-VAE part their gradients", "[vector_quantization]") {
  const Problem in = problem(9, 2, 4, 3);
  Tape tape;
  const Var x = tape.input(in.x), codebooks = tape.input(in.codebooks);
  Var loss;
  Tensor codes, reconstruction;
  {
    const Recording on(tape);
    const auto out = ops::vector_quantization(x.detach(), codebooks.detach(), Var(in.bilinear));
    codes = out.codes;
    reconstruction = out.reconstruction.value();
    const Var commitment = ops::sum(ops::square(x - Var(reconstruction))) * (1.0 / 9);
    const Var codebook = ops::sum(ops::square(ops::decode_codes(codebooks, codes) - x.detach()));
    const std::vector<Var> outputs{commitment, codebook};
    const std::vector<Tensor> ones{Tensor::scalar(1, DType::f64), Tensor::scalar(1, DType::f64)};
    const Gradients gradients = tape.backward(outputs, ones);
    const std::vector<double> gx = gradients[x].to_doubles(), gc = gradients[codebooks].to_doubles();
    const std::vector<double> vx = in.x.to_doubles(), vr = reconstruction.to_doubles();
    std::vector<double> expected(gc.size());
    for (std::size_t i = 0; i < vx.size(); ++i) {
      CHECK(gx[i] == Approx(2.0 / 9 * (vx[i] - vr[i])));
      for (std::size_t book = 0; book < 2; ++book) {
        const auto word = static_cast<std::size_t>(codes.to_doubles()[i / 3 * 2 + book]);
        expected[(book * 4 + word) * 3 + i % 3] += 2 * (vr[i] - vx[i]);
      }
    }
    for (std::size_t i = 0; i < gc.size(); ++i) CHECK(gc[i] == Approx(expected[i]).margin(1e-12));
  }
}

TEST_CASE("tables of another quantization are refused", "[vector_quantization]") {
  const Problem in = problem(4, 3, 5, 2);
  const auto independent = ops::vector_quantization_tables(Var(in.codebooks), Var(in.bilinear), {.residual = false});
  CHECK_THROWS_WITH(ops::vector_quantization(Var(in.x), independent),
                    Contains("needs inner products [15, 15] for residual passes; got [0, 0]"));
  const auto pairs = ops::vector_quantization_tables(Var(in.codebooks), Var(in.bilinear), {.books_together = 2});
  CHECK_THROWS_WITH(ops::vector_quantization(Var(in.x), pairs),
                    Contains("needs inner products [15, 15] for residual passes; got [15, 10]"));
  CHECK_THROWS_WITH(ops::encode_codes(in.x, independent, {.assignment = CodewordAssignment::soft, .residual = false}),
                    Contains("needs hard assignment"));
  CHECK_THROWS_AS(ops::encode_codes(in.x.to(DType::f32), independent, {.residual = false}), DTypeError);
}

}  // namespace vector_quantization_test
