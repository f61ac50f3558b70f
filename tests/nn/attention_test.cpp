// Both forms of every attention kind together: whole sequences, an event at a time, and the definition in double.
#include "tally/nn/attention/attention.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/nn/attention/attention_kinds.h"
#include "tally/nn/attention/dispatcher.h"
#include "tally/nn/attention/histogram.h"
#include "tally/nn/attention/lightsans.h"
#include "tally/nn/attention/linear.h"
#include "tally/nn/attention/linformer.h"
#include "tally/nn/attention/linrec.h"
#include "tally/nn/attention/lsh.h"
#include "tally/nn/attention/multi_head.h"
#include "tally/nn/attention/sinkhorn.h"
#include "tally/nn/attention/softmax.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"
#include "tests/nn/attention_definitions.h"
#include "tests/nn/linear_memory_definition.h"
#include "tests/nn/recgrela_definition.h"
#include "tests/support/attention_choices.h"

using namespace tally;
using Catch::Matchers::Contains;

namespace {

using Rows = std::vector<std::vector<double>>;

constexpr std::int64_t kWidth = 8, kHeads = 2;

/// As a layer holds it.
struct Holder {
  nn::Attention attention;
  static constexpr void fields(auto& self, auto&& visit) { visit("attention", self.attention); }
};

nn::AttentionSettings settings(bool causal = true) {
  return {.width = kWidth,
          .heads = kHeads,
          .mask = causal ? ops::AttentionMask::causal : ops::AttentionMask::bidirectional,
          .max_length = 40};
}

nn::AttentionChoice choice(const std::string& name, const nn::AttentionKinds& kinds = nn::attention_kinds()) {
  return attention_choice(kinds, name,
                          {{"attention_block", 5},
                           {"random_features", 7},
                           {"lsh_buckets", 4},
                           {"projected_keys", 2},
                           {"k_interests", 3},
                           {"lambda_window", 5},
                           {"memory_contexts", 3},
                           {"codebooks", 3},
                           {"codewords", 4},
                           {"counts_decay", 0.1},
                           {"experts", 5}});
}

/// With weights of ordinary size.
Holder make(const std::string& name, bool causal = true) {
  Holder holder{nn::make_attention(choice(name), settings(causal), RngKey{4})};
  std::uint64_t stream = 0;
  for (auto& [path, parameter] : nn::parameters(holder)) {
    Tensor noise(parameter->shape());
    fill_normal(RngKey{6, stream++}, noise, 0, 0.4);
    auto values = parameter->mutable_value().mutable_span<float>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<float>()[i];
  }
  return holder;
}

Tensor normal(std::int64_t rows, std::uint64_t stream) {
  Tensor x({rows, kWidth});
  fill_normal(RngKey{5, stream}, x, 0, 1);
  return x;
}

/// Of events, in seconds: minutes, hours and days apart, some at once.
std::vector<double> times(std::int64_t count) {
  std::vector<double> all;
  double now = 1e9;
  for (std::int64_t t = 0; t < count; ++t) {
    all.push_back(now);
    now += t % 5 == 3 ? 0 : std::floor(60 * std::exp(static_cast<double>(t * 7 % 11)));
  }
  return all;
}

/// A sequence of so many events at those times.
nn::Sequence sequence_of(std::int64_t length) {
  return {Offsets::single(length), Tensor::from(times(length), {length})};
}

Rows rows_of(const Tensor& tensor) {
  const std::vector<double> all = tensor.to_doubles();
  const auto columns = static_cast<std::ptrdiff_t>(tensor.dim(tensor.rank() - 1));
  Rows rows;
  for (auto at = all.begin(); at != all.end(); at += columns) rows.emplace_back(at, at + columns);
  return rows;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

std::vector<double> linear(const nn::Linear& layer, const std::vector<double>& x) {
  std::vector<double> y = layer.bias.value().to_doubles();
  const Rows weight = rows_of(layer.weight.value());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += dot(weight[i], x);
  return y;
}

/// A row's output where each earlier key (the row's own included) has a weight above 0 for the query of a head.
using Weigh = std::function<double(const std::vector<double>& query, const std::vector<double>& key, std::size_t age)>;

template <class Core>
Rows by_weights(const nn::MultiHead<Core>& kind, const Tensor& queries, const Tensor& source, const Weigh& weigh) {
  const Rows asked = rows_of(queries), given = rows_of(source);
  const std::size_t d = kWidth / kHeads;
  Rows out;
  for (std::size_t t = 0; t < asked.size(); ++t) {
    const std::vector<double> query = linear(kind.query, asked[t]);
    std::vector<double> sums(kWidth, 0), totals(kHeads, 0);
    for (std::size_t j = 0; j <= t; ++j) {
      const std::vector<double> key = linear(kind.key, given[j]), value = linear(kind.value, given[j]);
      for (std::size_t h = 0; h < kHeads; ++h) {
        const auto part = [&](const std::vector<double>& all) {
          return std::vector<double>(all.begin() + static_cast<std::ptrdiff_t>(h * d),
                                     all.begin() + static_cast<std::ptrdiff_t>((h + 1) * d));
        };
        const double weight = weigh(part(query), part(key), t - j);
        totals[h] += weight;
        for (std::size_t i = h * d; i < (h + 1) * d; ++i) sums[i] += weight * value[i];
      }
    }
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] /= totals[i / d];
    out.push_back(linear(kind.output, sums));
  }
  return out;
}

double softmax_weight(const std::vector<double>& query, const std::vector<double>& key) {
  return std::exp(dot(query, key) / std::sqrt(static_cast<double>(query.size())));
}

double elu_weight(const std::vector<double>& query, const std::vector<double>& key) {
  const auto feature = [](double x) { return x > 0 ? x + 1 : std::exp(x); };
  double sum = 0;
  for (std::size_t i = 0; i < query.size(); ++i) sum += feature(query[i]) * feature(key[i]);
  return sum;
}

double favor_weight(const Rows& directions, const std::vector<double>& query, const std::vector<double>& key) {
  const double root = std::pow(static_cast<double>(query.size()), -0.25);
  const auto feature = [&](const std::vector<double>& w, const std::vector<double>& x) {
    return std::exp(root * dot(w, x) - root * root * dot(x, x) / 2);
  };
  double sum = 0;
  for (const std::vector<double>& w : directions) sum += feature(w, query) * feature(w, key);
  return sum;
}

/// Codes by residual passes, then every earlier codeword is a key whose weight falls with its age.
Rows by_codewords(const nn::HistogramKind& kind, const Tensor& source, double decay) {
  const Rows given = rows_of(source), words = rows_of(kind.quantizer.codebooks.value()),
             bilinear = rows_of(kind.quantizer.bilinear.value());
  const Rows wq = rows_of(kind.histogram.query.value()), wk = rows_of(kind.histogram.key.value()),
             wv = rows_of(kind.histogram.value.value());
  const auto times = [](const std::vector<double>& x, const Rows& m, std::size_t first) {
    std::vector<double> y(kWidth, 0);
    for (std::size_t i = 0; i < kWidth; ++i) {
      for (std::size_t j = 0; j < kWidth; ++j) y[j] += x[i] * m[first + i][j];
    }
    return y;
  };
  const std::size_t books = 3, count = 4;
  std::vector<std::vector<std::size_t>> codes;
  Rows out;
  for (std::vector<double> rest : given) {
    std::vector<std::size_t>& row_codes = codes.emplace_back();
    for (std::size_t b = 0; b < books; ++b) {
      const std::vector<double> query = times(rest, bilinear, 0);
      std::size_t best = b * count;
      for (std::size_t w = b * count; w < (b + 1) * count; ++w) {
        if (dot(query, words[w]) > dot(query, words[best])) best = w;
      }
      for (std::size_t i = 0; i < kWidth; ++i) rest[i] -= words[best][i];
      row_codes.push_back(best);
    }
    std::vector<double> row(kWidth, 0);
    for (std::size_t b = 0; b < books; ++b) {
      const std::vector<double> query = times(words[row_codes[b]], wq, b * kWidth);
      std::vector<double> sums(kWidth, 0);
      double total = 0;
      for (std::size_t j = 0; j < codes.size(); ++j) {
        const std::vector<double>& word = words[codes[j][b]];
        const double weight = std::exp(dot(query, times(word, wk, b * kWidth)) / std::sqrt(double{kWidth}) -
                                       decay * static_cast<double>(codes.size() - 1 - j));
        const std::vector<double> value = times(word, wv, b * kWidth);
        total += weight;
        for (std::size_t i = 0; i < kWidth; ++i) sums[i] += weight * value[i];
      }
      for (std::size_t i = 0; i < kWidth; ++i) row[i] += sums[i] / total;
    }
    out.push_back(row);
  }
  return out;
}

/// LinRec over the rows so far, or all: products of elu features of length 1, by the token or by the column.
Rows by_products(const nn::MultiHead<nn::LinRecCore>& kind, const Tensor& queries, const Tensor& source) {
  const Rows asked = rows_of(queries), given = rows_of(source);
  const std::size_t d = kWidth / kHeads;
  const bool causal = kind.attention.mask == ops::AttentionMask::causal,
             by_column = kind.attention.keys_by == nn::LinRecKeys::column;
  const auto features = [](const nn::Linear& layer, const std::vector<double>& x) {
    std::vector<double> y = linear(layer, x);
    for (double& value : y) value = value > 0 ? value : std::exp(value) - 1;
    return y;
  };
  Rows out;
  for (std::size_t t = 0; t < asked.size(); ++t) {
    const std::vector<double> query = features(kind.query, asked[t]);
    const std::size_t seen = causal ? t + 1 : given.size();
    std::vector<double> columns(kWidth), sums(kWidth);
    for (std::size_t j = 0; j < seen; ++j) {
      const std::vector<double> key = features(kind.key, given[j]);
      for (std::size_t i = 0; i < kWidth; ++i) columns[i] += key[i] * key[i];
    }
    for (std::size_t j = 0; j < seen; ++j) {
      const std::vector<double> key = features(kind.key, given[j]), value = linear(kind.value, given[j]);
      for (std::size_t h = 0; h < kHeads; ++h) {
        double product = 0, of_query = 0, of_key = 0;
        for (std::size_t i = h * d; i < (h + 1) * d; ++i) {
          product += query[i] * key[i] / (by_column ? std::sqrt(columns[i]) : 1);
          of_query += query[i] * query[i];
          of_key += key[i] * key[i];
        }
        product /= std::sqrt(of_query * static_cast<double>(d)) * (by_column ? 1 : std::sqrt(of_key));
        for (std::size_t i = h * d; i < (h + 1) * d; ++i) sums[i] += product * value[i];
      }
    }
    out.push_back(linear(kind.output, sums));
  }
  return out;
}

/// LightSANs: interests gather the projected keys, and the values, of all rows, which read them head by head.
Rows by_interests(const nn::MultiHead<nn::LightSansCore>& kind, const Tensor& queries, const Tensor& source) {
  const auto gathered = [&](const nn::Linear& layer, const nn::Parameter& interests) {
    Rows asking = rows_of(interests.value());
    for (std::vector<double>& query : asking) {
      for (double& x : query) x *= std::sqrt(double{kWidth});  // which attend() divides by
    }
    const Rows rows = testing::linear_rows(layer, rows_of(source));
    return testing::attend(asking, rows, rows, 1);
  };
  const Rows asked = testing::linear_rows(kind.query, rows_of(queries));
  return testing::linear_rows(kind.output,
                              testing::attend(asked, gathered(kind.key, kind.attention.key_interests),
                                              gathered(kind.value, kind.attention.value_interests), kHeads));
}

/// What a kind's definition gives; empty where another test holds it.
Rows defined(const std::string& name, const nn::Attention& attention, const Tensor& queries, const Tensor& source) {
  if (const auto* kind = attention.as<nn::MultiHead<nn::SoftmaxCore>>()) {
    return by_weights(*kind, queries, source, [&](const auto& query, const auto& key, std::size_t age) {
      return name == "local" && age >= 5 ? 0 : softmax_weight(query, key);
    });
  }
  if (const auto* kind = attention.as<nn::MultiHead<nn::LinearAttentionCore>>()) {
    const Rows directions = kind->attention.directions.defined() ? rows_of(kind->attention.directions.value()) : Rows();
    return by_weights(*kind, queries, source, [&](const auto& query, const auto& key, std::size_t) {
      return directions.empty() ? elu_weight(query, key) : favor_weight(directions, query, key);
    });
  }
  if (const auto* kind = attention.as<nn::MultiHead<nn::LinRecCore>>()) return by_products(*kind, queries, source);
  if (const auto* kind = attention.as<nn::MultiHead<nn::LightSansCore>>()) return by_interests(*kind, queries, source);
  if (const auto* kind = attention.as<nn::HistogramKind>()) return by_codewords(*kind, source, 0.1);
  if (const auto* kind = attention.as<nn::HstuKind>()) return testing::hstu_by_definition(*kind, queries, source);
  if (const auto* kind = attention.as<nn::MultiHead<nn::EfficientCore>>()) {
    return testing::efficient_by_definition(*kind, queries, source);
  }
  if (const auto* kind = attention.as<nn::LambdaKind>()) return testing::lambda_by_definition(*kind, queries, source);
  if (const auto* kind = attention.as<nn::MultiHead<nn::GalerkinCore>>()) {
    return testing::galerkin_by_definition(*kind, queries, source);
  }
  if (const auto* kind = attention.as<nn::FixedMemoryKind>()) {
    return testing::fixed_memory_by_definition(*kind, queries, source);
  }
  if (const auto* kind = attention.as<nn::DispatcherKind>()) {
    return testing::dispatched_by_definition(*kind, queries, source, kind->experts.value());
  }
  if (const auto* kind = attention.as<nn::RecGrelaKind>()) {
    return testing::recgrela_by_definition(*kind, queries, source);
  }
  if (const auto* kind = attention.as<nn::LinearMemoryKind>()) {
    return testing::linear_memory_by_definition(*kind, queries, source, times(queries.dim(0)));
  }
  return {};
}

/// The largest difference, against the largest number of b where that is above 1.
double difference(const Rows& a, const Rows& b) {
  double most = a.size() == b.size() ? 0 : INFINITY, scale = 1;
  for (std::size_t t = 0; t < std::min(a.size(), b.size()); ++t) {
    for (std::size_t i = 0; i < a[t].size(); ++i) {
      most = std::max(most, std::fabs(a[t][i] - b[t][i]));
      scale = std::max(scale, std::fabs(b[t][i]));
    }
  }
  return most / scale;
}

}  // namespace

TEST_CASE("every attention's two forms agree with each other and with its definition", "[attention]") {
  std::vector<std::string> streaming;
  for (const nn::AttentionRow& entry : nn::attention_kinds()) {
    INFO(entry.name);
    const Holder holder = make(entry.name, entry.causal);
    const nn::Attention& attention = holder.attention;
    CHECK(attention.name() == entry.name);
    for (const std::int64_t length : {1, 4, 37}) {
      const Tensor queries = normal(length, 1), source = normal(length, 2);
      const Rows whole = rows_of(attention(queries, source, sequence_of(length), {}).value());
      const std::vector<double> at = times(length);
      const Rows expected = defined(entry.name, attention, queries, source);
      if (!expected.empty()) CHECK(difference(whole, expected) < 2e-5);
      if (!attention.has_state()) {
        CHECK_THROWS_WITH(attention.initial_state(), Contains("no state of a fixed size"));
        continue;
      }
      if (length == 37) streaming.push_back(entry.name);
      REQUIRE_FALSE(expected.empty());
      // At some places the state is copied, or saved and read again.
      nn::AttentionState state = attention.initial_state();
      Rows steps;
      std::size_t after_window = 0;
      for (std::int64_t t = 0; t < length; ++t) {
        const std::uint64_t drawn = uniform_below(RngKey{8}, static_cast<std::uint64_t>(t), 0, 4);
        if (drawn == 0) {
          std::string bytes;
          state.save(bytes);
          nn::AttentionState read = attention.initial_state();
          ByteReader reader(bytes, "state");
          read.load(reader, t);
          reader.expect_end();
          state = read;
          ByteReader cut(std::string_view(bytes).substr(0, bytes.empty() ? 0 : bytes.size() - 1), "state");
          if (!bytes.empty()) CHECK_THROWS_AS(read.load(cut, t), IoError);
        } else if (drawn == 1) {
          const nn::AttentionState copy = state;
          attention.step(state, queries.slice(0, t, t + 1), source.slice(0, 0, 1),
                         {t, at[static_cast<std::size_t>(t)]});
          state = copy;
        }
        const Tensor row = attention
                               .step(state, queries.slice(0, t, t + 1), source.slice(0, t, t + 1),
                                     {t, at[static_cast<std::size_t>(t)]})
                               .value();
        CHECK(row.dtype() == DType::f32);
        steps.push_back(rows_of(row)[0]);
        if (t == 5) after_window = state.heap_bytes();
        if (t > 5) CHECK(state.heap_bytes() <= 2 * after_window);
      }
      CHECK(difference(steps, whole) < 2e-5);
      CHECK(difference(steps, expected) < 2e-5);
    }
  }
  CHECK(streaming == std::vector<std::string>{"local", "linear_elu", "linear_favor", "linrec", "efficient", "lambda",
                                              "galerkin", "fixed_memory", "histogram", "dispatcher", "recgrela",
                                              "retnet", "lightning", "gla", "deltanet", "gated_deltanet",
                                              "time_decay"});
}

TEST_CASE("a state belongs to its kind", "[attention]") {
  const Holder local = make("local"), linear = make("linear_elu");
  const Tensor row = normal(1, 1);
  nn::AttentionState state = local.attention.initial_state();
  CHECK_THROWS_WITH(linear.attention.step(state, row, row, {}), Contains("its initial_state() made"));
  nn::AttentionState none;
  CHECK_THROWS_WITH(linear.attention.step(none, row, row, {}), Contains("its initial_state() made"));
  CHECK_THROWS_WITH(nn::Attention().has_state(), Contains("has no kind"));
  // A bidirectional attention sees what comes later.
  CHECK_FALSE(make("linear_elu", false).attention.has_state());
}

TEST_CASE("walkers enter an attention of any kind", "[attention]") {
  Holder holder = make("linear_favor");
  std::vector<std::string> paths;
  for (const auto& [path, tensor] : nn::state(holder)) paths.push_back(path);
  CHECK(paths == std::vector<std::string>{"attention.query.weight", "attention.query.bias", "attention.key.weight",
                                          "attention.key.bias", "attention.value.weight", "attention.value.bias",
                                          "attention.output.weight", "attention.output.bias",
                                          "attention.attention.directions"});
  CHECK(nn::count_parameters(holder) == 4 * (kWidth * kWidth + kWidth));
  CHECK(nn::freeze(holder, "attention.key.*") == 2);
  // Copies have identities of their own, moves keep them.
  const LeafId id = nn::parameters(holder)[0].parameter->id();
  Holder copy = holder;
  CHECK(nn::parameters(copy)[0].parameter->id() != id);
  nn::parameters(copy)[0].parameter->mutable_value().fill(9);
  CHECK(nn::parameters(holder)[0].parameter->value().to_doubles()[0] != 9);
  Holder moved = std::move(holder);
  CHECK(nn::parameters(moved)[0].parameter->id() == id);
  nn::convert(moved, DType::f64);
  for (const auto& [path, tensor] : nn::state(moved)) CHECK(tensor->dtype() == DType::f64);
}

TEST_CASE("a table of attentions is a value", "[attention]") {
  nn::AttentionKinds kinds = nn::attention_kinds();
  CHECK_THROWS_WITH(kinds.add(kinds.at("local")), Contains("\"local\" is there already"));
  kinds.add(nn::multi_head_row<nn::SoftmaxCore>("nearby", "the last two rows", nn::LocalOptions{.block = 2}));
  const nn::Attention nearby = nn::make_attention({kinds, "nearby"}, settings(), RngKey{1});
  CHECK(nearby.name() == "nearby");
  CHECK(nearby.as<nn::MultiHead<nn::SoftmaxCore>>()->attention.window == 2);
  CHECK_THROWS_WITH(nn::attention_kinds().at("nearby"), Contains("does not know \"nearby\""));
}

TEST_CASE("linrec's keys by token and by column, both ways", "[attention]") {
  const Tensor queries = normal(37, 1), source = normal(37, 2);
  for (const auto mask : {ops::AttentionMask::causal, ops::AttentionMask::bidirectional}) {
    for (const char* keys : {"token", "column"}) {
      nn::AttentionSettings with = settings();
      with.mask = mask;
      const nn::Attention attention = nn::make_attention(
          attention_choice(nn::attention_kinds(), "linrec", {{"linrec_keys", keys}}), with, RngKey{4});
      const Rows expected = by_products(*attention.as<nn::MultiHead<nn::LinRecCore>>(), queries, source);
      CHECK(difference(rows_of(attention(queries, source, {Offsets::single(37)}, {}).value()), expected) < 2e-5);
      CHECK(attention.has_state() == (mask == ops::AttentionMask::causal));
      if (!attention.has_state()) continue;
      nn::AttentionState state = attention.initial_state();
      Rows steps;
      for (std::int64_t t = 0; t < 37; ++t) {
        steps.push_back(rows_of(
            attention.step(state, queries.slice(0, t, t + 1), source.slice(0, t, t + 1), {.place = t}).value())[0]);
      }
      CHECK(difference(steps, expected) < 2e-5);
    }
  }
}

TEST_CASE("recgrela with both activations of its shortcut, both ways", "[attention]") {
  const Tensor queries = normal(37, 1), source = normal(37, 2);
  for (const bool causal : {true, false}) {
    for (const char* activation : {"none", "silu"}) {
      const nn::Attention attention = nn::make_attention(
          attention_choice(nn::attention_kinds(), "recgrela", {{"shortcut_act", activation}, {"shortcut_kernel", 3}}),
          settings(causal), RngKey{4});
      const Rows expected = testing::recgrela_by_definition(*attention.as<nn::RecGrelaKind>(), queries, source);
      CHECK(difference(rows_of(attention(queries, source, {Offsets::single(37)}, {}).value()), expected) < 2e-5);
      CHECK(attention.has_state() == causal);
    }
  }
}

TEST_CASE("recgrela keeps its denominator where no feature of the query meets one of the keys", "[attention]") {
  // Queries have the first column alone, keys all others: e^-60 of a row's features meet.
  Holder holder = make("recgrela");
  nn::RecGrelaKind kind = *holder.attention.as<nn::RecGrelaKind>();
  const auto set = [](nn::Linear& layer, bool first) {
    layer.weight.mutable_value().fill(0);
    auto bias = layer.bias.mutable_value().mutable_span<float>();
    for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = (i % 3 == 0) == first ? 1 : -60;
  };
  set(kind.query, true);
  set(kind.key, false);
  const Tensor rows = normal(20, 1);
  const auto [loss, gradients] =
      value_and_gradients([&] { return ops::sum(ops::square(kind(rows, rows, {Offsets::single(20)}, {}))); });
  CHECK(std::isfinite(loss.item()));
  for (const auto& [path, parameter] : nn::parameters(kind)) {
    INFO(path);
    for (const double x : gradients[parameter->id()].to_doubles()) CHECK(std::isfinite(x));
  }
}

TEST_CASE("a memory that decays by time needs the times of events", "[attention]") {
  const Holder holder = make("time_decay");
  const Tensor rows = normal(3, 1);
  CHECK_THROWS_WITH(holder.attention(rows, rows, {Offsets::single(3)}, {}), Contains("needs the times of events"));
  nn::AttentionState state = holder.attention.initial_state();
  CHECK_THROWS_WITH(holder.attention.step(state, normal(1, 1), normal(1, 1), {}), Contains("needs the time of each"));
  // Decayed by events alone, it needs none; a longer gap leaves less of what came before.
  const nn::Attention by_events = nn::make_attention(
      attention_choice(nn::attention_kinds(), "time_decay", {{"decay_by", "events"}}), settings(), RngKey{4});
  CHECK_NOTHROW(by_events(rows, rows, {Offsets::single(3)}, {}));
  const auto last_row = [&](double gap) {
    return rows_of(
        holder.attention(rows, rows, {Offsets::single(3), Tensor::from<double>({0, 1, gap}, {3})}, {}).value())[2];
  };
  CHECK(last_row(1) != last_row(1e6));
}

TEST_CASE("hstu divides by the visible rows or by the longest length, both ways", "[attention]") {
  const Tensor queries = normal(19, 1), source = normal(19, 2);
  for (const bool causal : {true, false}) {
    for (const char* normalizer : {"visible", "window"}) {
      const nn::Attention attention =
          nn::make_attention(attention_choice(nn::attention_kinds(), "hstu", {{"hstu_normalizer", normalizer}}),
                             settings(causal), RngKey{4});
      const Rows expected = testing::hstu_by_definition(*attention.as<nn::HstuKind>(), queries, source);
      CHECK(difference(rows_of(attention(queries, source, {Offsets::single(19)}, {}).value()), expected) < 2e-5);
    }
  }
  nn::AttentionSettings endless = settings();
  endless.max_length = 0;
  const auto by_window = attention_choice(nn::attention_kinds(), "hstu", {{"hstu_normalizer", "window"}});
  CHECK_THROWS_WITH(nn::make_attention(by_window, endless, RngKey{4}), Contains("needs a longest length"));
}

TEST_CASE("attentions that are written for one mask follow their definition under the other", "[attention]") {
  const Tensor queries = normal(19, 1), source = normal(19, 2);
  for (const char* name : {"hstu", "efficient", "lambda", "galerkin", "fixed_memory"}) {
    INFO(name);
    const Holder holder = make(name, false);
    const Rows expected = defined(name, holder.attention, queries, source);
    CHECK(difference(rows_of(holder.attention(queries, source, {Offsets::single(19)}, {}).value()), expected) < 2e-5);
    CHECK_FALSE(holder.attention.has_state());
  }
}

TEST_CASE("a lambda layer without norms, and with a window of one row, is what it is defined as", "[attention]") {
  const Tensor queries = normal(9, 1), source = normal(9, 2);
  for (const bool causal : {true, false}) {
    const nn::AttentionChoice with =
        attention_choice(nn::attention_kinds(), "lambda", {{"lambda_norm", "none"}, {"lambda_window", 1}});
    const nn::Attention attention = nn::make_attention(with, settings(causal), RngKey{4});
    const auto& kind = *attention.as<nn::LambdaKind>();
    CHECK_FALSE(kind.query_norm.weight.defined());
    CHECK(kind.positions.shape() == Shape{1, kWidth / kHeads});
    const Rows expected = testing::lambda_by_definition(kind, queries, source);
    CHECK(difference(rows_of(attention(queries, source, {Offsets::single(9)}, {}).value()), expected) < 2e-5);
    if (!causal) continue;
    nn::AttentionState state = attention.initial_state();
    Rows steps;
    for (std::int64_t t = 0; t < 9; ++t) {
      steps.push_back(rows_of(
          attention.step(state, queries.slice(0, t, t + 1), source.slice(0, t, t + 1), {.place = t}).value())[0]);
    }
    CHECK(difference(steps, expected) < 2e-5);
  }
}

TEST_CASE("galerkin's projections begin small, with a diagonal", "[attention]") {
  const nn::Attention attention = nn::make_attention(choice("galerkin"), settings(), RngKey{4});
  const auto& kind = *attention.as<nn::MultiHead<nn::GalerkinCore>>();
  for (const nn::Linear* layer : {&kind.query, &kind.key, &kind.value}) {
    // Xavier's bound is sqrt(6 / (fan in + fan out)).
    const double bound = 1e-2 * std::sqrt(6.0 / (2 * kWidth));
    const Rows weight = rows_of(layer->weight.value());
    double largest = 0;
    for (std::size_t i = 0; i < weight.size(); ++i) {
      for (std::size_t j = 0; j < weight.size(); ++j) {
        largest = std::max(largest, std::fabs(weight[i][j] - (i == j ? 1e-2 : 0)));
      }
    }
    CHECK(largest <= bound);
    CHECK(largest > bound / 2);
  }
}

TEST_CASE("lightsans reads the interests of each row's own sequence", "[attention]") {
  const Holder holder = make("lightsans", false);
  const auto& kind = *holder.attention.as<nn::MultiHead<nn::LightSansCore>>();
  const Tensor queries = normal(9, 1), source = normal(9, 2);
  const Tensor together =
      holder.attention(queries, source, {Offsets::from_lengths(std::vector<std::int64_t>{0, 4, 0, 1, 4, 0})}, {})
          .value();
  for (const auto& [begin, end] : {std::pair{0, 4}, std::pair{4, 5}, std::pair{5, 9}}) {
    const Rows expected = by_interests(kind, queries.slice(0, begin, end), source.slice(0, begin, end));
    CHECK(difference(rows_of(together.slice(0, begin, end).contiguous()), expected) < 2e-5);
  }
  const Tensor none = Tensor::zeros({0, kWidth});
  CHECK(holder.attention(none, none, {Offsets::from_lengths(std::vector<std::int64_t>{0, 0})}, {}).shape() ==
        none.shape());
  CHECK_THROWS_WITH(nn::make_attention(choice("lightsans"), settings(), RngKey{4}), Contains("has no causal form"));
}
