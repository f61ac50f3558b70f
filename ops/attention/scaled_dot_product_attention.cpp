#include "tally/ops/attention/scaled_dot_product_attention.h"

#include <algorithm>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/scaled_dot_product.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "scaled_dot_product_attention";

/// A call that passed its checks: sizes and settings as plain numbers, and the tables, dense.
struct GeneralCall {
  std::int64_t heads, key_heads, width, value_width;
  double scale, soft_cap;
  std::int64_t left, right;
  Tensor bias, visible, starts;
};

void check_offsets(std::string_view op, std::string_view of, const Offsets& offsets, std::int64_t rows) {
  check<ShapeError>(offsets.total() == rows, op, "needs offsets of ", of, " that end at their number of rows ", rows,
                    "; got ", offsets.total());
}

/// A table of the places of a call; it need not be given.
void check_table(std::string_view op, std::string_view name, const Tensor& table, const Offsets& offsets,
                 const Offsets& key_offsets, std::int64_t heads) {
  if (!table.defined()) return;
  const Shape& shape = table.shape();
  const std::int64_t pairs = offsets.count(), queries = offsets.longest(), keys = key_offsets.longest();
  check<ShapeError>(shape.rank() == 4 && (shape[0] == 1 || shape[0] == pairs) && (shape[1] == 1 || shape[1] == heads) &&
                        (shape[2] == 1 || shape[2] >= queries) && (shape[3] == 1 || shape[3] >= keys),
                    op, "needs ", name, " for ", pairs, " sequences, ", heads, " heads, ", queries, " queries and ",
                    keys, " keys, or 1 for all of them; got ", shape);
}

GeneralCall check_call(std::string_view op, const Var& q, const Var& k, const Offsets& offsets,
                       const Offsets& key_offsets, const ScaledDotProductOptions& options, const ScoreTables& tables) {
  const std::int64_t heads = options.heads, key_heads = options.key_heads == 0 ? heads : options.key_heads;
  check<ValueError>(heads >= 1 && key_heads >= 1 && heads % key_heads == 0, op,
                    "needs heads that the heads of keys share evenly; got ", heads, " heads and ", key_heads,
                    " of keys");
  const Shape &sq = q.shape(), &sk = k.shape();
  check<ShapeError>(
      sq.rank() == 2 && sk.rank() == 2 && sq[1] > 0 && sq[1] % heads == 0 && sk[1] == sq[1] / heads * key_heads, op,
      "needs q [T, ", heads, " * d] and k [S, ", key_heads, " * d]; got q ", sq, " and k ", sk);
  check_offsets(op, "queries", offsets, sq[0]);
  check_offsets(op, "keys", key_offsets, sk[0]);
  check<ShapeError>(key_offsets.count() == offsets.count(), op, "needs as many sequences of keys as of queries, ",
                    offsets.count(), "; got ", key_offsets.count());
  check<ValueError>(options.left_window >= -1 && options.right_window >= -1, op,
                    "needs windows of at least 0, or -1 for no limit; got ", options.left_window, " and ",
                    options.right_window);
  check<ValueError>(std::isfinite(options.scale), op, "needs a finite scale; got ", options.scale);
  check<ValueError>(std::isfinite(options.soft_cap) && options.soft_cap >= 0, op,
                    "needs a finite cap above 0, or 0 for none; got ", options.soft_cap);
  if (tables.bias.defined()) check_table(op, "a bias", tables.bias.value(), offsets, key_offsets, heads);
  check_table(op, "a table of visible keys", tables.visible, offsets, key_offsets, heads);
  check<DTypeError>(!tables.visible.defined() || tables.visible.dtype() == DType::u8, op,
                    "needs visible keys of type u8; got ",
                    tables.visible.defined() ? tables.visible.dtype() : DType::u8);
  GeneralCall call{heads, key_heads, sq[1] / heads, 0, options.scale, options.soft_cap, 0, 0, {}, {}, {}};
  if (call.scale == 0) call.scale = 1 / std::sqrt(static_cast<double>(call.width));
  if (tables.bias.defined()) call.bias = tables.bias.value().contiguous();
  if (tables.visible.defined()) call.visible = tables.visible.contiguous();
  constexpr std::int64_t kFarthest = std::int64_t{1} << 40;
  if (tables.starts.defined()) {
    check<DTypeError>(tables.starts.dtype() == DType::i64, op, "needs starts of type i64; got ", tables.starts.dtype());
    check<ShapeError>(tables.starts.shape() == Shape{offsets.count()}, op, "needs a start for each of ",
                      offsets.count(), " sequences; got ", tables.starts.shape());
    call.starts = tables.starts.contiguous();
    for (const std::int64_t start : call.starts.span<std::int64_t>()) {
      check<ValueError>(std::abs(start) <= kFarthest, op, "needs starts of at most 2^40 in size; got ", start);
    }
  }
  call.left = std::min(options.left_window, kFarthest);
  call.right = std::min(options.right_window, kFarthest);
  // Causal is a window that ends at the own place.
  if (options.mask == AttentionMask::causal) call.right = 0;
  return call;
}

template <class T>
kernels::PairTable<T> table_of(const Tensor& table) {
  if (!table.defined()) return {};
  kernels::PairTable<T> result{table.data<T>()};
  for (int d = 0; d < 4; ++d) result.steps[static_cast<std::size_t>(d)] = table.dim(d) == 1 ? 0 : table.stride(d);
  return result;
}

template <class T>
kernels::MatrixRows<const T> matrix_rows(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

template <class T>
kernels::ScaledDotProductPlan<T> plan_of(const GeneralCall& call, const Offsets& offsets, const Offsets& key_offsets,
                                         const Tensor& q, const Tensor& k) {
  return {.bounds = offsets.bounds(),
          .key_bounds = key_offsets.bounds(),
          .starts = call.starts.defined() ? call.starts.data<std::int64_t>() : nullptr,
          .heads = call.heads,
          .key_heads = call.key_heads,
          .width = call.width,
          .value_width = call.value_width,
          .scale = call.scale,
          .soft_cap = call.soft_cap,
          .left = call.left,
          .right = call.right,
          .q = matrix_rows<T>(q),
          .k = matrix_rows<T>(k),
          .v = {},
          .bias = table_of<T>(call.bias),
          .visible = table_of<std::uint8_t>(call.visible)};
}

struct ScaledDotProductRule {
  static constexpr std::string_view name = kName;
  GeneralCall call;
  Offsets offsets, key_offsets;
  Saved q, k, v;
  std::vector<Saved> others;  ///< bounds and tables: refuses ones that were overwritten

  void backward(BackwardContext& g) const {
    for (const Saved& each : others) each.get();
    const Tensor& gy = g.cotangent();
    auto gradients = detail::input_gradients(g, q, k, v);
    Tensor of_bias;
    if (g.needs(3)) of_bias = Tensor::zeros(call.bias.shape(), DType::f64);
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      auto plan = plan_of<T>(call, offsets, key_offsets, q.get(), k.get());
      plan.v = matrix_rows<T>(v.get());
      kernels::scaled_dot_product_backward<T>(plan, gy.data<T>(),
                                              {gradients.of<T>(0), gradients.of<T>(1), gradients.of<T>(2),
                                               g.needs(3) ? of_bias.mutable_data<double>() : nullptr});
    });
    gradients.give();
    if (g.needs(3)) g.give(3, of_bias.to(gy.dtype()));
  }
};

}  // namespace

Var scaled_dot_product_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                                 const Offsets& key_offsets, const ScaledDotProductOptions& options,
                                 const ScoreTables& tables) {
  detail::check_one_type(kName, {{"q", &q}, {"k", &k}, {"v", &v}, {"bias", &tables.bias}});
  GeneralCall call = check_call(kName, q, k, offsets, key_offsets, options, tables);
  const Shape& sv = v.shape();
  check<ShapeError>(sv.rank() == 2 && sv[0] == k.dim(0) && sv[1] > 0 && sv[1] % call.key_heads == 0, kName,
                    "needs v [S, ", call.key_heads, " * e] beside k ", k.shape(), "; got ", sv);
  call.value_width = sv[1] / call.key_heads;
  const Tensor qt = detail::with_dense_rows(q.value()), kt = detail::with_dense_rows(k.value()),
               vt = detail::with_dense_rows(v.value());
  Tensor output({q.dim(0), call.heads * call.value_width}, q.dtype());
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    auto plan = plan_of<T>(call, offsets, key_offsets, qt, kt);
    plan.v = matrix_rows<T>(vt);
    kernels::scaled_dot_product_forward(plan, output.mutable_data<T>());
  });
  std::vector<Saved> others{Saved(offsets.tensor()), Saved(key_offsets.tensor())};
  for (const Tensor* table : {&call.bias, &call.visible, &call.starts}) {
    if (table->defined()) others.emplace_back(*table);
  }
  ScaledDotProductRule rule{std::move(call), offsets, key_offsets, Saved(qt), Saved(kt), Saved(vt), std::move(others)};
  return record(std::move(rule), {&q, &k, &v, &tables.bias}, std::move(output));
}

Tensor attention_scores(const Var& q, const Var& k, const Offsets& offsets, const Offsets& key_offsets, ScoresAt stage,
                        const ScaledDotProductOptions& options, const ScoreTables& tables) {
  constexpr std::string_view kScores = "attention_scores";
  detail::check_one_type(kScores, {{"q", &q}, {"k", &k}, {"bias", &tables.bias}});
  const GeneralCall call = check_call(kScores, q, k, offsets, key_offsets, options, tables);
  std::int64_t size = 0;
  for (std::int64_t n = 0; n < offsets.count(); ++n) size += offsets.length(n) * key_offsets.length(n) * call.heads;
  const Tensor qt = detail::with_dense_rows(q.value()), kt = detail::with_dense_rows(k.value());
  Tensor scores({size}, q.dtype());
  dispatch_floating(q.dtype(), kScores, [&]<class T>(T) {
    kernels::scaled_dot_product_scores(plan_of<T>(call, offsets, key_offsets, qt, kt), static_cast<int>(stage),
                                       scores.mutable_data<T>());
  });
  return scores;
}

}  // namespace tally::ops
