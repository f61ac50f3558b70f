#include "tally/nn/memory/product_key_memory.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tally/nn/buffer_updates.h"
#include "tally/nn/initializers.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/norms/rms_norm.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {
namespace {

constexpr const char* kName = "ProductKeyMemory";

/// Rows of length 1.
Var unit_rows(const Var& x) {
  const double length = std::sqrt(static_cast<double>(x.dim(x.shape().rank() - 1)));
  return ops::rms_norm(x, {}, {.epsilon = 1e-12}) * (1 / length);
}

/// Lengths of rows of `width` elements.
std::vector<double> row_norms(const Tensor& x, std::int64_t width) {
  const std::vector<double> all = x.to_doubles();
  std::vector<double> norms;
  for (auto row = all.begin(); row != all.end(); row += width) {
    norms.push_back(std::sqrt(std::inner_product(row, row + width, row, 0.0)));
  }
  return norms;
}

}  // namespace

std::int64_t revive_rows(Tensor& rows, std::span<const std::int64_t> reads, RngKey key) {
  const std::int64_t total = std::accumulate(reads.begin(), reads.end(), std::int64_t{0});
  if (total == 0) return 0;
  std::vector<std::int64_t> until(reads.size());
  std::partial_sum(reads.begin(), reads.end(), until.begin());
  const std::int64_t width = rows.numel() / static_cast<std::int64_t>(reads.size());
  std::int64_t revived = 0;
  dispatch_floating(rows.dtype(), kName, [&]<class T>(T) {
    T* const all = rows.mutable_data<T>();
    for (std::size_t i = 0; i < reads.size(); ++i) {
      if (reads[i] > 0) continue;
      const auto drawn = static_cast<std::int64_t>(uniform_below(key, i, 0, static_cast<std::uint64_t>(total)));
      const auto from = std::upper_bound(until.begin(), until.end(), drawn) - until.begin();
      Tensor noise({width}, DType::f64);
      fill_normal(key.fold_in(i), noise, 0, 1);
      double squares = 0;
      for (std::int64_t j = 0; j < width; ++j) {
        squares += static_cast<double>(all[from * width + j]) * static_cast<double>(all[from * width + j]);
      }
      const double size = 0.1 * std::sqrt(squares / static_cast<double>(width));
      for (std::int64_t j = 0; j < width; ++j) {
        all[static_cast<std::int64_t>(i) * width + j] =
            static_cast<T>(static_cast<double>(all[from * width + j]) + size * noise.data<double>()[j]);
      }
      ++revived;
    }
  });
  return revived;
}

ProductKeyMemory ProductKeyMemory::make(const ProductKeyMemoryOptions& options, RngKey key) {
  check<ValueError>(options.in >= 1 && options.width >= 1 && options.sub_keys >= 1 && options.heads >= 1, kName,
                    "needs widths, sub-keys and heads of at least 1; got ", options.in, ", ", options.width, ", ",
                    options.sub_keys, " and ", options.heads);
  check<ValueError>(options.key_width >= 2 && options.key_width % 2 == 0, kName,
                    "needs queries of two halves, of an even width; got ", options.key_width);
  const std::int64_t n = options.sub_keys, w = options.key_width / 2;
  check<ValueError>(options.slots >= 1 && options.slots <= n * n, kName, "needs to read 1 to ", n * n,
                    " slots with each head; got ", options.slots);
  const bool pooled = options.output == ops::MemoryOutput::pooled;
  check<ValueError>(pooled || options.gate == ops::MemoryGate::none, kName,
                    "gates the sum of what was read, not single rows; got gate ", word_of(options.gate));
  const double deviation =
      options.deviation > 0 ? options.deviation : 1 / std::sqrt(static_cast<double>(options.width));
  ProductKeyMemory memory{
      .query = Linear::make({.in = options.in, .out = options.heads * options.key_width}, key.fold_in("query")),
      .query_norm = {},
      .score_scale = {},
      // Distinct keys for each head and half.
      .keys = Parameter(uniform({options.heads, 2, n, w}, 1 / std::sqrt(static_cast<double>(w)), key.fold_in("keys"))),
      .values = options.own_values ? Parameter(normal({n * n, options.width}, deviation, key.fold_in("values")))
                                   : Parameter(),
      .gate = {},
      .slot_reads = Buffer(Tensor::zeros({n * n}, DType::i64)),
      .slot_weights = Buffer(Tensor::zeros({n * n}, DType::f64)),
      .sub_key_reads = Buffer(Tensor::zeros({options.heads, 2, n}, DType::i64)),
      .query_norms = Buffer(Tensor::zeros({2}, DType::f64)),
      .query_dropout = {options.query_dropout},
      .norm = options.norm,
      .options = {.heads = options.heads,
                  .slots = options.slots,
                  .weights = options.weights,
                  .gate = options.gate,
                  .output = options.output}};
  if (options.norm == MemoryNorm::layer) memory.query_norm = LayerNorm::make({options.key_width});
  if (options.norm == MemoryNorm::unit) {
    // Scores then begin about as far apart as those of normed queries and the keys above.
    Tensor scale({options.heads, 1});
    scale.fill(0.6 * std::sqrt(static_cast<double>(w)));
    memory.score_scale = Parameter(scale);
  }
  if (options.gate != ops::MemoryGate::none) {
    const std::int64_t logits = options.gate == ops::MemoryGate::scalar ? 1 : options.width;
    memory.gate = Linear::make({.in = options.in, .out = logits}, key.fold_in("gate"));
  }
  return memory;
}

std::pair<Var, Var> ProductKeyMemory::queries_and_keys(const Var& rows, const Context& context) const {
  const std::int64_t heads = keys.shape()[0], w = keys.shape()[3], count = rows.dim(0);
  Var queries = query(rows), used_keys = keys;
  if (norm == MemoryNorm::layer) {
    queries = query_norm(ops::reshape(queries, Shape{count * heads, 2 * w}));
  } else if (norm == MemoryNorm::unit) {
    used_keys = unit_rows(used_keys);
    queries = unit_rows(ops::reshape(queries, Shape{count, heads, 2, w})) *
              ops::reshape(score_scale.var(), Shape{1, heads, 1, 1});
  }
  queries = ops::reshape(queries, Shape{count, heads * 2 * w});
  return {query_dropout(queries, context.at("query_dropout")), used_keys};
}

void ProductKeyMemory::post_reads(const Var& queries, const ops::ProductKeyMemoryResult& read,
                                  const Context& context) const {
  if (!context.training || context.updates == nullptr || read.slots.numel() == 0) return;
  const std::int64_t heads = keys.shape()[0], n = keys.shape()[2], count = read.slots.numel();
  Tensor ones({count}, DType::i64), sub_keys({2 * count}, DType::i64), twice({2 * count}, DType::i64);
  ones.fill(1);
  twice.fill(1);
  const std::int64_t* slots = read.slots.data<std::int64_t>();
  auto* places = sub_keys.mutable_data<std::int64_t>();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t table = i / options.slots % heads * 2;
    places[2 * i] = table * n + slots[i] / n;
    places[2 * i + 1] = (table + 1) * n + slots[i] % n;
  }
  const Tensor flat = read.slots.reshape(Shape{count});
  auto& changes = context.updates->changes;
  changes.push_back({.buffer = slot_reads.value(), .amount = ones, .places = flat});
  changes.push_back(
      {.buffer = slot_weights.value(), .amount = read.weights.value().to(DType::f64).contiguous(), .places = flat});
  const std::vector<double> lengths = row_norms(queries.value(), 2 * keys.shape()[3]);
  const double total = std::accumulate(lengths.begin(), lengths.end(), 0.0);
  changes.push_back({.buffer = query_norms.value(),
                     .amount = Tensor::from<double>({total, static_cast<double>(lengths.size())}, {2})});
  changes.push_back({.buffer = sub_key_reads.value(), .amount = twice, .places = sub_keys});
}

ops::ProductKeyMemoryResult ProductKeyMemory::operator()(const Var& rows, const Var& shared,
                                                         const Context& context) const {
  const auto [queries, used_keys] = queries_and_keys(rows, context);
  const Var logits = options.gate == ops::MemoryGate::none ? Var() : gate(rows);
  ops::ProductKeyMemoryResult read = ops::product_key_memory(queries, used_keys, shared, logits, options);
  post_reads(queries, read, context);
  return read;
}

ops::ProductKeyMemoryResult ProductKeyMemory::operator()(const Var& rows, const Context& context) const {
  check<ValueError>(values.defined(), kName, "has no values of its own: call it with some");
  return (*this)(rows, values, context);
}

double ProductKeyMemory::mean_query_norm() const {
  const std::vector<double> sums = query_norms.value().to_doubles();
  return sums[1] == 0 ? 0 : sums[0] / sums[1];
}

double ProductKeyMemory::mean_key_norm() const {
  const std::vector<double> norms = row_norms(keys.value(), keys.shape()[3]);
  return std::accumulate(norms.begin(), norms.end(), 0.0) / static_cast<double>(norms.size());
}

std::int64_t ProductKeyMemory::revive(RngKey key) {
  const std::int64_t tables = keys.shape()[0] * 2, n = keys.shape()[2];
  const auto reads = sub_key_reads.value().span<std::int64_t>();
  std::int64_t revived = 0;
  Tensor& all = keys.mutable_value();
  const Tensor by_table = all.reshape(Shape{tables, n, keys.shape()[3]});
  for (std::int64_t table = 0; table < tables; ++table) {
    Tensor of_table = by_table.slice(0, table, table + 1);
    revived += revive_rows(of_table, reads.subspan(static_cast<std::size_t>(table * n), static_cast<std::size_t>(n)),
                           key.fold_in("keys").fold_in(static_cast<std::uint64_t>(table)));
  }
  if (values.defined()) {
    revived += revive_rows(values.mutable_value(), slot_reads.value().span<std::int64_t>(), key.fold_in("values"));
  }
  slot_reads.mutable_value().fill(0);
  slot_weights.mutable_value().fill(0);
  sub_key_reads.mutable_value().fill(0);
  query_norms.mutable_value().fill(0);
  return revived;
}

}  // namespace tally::nn
