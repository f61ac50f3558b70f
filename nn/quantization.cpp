#include "tally/nn/quantization.h"

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/nn/buffer_updates.h"
#include "tally/nn/initializers.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/quantization/codes.h"
#include "tally/ops/quantization/decode_codes.h"
#include "tally/ops/quantization/product_quantization.h"

namespace tally::nn {
namespace {

constexpr const char* kQuantizer = "VectorQuantizer";

using ops::CodewordAssignment;
using ops::CodewordSimilarity;

CodebookScheme scheme_of(const VectorQuantizerOptions& options) {
  if (options.product) return CodebookScheme::product;
  return options.quantization.residual ? CodebookScheme::residual : CodebookScheme::independent;
}

bool is_hard(const VectorQuantizerOptions& options) {
  return options.quantization.assignment == CodewordAssignment::hard;
}

void check_options(const VectorQuantizerOptions& options) {
  check<ValueError>(options.codebooks > 0 && options.codewords > 0 && options.width > 0, kQuantizer,
                    "needs sizes above 0; got codebooks ", options.codebooks, ", codewords ", options.codewords,
                    ", width ", options.width);
  ops::detail::check_temperature(kQuantizer, options.quantization.temperature);
  if (options.product) {
    check<ValueError>(options.width % options.codebooks == 0, kQuantizer,
                      "needs a width that the codebooks divide; got width ", options.width, ", codebooks ",
                      options.codebooks);
    check<ValueError>(options.quantization.similarity != CodewordSimilarity::bilinear, kQuantizer,
                      "needs similarity dot or squared_distance for product codebooks; got bilinear");
    check<ValueError>(!options.codeword_bias, kQuantizer,
                      "needs additive codebooks for codeword_bias; got product ones");
  }
  if (!options.averaged) return;
  check<ValueError>(is_hard(options), kQuantizer, "needs hard assignments for averages");
  check<ValueError>(options.decay >= 0 && options.decay < 1, kQuantizer, "needs a decay in [0, 1); got ",
                    options.decay);
  check<ValueError>(options.smoothing >= 0, kQuantizer, "needs a smoothing of at least 0; got ", options.smoothing);
}

void check_counted(const VectorQuantizer& quantizer) {
  check<ValueError>(quantizer.usage.defined(), kQuantizer, "needs the option count_usage");
}

/// Begins the averages anew at the codewords, each with a count of 1.
void restart_averages(VectorQuantizer& quantizer) {
  quantizer.average_counts.mutable_value().fill(1);
  quantizer.average_sums.mutable_value().copy_from(quantizer.averages.value());
}

void post_updates(const VectorQuantizer& quantizer, const Tensor& x, const Tensor& codes, const Context& context) {
  const VectorQuantizerOptions& options = quantizer.options;
  if (!context.training || context.updates == nullptr || x.dim(0) == 0) return;
  if (!options.count_usage && !options.averaged) return;
  const Tensor counts = code_counts(codes, options.codewords);
  BufferUpdates& updates = *context.updates;
  if (options.count_usage) updates.changes.push_back({quantizer.usage.value(), counts});
  if (!options.averaged) return;
  const Tensor &averages = quantizer.averages.value(), &average_counts = quantizer.average_counts.value(),
               &average_sums = quantizer.average_sums.value();
  const Tensor sums = codeword_sums(x, codes, averages, scheme_of(options));
  updates.changes.push_back({average_counts, counts, options.decay, 1 - options.decay});
  updates.changes.push_back({average_sums, sums, options.decay, 1 - options.decay});
  updates.means.push_back({averages, average_sums, average_counts, options.smoothing});
}

/// Replaces the codewords of one book that were chosen less than `least` times by rows [T, width of a codeword].
std::int64_t refresh_book(VectorQuantizer& quantizer, const Tensor& rows, std::int64_t book, RngKey key,
                          std::int64_t least) {
  const std::int64_t words = quantizer.options.codewords, width = rows.dim(1);
  const std::int64_t* used = quantizer.usage.value().data<std::int64_t>() + book * words;
  const std::vector<std::int64_t> order = random_permutation(key, rows.dim(0));
  std::size_t replaced = 0;
  dispatch_floating(rows.dtype(), kQuantizer, [&]<class T>(T) {
    for (std::int64_t word = 0; word < words; ++word) {
      if (used[word] >= least) continue;
      const T* from = rows.data<T>() + order[replaced++ % order.size()] * width;
      const std::int64_t at = book * words + word;
      std::copy_n(from, width, quantizer.mutable_codewords().mutable_data<T>() + at * width);
      if (!quantizer.averages.defined()) continue;
      quantizer.average_counts.mutable_value().mutable_data<T>()[at] = 1;
      std::copy_n(from, width, quantizer.average_sums.mutable_value().mutable_data<T>() + at * width);
    }
  });
  return static_cast<std::int64_t>(replaced);
}

/// Tables of codewords with what is added to their similarities, if anything.
ops::VectorQuantizationTables tables_of(const Var& codewords, const Var& bilinear, const Var& bias,
                                        const ops::VectorQuantizationOptions& options) {
  ops::VectorQuantizationTables tables = ops::vector_quantization_tables(codewords, bilinear, options);
  if (bias.defined()) tables.bias = tables.bias.numel() > 0 ? tables.bias + bias : bias;
  return tables;
}

/// Takes what one codebook encodes off the rows.
void subtract_encoded(const VectorQuantizer& quantizer, std::int64_t book, Tensor& rest) {
  const Tensor words = quantizer.codewords().value().slice(0, book, book + 1).contiguous();
  const std::int64_t first = book * quantizer.options.codewords;
  Tensor bias;
  if (quantizer.bias.defined()) bias = quantizer.bias.value().slice(0, first, first + quantizer.options.codewords);
  ops::VectorQuantizationOptions options = quantizer.options.quantization;
  options.assignment = CodewordAssignment::hard;
  const Tensor codes =
      ops::encode_codes(rest, tables_of(Var(words), quantizer.bilinear.value(), Var(bias), options), options);
  const Tensor decoded = ops::decode_codes(Var(words), codes).value();
  dispatch_floating(rest.dtype(), kQuantizer,
                    [&]<class T>(T) { kernels::axpy(rest.mutable_data<T>(), T{-1}, decoded.data<T>(), rest.numel()); });
}

void check_rows(const VectorQuantizer& quantizer, const Tensor& x) {
  check<ShapeError>(x.rank() == 2 && x.dim(1) == quantizer.options.width, kQuantizer, "needs rows [T, ",
                    quantizer.options.width, "]; got ", x.shape());
  check<DTypeError>(x.dtype() == quantizer.codewords().dtype(), kQuantizer, "needs rows of ",
                    quantizer.codewords().dtype(), "; got ", x.dtype());
  check<ValueError>(x.dim(0) > 0, kQuantizer, "needs at least one row");
}

}  // namespace

VectorQuantizer VectorQuantizer::make(const VectorQuantizerOptions& options, RngKey key) {
  check_options(options);
  const std::int64_t width = options.product ? options.width / options.codebooks : options.width;
  const Shape counts{options.codebooks, options.codewords}, shape{options.codebooks, options.codewords, width};
  Tensor words = xavier_normal(shape, key.fold_in("codebooks"));
  VectorQuantizer made;
  made.options = options;
  if (options.averaged) {
    made.averages = Buffer(std::move(words));
    made.average_counts = Buffer(Tensor(counts));
    made.average_sums = Buffer(Tensor(shape));
    restart_averages(made);
  } else {
    made.codebooks = Parameter(std::move(words));
  }
  if (options.quantization.similarity == CodewordSimilarity::bilinear) {
    made.bilinear = Parameter(xavier_normal({options.width, options.width}, key.fold_in("bilinear")));
  }
  if (options.codeword_bias) made.bias = Parameter(Tensor::zeros({options.codebooks * options.codewords}));
  if (options.count_usage) made.usage = Buffer(Tensor::zeros(counts, DType::i64));
  return made;
}

ops::VectorQuantizationTables VectorQuantizer::tables() const {
  if (options.product) return {codewords(), {}, {}, {}, {}};
  return tables_of(codewords(), bilinear, bias, options.quantization);
}

ops::VectorQuantization VectorQuantizer::operator()(const Var& x, const ops::VectorQuantizationTables& prepared,
                                                    const Context& context) const {
  const ops::VectorQuantization result =
      options.product ? ops::product_quantization(x, prepared.codebooks,
                                                  {.similarity = options.quantization.similarity,
                                                   .temperature = options.quantization.temperature,
                                                   .assignment = options.quantization.assignment})
                      : ops::vector_quantization(x, prepared, options.quantization);
  post_updates(*this, x.value(), result.codes, context);
  return result;
}

Tensor VectorQuantizer::encode(const Tensor& x) const {
  const Paused paused;
  if (is_hard(options) && !options.product) return ops::encode_codes(x, tables(), options.quantization);
  return (*this)(Var(x)).codes;
}

Var VectorQuantizer::decode(const Tensor& codes) const {
  return ops::decode_codes(codewords(), codes, {.concatenate = options.product});
}

void VectorQuantizer::initialize(const Tensor& x, RngKey key, const KMeansOptions& kmeans_options) {
  check_rows(*this, x);
  Tensor& words = mutable_codewords();
  switch (scheme_of(options)) {
    case CodebookScheme::residual:
      words.copy_from(residual_kmeans(x, options.codebooks, options.codewords, key, kmeans_options));
      break;
    case CodebookScheme::product:
      words.copy_from(product_kmeans(x, options.codebooks, options.codewords, key, kmeans_options));
      break;
    case CodebookScheme::independent:
      for (std::int64_t book = 0; book < options.codebooks; ++book) {
        const Tensor centres =
            kmeans(x, options.codewords, key.fold_in(static_cast<std::uint64_t>(book)), kmeans_options);
        std::copy_n(centres.raw_data(), centres.bytes(),
                    words.mutable_raw_data() + static_cast<std::size_t>(book) * centres.bytes());
      }
      break;
  }
  if (options.averaged) restart_averages(*this);
  if (options.count_usage) reset_usage();
}

std::vector<double> VectorQuantizer::perplexity() const {
  check_counted(*this);
  return nn::perplexity(usage.value());
}

std::int64_t VectorQuantizer::count_dead(std::int64_t least) const {
  check_counted(*this);
  const std::span<const std::int64_t> used = usage.value().span<std::int64_t>();
  return std::count_if(used.begin(), used.end(), [&](std::int64_t count) { return count < least; });
}

std::int64_t VectorQuantizer::refresh_dead(const Tensor& x, RngKey key, std::int64_t least) {
  check_counted(*this);
  check_rows(*this, x);
  check<ValueError>(all_finite(x), kQuantizer, "needs finite rows");
  const CodebookScheme scheme = scheme_of(options);
  const std::int64_t width = codewords().dim(2);
  Tensor rest = x.clone();
  std::int64_t replaced = 0;
  for (std::int64_t book = 0; book < options.codebooks; ++book) {
    const Tensor rows = options.product ? rest.slice(1, book * width, (book + 1) * width).contiguous() : rest;
    replaced += refresh_book(*this, rows, book, key.fold_in(static_cast<std::uint64_t>(book)), least);
    if (scheme == CodebookScheme::residual && book + 1 < options.codebooks) subtract_encoded(*this, book, rest);
  }
  reset_usage();
  return replaced;
}

void VectorQuantizer::reset_usage() {
  check_counted(*this);
  usage.mutable_value().fill(0);
}

}  // namespace tally::nn
