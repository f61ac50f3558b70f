#include "tally/ops/quantization/decode_codes.h"

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/residual_quantization.h"
#include "tally/ops/quantization/codes.h"

namespace tally::ops {
namespace {

constexpr const char* kName = "decode_codes";
constexpr std::int64_t kRows = 1024;  // of a block

/// Codebooks as the kernels take them: all at once where codewords are added, one by one where they are laid end to
/// end. Calls body(codes, first codeword, first column).
template <class Code, class Body>
void for_each_part(const Code* codes, std::int64_t rows, const Shape& shape, bool concatenate, Body&& body) {
  kernels::CodeRows<Code> all{codes, shape[0], rows, shape[0], shape[1], shape[2]};
  if (!concatenate) return body(all, std::int64_t{0}, std::int64_t{0});
  for (std::int64_t book = 0; book < shape[0]; ++book) {
    kernels::CodeRows<Code> one = all;
    one.codes = codes + book;
    one.books = 1;
    body(one, book * shape[1] * shape[2], book * shape[2]);
  }
}

std::int64_t columns_of(const Shape& codebooks, bool concatenate) {
  return concatenate ? codebooks[0] * codebooks[2] : codebooks[2];
}

struct DecodeCodesRule {
  static constexpr std::string_view name = kName;
  Shape shape;
  bool concatenate;
  Saved codes;

  void backward(BackwardContext& g) const {
    const Tensor& values = g.cotangent();
    const Tensor& chosen = codes.get();
    const std::int64_t stride = columns_of(shape, concatenate);
    Tensor gradient = Tensor::zeros(shape, values.dtype());
    dispatch_floating(values.dtype(), kName, [&]<class T>(T) {
      T* out = gradient.mutable_data<T>();
      const T* from = values.data<T>();
      detail::dispatch_codes(chosen.dtype(), kName, [&]<class Code>(Code) {
        for_each_part(chosen.data<Code>(), chosen.dim(0), shape, concatenate,
                      [&](const kernels::CodeRows<Code>& rows, std::int64_t codeword, std::int64_t column) {
                        kernels::scatter_to_chosen(from + column, stride, rows, out + codeword);
                      });
      });
    });
    g.give(0, std::move(gradient));
  }
};

template <class Code>
void check_codes(const Tensor& codes, std::int64_t words) {
  const Code* values = codes.data<Code>();
  for (std::int64_t i = 0; i < codes.numel(); ++i) {
    const auto code = static_cast<std::int64_t>(values[i]);
    if (code >= 0 && code < words) continue;
    fail<ValueError>(kName, "needs codes in [0, ", words, "); code ", i % codes.dim(1), " of row ", i / codes.dim(1),
                     " is ", code);
  }
}

}  // namespace

Var decode_codes(const Var& codebooks, const Tensor& codes, const DecodeCodesOptions& options) {
  const Shape& shape = codebooks.shape();
  check<DTypeError>(is_floating(codebooks.dtype()), kName, "needs codebooks of f32 or f64; got ", codebooks.dtype());
  check<ShapeError>(shape.rank() == 3 && shape[0] > 0 && shape[1] > 0, kName,
                    "needs codebooks [B, W, D] with B and W of at least 1; got ", shape);
  check<ShapeError>(codes.rank() == 2 && codes.dim(1) == shape[0], kName, "needs codes [T, B] for codebooks ", shape,
                    "; got ", codes.shape());
  const Tensor from = codebooks.value().contiguous(), chosen = codes.contiguous();
  const std::int64_t rows = codes.dim(0), stride = columns_of(shape, options.concatenate);
  Tensor decoded({rows, stride}, codebooks.dtype());
  detail::dispatch_codes(chosen.dtype(), kName, [&]<class Code>(Code) {
    check_codes<Code>(chosen, shape[1]);
    dispatch_floating(from.dtype(), kName, [&]<class T>(T) {
      const T* words = from.data<T>();
      T* out = decoded.mutable_data<T>();
      parallel_for(rows, kRows, [&](std::int64_t begin, std::int64_t end) {
        for_each_part(chosen.data<Code>() + begin * shape[0], end - begin, shape, options.concatenate,
                      [&](const kernels::CodeRows<Code>& part, std::int64_t codeword, std::int64_t column) {
                        kernels::sum_codewords(words + codeword, part, out + begin * stride + column, stride);
                      });
      });
    });
  });
  return record(DecodeCodesRule{shape, options.concatenate, Saved(chosen)}, {&codebooks}, std::move(decoded));
}

void entries::add_decode_codes(Catalog& catalog) {
  catalog.add({
      .name = kName,
      .summary = "The sum of the codewords that a row's codes name, one of each codebook, or these end to end.",
      .inputs = {{"codebooks", "[B, W, D]"}, {"codes", "u8 or i32 [T, B]", InputKind::integer, false, "in [0, W)"}},
      .options = {{"concatenate", false, "lay them end to end instead of adding them"}},
      .outputs = {{"rows", "[T, D] or [T, B * D]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {decode_codes(in[0], in[1].value(), {.concatenate = options.flag("concatenate", false)})};
      },
      .samples =
          [] {
            std::vector<OpSample> samples;
            for (const bool concatenate : {false, true}) {
              const auto add = [&](const char* name, const Shape& codebooks, std::int64_t rows, DType dtype) {
                samples.push_back(
                    {name,
                     {sample_normal(codebooks, 1), sample_integers({rows, codebooks[0]}, 2, codebooks[1]).to(dtype)},
                     {{"concatenate", concatenate}}});
              };
              add("odd", {3, 4, 5}, 7, DType::u8);
              add("i32", {2, 5, 3}, 4, DType::i32);
              add("one", {1, 1, 1}, 1, DType::u8);
              add("wide", {2, 3, 70}, 3, DType::u8);
              add("many slices", {1, 3, 1}, 16500, DType::u8);  // of rows, whose sums are added in rounds
              add("empty", {2, 3, 2}, 0, DType::u8);
              add("no width", {2, 3, 0}, 2, DType::u8);
            }
            return samples;
          },
      .errors =
          [] {
            const Tensor codes = Tensor::from<std::int32_t>({0, 2, 1, 3}, {2, 2});
            return std::vector<OpError>{
                {"range", {sample_normal({2, 3, 2}, 1), codes}, {}, "in [0, 3); code 1 of row 1 is 3"},
                {"books", {sample_normal({3, 3, 2}, 1), codes}, {}, "needs codes [T, B] for codebooks [3, 3, 2]"},
                {"no word", {Tensor({2, 0, 2}, DType::f64), codes}, {}, "B and W of at least 1"},
                {"type", {sample_normal({2, 3, 2}, 1), codes.to(DType::i64)}, {}, "needs codes of u8 or i32; got i64"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({8, 16, 128}, 1), sample_integers({8192, 8}, 2, 16).to(DType::u8)}};
          },
  });
}

}  // namespace tally::ops
