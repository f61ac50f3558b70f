#include "tally/ops/attention/position_softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/position_softmax_attention.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "position_softmax_attention";

struct Sizes {
  std::int64_t heads, key_heads, width, value_width;
  bool causal;
};

Sizes check_call(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                 const PositionSoftmaxOptions& options) {
  check<DTypeError>(is_floating(q.dtype()) && k.dtype() == q.dtype() && v.dtype() == q.dtype(), kName,
                    "needs q, k, v of one floating type; got ", q.dtype(), ", ", k.dtype(), " and ", v.dtype());
  const std::int64_t heads = options.heads, key_heads = options.key_heads == 0 ? heads : options.key_heads;
  check<ValueError>(heads >= 1 && key_heads >= 1 && heads % key_heads == 0, kName,
                    "needs heads that the heads of keys share evenly; got ", heads, " heads and ", key_heads,
                    " of keys");
  const Shape &sq = q.shape(), &sk = k.shape(), &sv = v.shape();
  check<ShapeError>(sq.rank() == 2 && sk.rank() == 2 && sv.rank() == 2 && sk[0] == sq[0] && sv[0] == sq[0] &&
                        sq[1] > 0 && sv[1] > 0 && sq[1] % heads == 0 && sv[1] % key_heads == 0 &&
                        sk[1] == sq[1] / heads * key_heads,
                    kName, "needs q [T, ", heads, " * d], k [T, ", key_heads, " * d] and v [T, ", key_heads,
                    " * e]; got q ", sq, ", k ", sk, " and v ", sv);
  offsets.check_rows(sq[0], kName);
  return {heads, key_heads, sq[1] / heads, sv[1] / key_heads, options.mask == AttentionMask::causal};
}

template <class T>
kernels::MatrixRows<const T> rows_of(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

template <class T>
kernels::PositionSoftmaxPlan<T> plan_of(const Sizes& sizes, const Offsets& offsets, const Tensor& q, const Tensor& k,
                                        const Tensor& v) {
  return {offsets.bounds(), sizes.heads,   sizes.key_heads, sizes.width,  sizes.value_width,
          sizes.causal,     rows_of<T>(q), rows_of<T>(k),   rows_of<T>(v)};
}

struct PositionSoftmaxRule {
  static constexpr std::string_view name = kName;
  Sizes sizes;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved q, k, v;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    auto gradients = detail::input_gradients(g, q, k, v);
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::position_softmax_backward(plan_of<T>(sizes, offsets, q.get(), k.get(), v.get()), gy.data<T>(),
                                         gradients.of<T>(0), gradients.of<T>(1), gradients.of<T>(2));
    });
    gradients.give();
  }
};

}  // namespace

Var position_softmax_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                               const PositionSoftmaxOptions& options) {
  const Sizes sizes = check_call(q, k, v, offsets, options);
  const Tensor qt = detail::with_dense_rows(q.value()), kt = detail::with_dense_rows(k.value()),
               vt = detail::with_dense_rows(v.value());
  Tensor output({q.dim(0), sizes.heads * sizes.value_width}, q.dtype());
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    kernels::position_softmax_forward(plan_of<T>(sizes, offsets, qt, kt, vt), output.mutable_data<T>());
  });
  PositionSoftmaxRule rule{sizes, offsets, Saved(offsets.tensor()), Saved(qt), Saved(kt), Saved(vt)};
  return record(std::move(rule), {&q, &k, &v}, std::move(output));
}

PositionSoftmaxState position_softmax_state(std::int64_t key_heads, std::int64_t width, std::int64_t value_width) {
  check<ValueError>(key_heads >= 1 && width >= 1 && value_width >= 1, "position_softmax_state",
                    "needs sizes of at least 1; got ", key_heads, " heads of keys, width ", width, " and value width ",
                    value_width);
  return {key_heads, width, value_width,
          std::vector<double>(static_cast<std::size_t>(key_heads * width * (value_width + 1))),
          std::vector<double>(static_cast<std::size_t>(key_heads * width), -std::numeric_limits<double>::infinity())};
}

void position_softmax_step(PositionSoftmaxState& state, std::span<const float> q, std::span<const float> k,
                           std::span<const float> v, std::span<float> output) {
  const auto d = static_cast<std::size_t>(state.width), e = static_cast<std::size_t>(state.value_width),
             key_heads = static_cast<std::size_t>(state.key_heads);
  check<ShapeError>(k.size() == key_heads * d && v.size() == key_heads * e && !q.empty() && q.size() % k.size() == 0 &&
                        output.size() == q.size() / d * e,
                    "position_softmax_step", "needs q [heads * ", d, "], k [", key_heads, " * ", d, "], v [", key_heads,
                    " * ", e, "] and output [heads * ", e, "]; got q ", q.size(), ", k ", k.size(), ", v ", v.size(),
                    " and output ", output.size());
  const std::size_t group = q.size() / k.size();
  std::vector<double> found(output.size());
  for (std::size_t feature = 0; feature < k.size(); ++feature) {
    const std::size_t head = feature / d;
    double* const sums = state.sums.data() + feature * (e + 1);
    const double key = double{k[feature]}, largest = std::max(state.maximum[feature], key);
    const double kept = std::exp(state.maximum[feature] - largest), weight = std::exp(key - largest);
    state.maximum[feature] = largest;
    for (std::size_t i = 0; i < e; ++i) sums[i] = kept * sums[i] + weight * double{v[head * e + i]};
    sums[e] = kept * sums[e] + weight;
    for (std::size_t g = head * group; g < (head + 1) * group; ++g) {
      const double query = double{q[g * d + feature % d]} / sums[e];
      for (std::size_t i = 0; i < e; ++i) found[g * e + i] += query * sums[i];
    }
  }
  std::transform(found.begin(), found.end(), output.begin(), [](double x) { return static_cast<float>(x); });
}

namespace {

PositionSoftmaxOptions options_of(const OpOptions& options) {
  return {.heads = options.integer("heads", 1),
          .key_heads = options.integer("key_heads", 0),
          .mask = detail::attention_mask(options)};
}

/// Of sequences of these lengths, with keys of this deviation.
std::vector<Tensor> inputs_of(const std::vector<std::int64_t>& lengths, std::int64_t columns, std::int64_t key_columns,
                              std::int64_t value_columns, std::uint64_t stream, double deviation = 1) {
  std::vector<Tensor> inputs = detail::attention_inputs(lengths, key_columns, value_columns, stream, deviation);
  inputs[0] = sample_normal({inputs[0].dim(0), columns}, stream + 3);
  return inputs;
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  const auto whole = [](std::int64_t n) { return OptionValue{n}; };
  for (const char* mask : {"causal", "bidirectional"}) {
    const std::string word = mask;
    const OpOptions two{{"heads", whole(2)}, {"mask", word}}, one{{"mask", word}};
    const OpOptions grouped{{"heads", whole(6)}, {"key_heads", whole(2)}, {"mask", word}},
        shared{{"heads", whole(3)}, {"key_heads", whole(1)}, {"mask", word}};
    all.push_back({"odd", inputs_of({3, 0, 1, 5}, 6, 6, 10, 1), two});
    all.push_back({"grouped", inputs_of({3, 0, 1, 5}, 18, 6, 4, 5), grouped});
    all.push_back({"one head of keys", inputs_of({70, 3}, 9, 3, 2, 9), shared});
    all.push_back({"one", inputs_of({1}, 2, 2, 2, 13), two});
    all.push_back({"one row", inputs_of({1}, 6, 6, 10, 301), two});
    all.push_back({"empty", inputs_of({}, 4, 4, 2, 17), two});
    all.push_back({"empty sequences", inputs_of({0, 0}, 4, 4, 2, 21), two});
    all.push_back({"long", inputs_of({150, 1, 70}, 2, 2, 3, 25), one});
    all.push_back({"wide", inputs_of({6, 0, 3}, 134, 134, 66, 29), two});
    all.push_back({"extreme", inputs_of({6, 70}, 8, 8, 2, 37, 1e4), two, false});
    std::vector<Tensor> ties = inputs_of({4, 3}, 4, 4, 4, 41);
    ties[1].fill(0.5);
    all.push_back({"ties", ties, two});
  }
  // Keys so far apart that chunks end between them, and references rise and fall behind.
  all.push_back({"far apart", inputs_of({90, 2}, 3, 3, 2, 33, 60)});
  all.push_back({"one head of one", inputs_of({4, 1}, 3, 3, 2, 45), {{"key_heads", whole(1)}}});
  return all;
}

}  // namespace

void entries::add_position_softmax_attention(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Attention with keys softmaxed over the visible positions, feature by feature: q^T (softmax(k)^T v).",
      .inputs = {{"q", "[T, heads * d]"},
                 {"k", "[T, key_heads * d]"},
                 {"v", "[T, key_heads * e]"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"heads", std::int64_t{1}, "number of heads of queries, side by side in the columns"},
                  {"key_heads", std::int64_t{0}, "number of heads of keys and values; 0: as many"},
                  {"mask", std::string("causal"), "'causal' or 'bidirectional'"}},
      .outputs = {{"output", "[T, heads * e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {position_softmax_attention(in[0], in[1], in[2], Offsets(in[3].value()), options_of(options))};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = inputs_of({2, 3}, 6, 6, 4, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            const std::vector<Tensor> good = inputs_of({2, 3}, 6, 6, 4, 1);
            return std::vector<OpError>{
                {"keys",
                 replaced(1, sample_normal({5, 3}, 1)),
                 {},
                 "needs q [T, 1 * d], k [T, 1 * d] and v [T, 1 * e]"},
                {"offsets", replaced(3, Offsets::single(6).tensor()), {}, "number of rows 5; got 6"},
                {"types", replaced(0, sample_integers({5, 6}, 1, 3)), {}, "one floating type"},
                {"heads", good, {{"heads", std::int64_t{4}}}, "needs q [T, 4 * d]"},
                {"uneven heads",
                 good,
                 {{"heads", std::int64_t{3}}, {"key_heads", std::int64_t{2}}},
                 "got 3 heads and 2 of keys"},
                {"mask", good, {{"mask", std::string("diagonal")}}, "'causal' or"},
            };
          },
      .large =
          [] {
            return OpSample{"large", inputs_of(std::vector<std::int64_t>(64, 200), 64, 64, 64, 1), {}};
          },
      .flops =
          [](const OpSample& sample) {
            const auto heads = static_cast<double>(sample.options.integer("heads", 1)),
                       key_heads = static_cast<double>(sample.options.integer("key_heads", 0));
            const auto products = static_cast<double>(sample.inputs[0].numel()) *
                                  static_cast<double>(sample.inputs[2].dim(1)) / (key_heads == 0 ? heads : key_heads);
            return 2 * products * (1 + (key_heads == 0 ? 1 : key_heads / heads));
          },
      .variations =
          [] {
            return std::vector<OpVariations>{
                {{"heads", inputs_of({4, 0, 1, 3}, 12, 12, 24, 55)},
                 {{"heads", {std::int64_t{2}, std::int64_t{3}}}, {"mask", {std::string("bidirectional")}}}}};
          },
  });
}

}  // namespace tally::ops
