// LISA's models against a computation written from the paper's token-level equations, and what must hold of any of
// them.
#include "tally/recsys/models/lisa.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "tally/autograd/gradient_check.h"
#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/ops/tensor/reduce.h"

namespace tally::recsys {
namespace {

using Matrix = std::vector<std::vector<double>>;

LisaOptions small(LisaVariant variant) {
  LisaOptions options;
  options.items = 11;
  options.width = 6;
  options.window = 9;
  options.variant = variant;
  options.codebooks = 3;
  options.codewords = 4;
  options.target_codewords = 5;
  return options;
}

/// A model in double precision with weights of ordinary size, so that nothing hides in small numbers.
Lisa make_double(const LisaOptions& options) {
  Lisa model = Lisa::make(options, RngKey{17});
  std::uint64_t stream = 0;
  for (auto& [path, tensor] : nn::state(model)) {
    if (!is_floating(tensor->dtype())) continue;
    Tensor noise(tensor->shape(), DType::f64);
    fill_normal(RngKey{3}.fold_in(stream++), noise, 0, 0.4);
    *tensor = tensor->to(DType::f64).clone();
    auto values = tensor->mutable_span<double>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<double>()[i];
  }
  return model;
}

Sequences some_histories() { return Sequences::from({{3, 1, 4, 1, 5}, {}, {9}, {2, 6, 5, 3, 5, 8, 10, 0, 7}}, 11); }

Var encode(const Lisa& model, const Sequences& batch) {
  const BatchItems all = BatchItems::all(11);
  return model.encode(batch, model.prepare(all), {});
}

Matrix matrix(const Tensor& tensor) {
  const std::vector<double> values = tensor.to_doubles();
  const auto columns = static_cast<std::size_t>(tensor.dim(tensor.rank() - 1));
  Matrix rows;
  for (std::size_t begin = 0; begin < values.size(); begin += columns) {
    rows.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(begin),
                      values.begin() + static_cast<std::ptrdiff_t>(begin + columns));
  }
  return rows;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// a row times matrix rows [first, first + size).
std::vector<double> times(const std::vector<double>& row, const Matrix& m, std::size_t first = 0) {
  std::vector<double> out(m[0].size(), 0);
  for (std::size_t i = 0; i < row.size(); ++i) {
    for (std::size_t j = 0; j < out.size(); ++j) out[j] += row[i] * m[first + i][j];
  }
  return out;
}

std::vector<double> layer_norm(std::vector<double> x, const nn::LayerNorm& norm) {
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
  double variance = 0;
  for (const double value : x) variance += (value - mean) * (value - mean) / static_cast<double>(x.size());
  const std::vector<double> weight = norm.weight.value().to_doubles(), bias = norm.bias.value().to_doubles();
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = (x[i] - mean) / std::sqrt(variance + norm.epsilon) * weight[i] + bias[i];
  }
  return x;
}

/// Codes and reconstruction of one vector by residual passes of full width.
struct Encoded {
  std::vector<std::size_t> codes;
  std::vector<double> reconstruction;
};

Encoded encode_vector(const std::vector<double>& x, const nn::VectorQuantizer& quantizer, std::size_t codewords) {
  const Matrix codebooks = matrix(quantizer.codebooks.value()), bilinear = matrix(quantizer.bilinear.value());
  Encoded result{{}, std::vector<double>(x.size(), 0)};
  std::vector<double> rest = x;
  for (std::size_t b = 0; b < codebooks.size() / codewords; ++b) {
    const std::vector<double> query = times(rest, bilinear);
    std::size_t best = 0;
    for (std::size_t w = 1; w < codewords; ++w) {
      if (dot(query, codebooks[b * codewords + w]) > dot(query, codebooks[b * codewords + best])) best = w;
    }
    result.codes.push_back(best);
    for (std::size_t i = 0; i < x.size(); ++i) {
      rest[i] -= codebooks[b * codewords + best][i];
      result.reconstruction[i] += codebooks[b * codewords + best][i];
    }
  }
  return result;
}

/// LISA-Base's hidden states of one sequence, token by token from the paper's equations: softmax attention in each
/// codebook over all earlier tokens, with a bias of -decay per event of distance.
Matrix token_level(const Lisa& model, std::span<const std::int32_t> items, double decay) {
  constexpr std::size_t kCodewords = 4, kCodebooks = 3;
  const Matrix table = matrix(model.items.table.value()), positions = matrix(model.positions.table.value());
  const LisaBlock& block = model.blocks[0];
  const Matrix codebooks = matrix(model.quantizer.codebooks.value());
  const Matrix wq = matrix(block.attention.query.value()), wk = matrix(block.attention.key.value()),
               wv = matrix(block.attention.value.value());
  const std::size_t d = table[0].size();
  std::vector<Encoded> encoded;
  for (const std::int32_t item : items) {
    std::vector<double> x = table[static_cast<std::size_t>(item)];
    for (double& value : x) value *= std::sqrt(static_cast<double>(d));
    encoded.push_back(encode_vector(x, model.quantizer, kCodewords));
  }
  Matrix hidden;
  for (std::size_t t = 0; t < encoded.size(); ++t) {
    std::vector<double> attended(d, 0);
    for (std::size_t b = 0; b < kCodebooks; ++b) {
      const auto codeword = [&](std::size_t j) { return codebooks[b * kCodewords + encoded[j].codes[b]]; };
      const std::vector<double> query = times(codeword(t), wq, b * d);
      double sum = 0;
      std::vector<double> out(d, 0);
      for (std::size_t j = 0; j <= t; ++j) {
        const double score = dot(query, times(codeword(j), wk, b * d)) / std::sqrt(static_cast<double>(d)) -
                             decay * static_cast<double>(t - j);
        const std::vector<double> value = times(codeword(j), wv, b * d);
        sum += std::exp(score);
        for (std::size_t i = 0; i < d; ++i) out[i] += std::exp(score) * value[i];
      }
      for (std::size_t i = 0; i < d; ++i) attended[i] += out[i] / sum;
    }
    std::vector<double> x = encoded[t].reconstruction;
    for (std::size_t i = 0; i < d; ++i) x[i] += positions[t][i] + attended[i];
    const std::vector<double> y = layer_norm(x, block.attention_norm);
    // Linear weights are [out, in].
    const auto linear = [](const std::vector<double>& in, const nn::Linear& layer) {
      const Matrix weight = matrix(layer.weight.value());
      std::vector<double> out = layer.bias.value().to_doubles();
      for (std::size_t o = 0; o < out.size(); ++o) out[o] += dot(weight[o], in);
      return out;
    };
    std::vector<double> inner = linear(y, block.feed_forward.inner);
    for (double& value : inner) value = std::max(value, 0.0);
    std::vector<double> z = linear(inner, block.feed_forward.outer);
    for (std::size_t i = 0; i < d; ++i) z[i] += y[i];
    hidden.push_back(layer_norm(z, block.feed_forward_norm));
  }
  return hidden;
}

}  // namespace

TEST_CASE("LISA-Base is what the paper's equations say, token by token", "[lisa]") {
  for (const double decay : {0.1, 0.0}) {
    LisaOptions options = small(LisaVariant::base);
    options.decay = decay;
    const Lisa model = make_double(options);
    const Sequences batch = some_histories();
    const Matrix hidden = matrix(encode(model, batch).value());
    std::size_t row = 0;
    for (std::int64_t i = 0; i < batch.count(); ++i) {
      for (const std::vector<double>& expected : token_level(model, batch.sequence(i), decay)) {
        for (std::size_t k = 0; k < expected.size(); ++k) CHECK(hidden[row][k] == Approx(expected[k]).margin(1e-12));
        ++row;
      }
    }
    CHECK(row == hidden.size());
    // Targets of Base are the reconstructions.
    const BatchItems all = BatchItems::all(11);
    const Matrix targets = matrix(model.candidate_table(model.prepare(all)).value());
    for (std::size_t item = 0; item < 11; ++item) {
      std::vector<double> x = matrix(model.items.table.value())[item];
      for (double& value : x) value *= std::sqrt(6.0);
      const std::vector<double> expected = encode_vector(x, model.quantizer, 4).reconstruction;
      for (std::size_t k = 0; k < 6; ++k) CHECK(targets[item][k] == Approx(expected[k]).margin(1e-12));
    }
  }
}

TEST_CASE("targets of LISA's variants", "[lisa]") {
  const BatchItems all = BatchItems::all(11);
  LisaOptions full_targets = small(LisaVariant::base);
  full_targets.quantized = LisaQuantized::histories;
  std::vector<std::uint8_t> marks(11, 0);
  marks[3] = marks[7] = 1;
  const BatchItems some = BatchItems::marked(marks);
  for (const LisaOptions& options : {small(LisaVariant::soft), full_targets}) {
    const Lisa model = make_double(options);
    CHECK_FALSE(model.prepares_candidates());
    const Matrix table = matrix(model.items.table.value());
    const Matrix whole = matrix(model.candidate_table(model.prepare(all)).value());
    const BatchItems for_all = BatchItems::marked(marks, true);
    const Matrix unprepared = matrix(model.candidate_table(model.prepare(for_all)).value());
    const Matrix rows = matrix(model.candidate_table(model.prepare(some)).value());
    CHECK(rows.size() == 2);
    CHECK(unprepared.size() == 11);
    for (std::size_t k = 0; k < 6; ++k) {
      CHECK(whole[7][k] == Approx(std::sqrt(6.0) * table[7][k]));
      CHECK(unprepared[7][k] == whole[7][k]);
      CHECK(rows[1][k] == whole[7][k]);
    }
  }
  CHECK(make_double(small(LisaVariant::base)).prepares_candidates());

  const Lisa mini = make_double(small(LisaVariant::mini));
  REQUIRE(mini.target_quantizer);
  const Matrix second = matrix(mini.candidate_table(mini.prepare(all)).value());
  std::vector<double> x = matrix(mini.items.table.value())[7];
  for (double& value : x) value *= std::sqrt(6.0);
  const std::vector<double> expected = encode_vector(x, *mini.target_quantizer, 5).reconstruction;
  for (std::size_t k = 0; k < 6; ++k) CHECK(second[7][k] == Approx(expected[k]).margin(1e-12));
}

TEST_CASE("what LISA quantizes, and the scale of its scores", "[lisa]") {
  const BatchItems all = BatchItems::all(11);
  LisaOptions options = small(LisaVariant::base);
  const Lisa base = make_double(options);
  const Matrix plain = matrix(base.candidate_table(base.prepare(all)).value());
  options.score_scale = 0.25;
  const Lisa scaled = make_double(options);
  const Matrix quarter = matrix(scaled.candidate_table(scaled.prepare(all)).value());
  for (std::size_t k = 0; k < 6; ++k) CHECK(quarter[4][k] == Approx(plain[4][k] / 4));
  CHECK(matrix(encode(scaled, some_histories()).value()) == matrix(encode(base, some_histories()).value()));

  // A stream of full embeddings: the block's output for attended rows and these.
  options.quantized = LisaQuantized::attention;
  const Lisa attention = make_double(options);
  const Sequences one = Sequences::from({{7}}, 11);
  const LisaPrepared prepared = attention.prepare(all);
  const LisaBlock& block = attention.blocks[0];
  const nn::HistogramTables tables = block.attention.tables(attention.quantizer.codebooks);
  const Tensor code = attention.quantizer.encode(attention.items(one.items, std::sqrt(6.0)).value());
  const Var attended = block.attention(code, Var(), tables, one.offsets);
  const Var x = attention.items(one.items, std::sqrt(6.0)) +
                attention.positions(positions(one.offsets, attention.window, attention.alignment));
  const Matrix expected = matrix(block.after_attention(attended, x, {}).value());
  const Matrix got = matrix(attention.encode(one, prepared, {}).value());
  for (std::size_t k = 0; k < 6; ++k) CHECK(got[0][k] == Approx(expected[0][k]).margin(1e-12));
}

TEST_CASE("LISA's attention to positions, from its equations", "[lisa]") {
  LisaOptions options = small(LisaVariant::base);
  options.position_codebooks = 2;
  options.position_codewords = 3;
  const Lisa model = make_double(options);
  REQUIRE(model.position_quantizer);
  const Matrix positions = matrix(model.positions.table.value());
  const Matrix codebooks = matrix(model.position_quantizer->codebooks.value());
  const Matrix bilinear = matrix(model.position_quantizer->bilinear.value());
  // Soft assignments [window][book][word], by residual passes that take soft reconstructions away.
  std::vector<Matrix> assignments;
  for (std::vector<double> rest : positions) {
    Matrix of_position;
    for (std::size_t b = 0; b < 2; ++b) {
      const std::vector<double> query = times(rest, bilinear);
      std::vector<double> weights;
      for (std::size_t w = 0; w < 3; ++w) weights.push_back(std::exp(dot(query, codebooks[b * 3 + w]) / 0.7));
      const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (double& weight : weights) weight /= sum;
      for (std::size_t w = 0; w < 3; ++w) {
        for (std::size_t k = 0; k < 6; ++k) rest[k] -= weights[w] * codebooks[b * 3 + w][k];
      }
      of_position.push_back(weights);
    }
    assignments.push_back(of_position);
  }
  const nn::HistogramSelfAttention& attention = *model.blocks[0].position_attention;
  const Matrix wq = matrix(attention.query.value()), wk = matrix(attention.key.value()),
               wv = matrix(attention.value.value());
  Matrix expected;
  for (std::size_t t = 0; t < positions.size(); ++t) {
    std::vector<double> attended(6, 0);
    for (std::size_t b = 0; b < 2; ++b) {
      const std::vector<double>& own = assignments[t][b];
      const auto code = static_cast<std::size_t>(std::max_element(own.begin(), own.end()) - own.begin());
      const std::vector<double> query = times(codebooks[b * 3 + code], wq, b * 6);
      double sum = 0;
      std::vector<double> out(6, 0);
      for (std::size_t w = 0; w < 3; ++w) {
        double count = 0;
        for (std::size_t j = 0; j <= t; ++j) count += assignments[j][b][w];
        const double weight = count * std::exp(dot(query, times(codebooks[b * 3 + w], wk, b * 6)) / std::sqrt(6.0));
        const std::vector<double> value = times(codebooks[b * 3 + w], wv, b * 6);
        sum += weight;
        for (std::size_t k = 0; k < 6; ++k) out[k] += weight * value[k];
      }
      for (std::size_t k = 0; k < 6; ++k) attended[k] += out[k] / sum;
    }
    expected.push_back(attended);
  }
  const Matrix got = matrix(model.prepare(BatchItems::all(11)).blocks[0].attended_positions->value());
  REQUIRE(got.size() == expected.size());
  for (std::size_t t = 0; t < got.size(); ++t) {
    for (std::size_t k = 0; k < 6; ++k) CHECK(got[t][k] == Approx(expected[t][k]).margin(1e-12));
  }

  // Every sequence's rows meet those of their positions beside what attention to codes gives.
  const Sequences batch = some_histories();
  const LisaBlock& block = model.blocks[0];
  const Tensor places = recsys::positions(batch.offsets, model.window, model.alignment);
  const Var embedded = model.items(batch.items, std::sqrt(6.0));
  const ops::VectorQuantization quantized = model.quantizer(embedded);
  Tensor beside({places.numel(), 6}, DType::f64);
  for (std::int64_t row = 0; row < places.numel(); ++row) {
    const std::vector<double>& of_place = expected[static_cast<std::size_t>(places.data<std::int32_t>()[row])];
    std::copy(of_place.begin(), of_place.end(), beside.mutable_data<double>() + row * 6);
  }
  const Var attended = block.attention(quantized.codes, quantized.logits,
                                       block.attention.tables(model.quantizer.codebooks), batch.offsets) +
                       Var(beside);
  const Matrix hidden =
      matrix(block.after_attention(attended, quantized.reconstruction + model.positions(places), {}).value());
  const Matrix encoded = matrix(encode(model, batch).value());
  for (std::size_t row = 0; row < hidden.size(); ++row) {
    for (std::size_t k = 0; k < 6; ++k) CHECK(encoded[row][k] == Approx(hidden[row][k]).margin(1e-12));
  }
}

TEST_CASE("LISA's hidden states depend on the past alone, and on the items that were prepared", "[lisa]") {
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::soft, LisaVariant::mini}) {
    for (const std::int64_t layers : {1, 2}) {
      LisaOptions options = small(variant);
      options.layers = layers;
      const Lisa model = make_double(options);
      const Matrix before = matrix(encode(model, Sequences::from({{3, 1, 4, 1, 5}}, 11)).value());
      const Matrix after = matrix(encode(model, Sequences::from({{3, 1, 4, 8, 2, 0}}, 11)).value());
      for (std::size_t t = 0; t < 3; ++t) CHECK(before[t] == after[t]);
      CHECK(before[3] != after[3]);

      // Preparing the batch's items alone changes nothing.
      std::vector<std::uint8_t> marks(11, 0);
      for (const std::int32_t item : {1, 3, 4, 5}) marks[static_cast<std::size_t>(item)] = 1;
      const BatchItems some = BatchItems::marked(marks);
      const Matrix alone =
          matrix(model.encode(Sequences::from({{3, 1, 4, 1, 5}}, 11), model.prepare(some), {}).value());
      for (std::size_t t = 0; t < 5; ++t) {
        for (std::size_t k = 0; k < 6; ++k) CHECK(alone[t][k] == Approx(before[t][k]).margin(1e-12));
      }
    }
  }
}

TEST_CASE("gradients of LISA-Soft, which passes nothing straight through", "[lisa]") {
  struct Case {
    bool learn_decay, soft_query, positions;
  };
  for (const Case& one : {Case{false, false, false},
                          {true, false, false},
                          {false, true, false},
                          {true, true, false},
                          {false, false, true}}) {
    LisaOptions options = small(LisaVariant::soft);
    options.learn_decay = one.learn_decay;
    options.soft_query = one.soft_query;
    if (one.positions) options.position_codebooks = 2, options.position_codewords = 3;
    options.activation = ops::Activation::gelu;
    Lisa model = make_double(options);
    const Sequences batch = some_histories();
    Tensor targets({batch.items.numel()}, DType::i32);
    for (std::int64_t i = 0; i < targets.numel(); ++i) {
      targets.mutable_data<std::int32_t>()[i] = static_cast<std::int32_t>((5 * i + 7) % 11);
    }
    std::vector<CheckedLeaf> leaves;
    for (const auto& [path, parameter] : nn::parameters(model)) {
      leaves.push_back({path, parameter->value(), parameter->id()});
    }
    // Codes change a small step away from some embeddings, so that only narrow steps are smooth: they see less.
    GradientCheckOptions narrow;
    narrow.rtol = 1e-5;
    narrow.atol = 1e-7;
    const GradientReport report = check_gradients(
        [&]() -> std::vector<Var> {
          const BatchItems all = BatchItems::all(11);
          const auto prepared = model.prepare(all);
          return {ops::item_cross_entropy(model.encode(batch, prepared, {}), model.candidate_table(prepared), targets)};
        },
        leaves, narrow);
    for (const LeafReport& leaf : report.leaves) {
      INFO(leaf.name << ": " << leaf.max_relative << ' ' << leaf.numeric_error << ' ' << leaf.hint);
      CHECK(std::string(name_of(leaf.verdict)) == "OK");
    }
  }
}

TEST_CASE("every parameter of LISA's variants is trained by the loss", "[lisa]") {
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::soft, LisaVariant::mini}) {
    LisaOptions options = small(variant);
    options.learn_decay = true;
    options.layers = 2;
    options.commitment = 0.01;
    options.codeword_bias = true;
    options.position_codebooks = 2;
    Lisa model = make_double(options);
    const Sequences batch = some_histories();
    const Tensor targets = batch.items;
    const auto result = value_and_gradients([&] {
      const BatchItems all = BatchItems::all(11);
      const auto prepared = model.prepare(all);
      return ops::item_cross_entropy(model.encode(batch, prepared, {}), model.candidate_table(prepared), targets) +
             model.auxiliary_loss(batch, targets, prepared, {});
    });
    for (const auto& [path, parameter] : nn::parameters(model)) {
      INFO(path);
      REQUIRE(result.gradients.contains(Var(*parameter)));
      double size = 0;
      for (const double value : result.gradients[Var(*parameter)].to_doubles()) size += std::fabs(value);
      CHECK(size > 0);
    }
  }
}

TEST_CASE("commitment pulls embeddings towards their reconstructions and moves nothing else", "[lisa]") {
  LisaOptions options = small(LisaVariant::soft);
  options.commitment = 0.5;
  Lisa model = make_double(options);
  const Sequences batch = Sequences::from({{3, 1, 3}}, 11);
  const auto result = value_and_gradients([&] {
    const BatchItems all = BatchItems::all(11);
    return model.auxiliary_loss(batch, batch.items, model.prepare(all), {});
  });
  const BatchItems all = BatchItems::all(11);
  const LisaPrepared values = model.prepare(all);
  const Matrix embedded = matrix(values.embedded->value()), reconstruction = matrix(values.reconstructions().value());
  double expected = 0;
  for (const std::size_t item : {3, 1, 3}) {
    for (std::size_t k = 0; k < 6; ++k) expected += 0.5 * std::pow(embedded[item][k] - reconstruction[item][k], 2);
  }
  CHECK(result.value.item() == Approx(expected));
  CHECK(result.gradients.contains(Var(model.items.table)));
  CHECK_FALSE(result.gradients.contains(Var(model.quantizer.codebooks)));
}

TEST_CASE("commitment of LISA-Mini holds histories to their codewords and targets to theirs", "[lisa]") {
  LisaOptions options = small(LisaVariant::mini);
  options.commitment = 0.5;
  options.score_scale = 0.3;
  const Lisa model = make_double(options);
  const Sequences batch = Sequences::from({{3, 1, 3}}, 11);
  const Tensor targets = Tensor::from<std::int32_t>({1, 8, -1}, {3});
  const BatchItems all = BatchItems::all(11);
  const auto prepared = model.prepare(all);
  const Matrix table = matrix(model.items.table.value());
  const auto distance = [&](std::size_t item, const nn::VectorQuantizer& quantizer, std::size_t words) {
    std::vector<double> x = table[item];
    for (double& value : x) value *= std::sqrt(6.0);
    const std::vector<double> reconstruction = encode_vector(x, quantizer, words).reconstruction;
    double sum = 0;
    for (std::size_t k = 0; k < 6; ++k) sum += std::pow(x[k] - reconstruction[k], 2);
    return sum;
  };
  double expected = 0;
  for (const std::size_t item : {3, 1, 3}) expected += 0.5 * distance(item, model.quantizer, 4);
  for (const std::size_t item : {1, 8}) expected += 0.5 * distance(item, *model.target_quantizer, 5);
  CHECK(model.auxiliary_loss(batch, targets, prepared, {}).item() == Approx(expected));
}

TEST_CASE("inference keeps no logits of hard codes, and gives what a recorded pass gives", "[lisa]") {
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::mini}) {
    const Lisa model = make_double(small(variant));
    const BatchItems all = BatchItems::all(11);
    const LisaPrepared values = model.prepare(all);
    std::int64_t largest = 0;
    for (const Var& value : Prepared(values).vars())
      largest = std::max(largest, value.rank() == 2 ? value.dim(0) * value.dim(1) : 0);
    CHECK(largest < 11 * 3 * 4);
    const Matrix hidden = matrix(encode(model, some_histories()).value());
    const Matrix candidates = matrix(model.candidate_table(values).value());
    Tape tape;
    const Recording on(tape);
    CHECK(matrix(encode(model, some_histories()).value()) == hidden);
    CHECK(matrix(model.candidate_table(model.prepare(all)).value()) == candidates);
  }
}

TEST_CASE("codebooks from k-means stand nearer to the embeddings than small noise", "[lisa]") {
  const auto error = [](bool kmeans) {
    LisaOptions options = small(LisaVariant::mini);
    options.kmeans = kmeans;
    options.similarity = ops::CodewordSimilarity::squared_distance;
    const Lisa model = Lisa::make(options, RngKey{17});
    const BatchItems all = BatchItems::all(11);
    const LisaPrepared values = model.prepare(all);
    const std::vector<double> embedded = values.embedded->value().to_doubles();
    double sum = 0;
    for (const Var& approximation : {values.reconstructions(), model.candidate_table(values)}) {
      const std::vector<double> reconstruction = approximation.value().to_doubles();
      for (std::size_t i = 0; i < embedded.size(); ++i) sum += std::pow(embedded[i] - reconstruction[i], 2);
    }
    return sum;
  };
  CHECK(error(true) < 0.3 * error(false));
}

TEST_CASE("given other embeddings, codebooks from k-means begin from those", "[lisa]") {
  for (const bool kmeans : {true, false}) {
    LisaOptions options = small(LisaVariant::mini);
    options.kmeans = kmeans;
    options.similarity = ops::CodewordSimilarity::squared_distance;
    Lisa model = Lisa::make(options, RngKey{17});
    const Tensor histories = model.quantizer.codewords().value().clone();
    const Tensor targets = model.target_quantizer->codewords().value().clone();
    fill_normal(RngKey{18}, *nn::state(model).front().tensor, 0, 0.5);
    const double before = model.measures()[2].value;
    model.weights_given(RngKey{19});
    CHECK(identical(histories, model.quantizer.codewords().value()) == !kmeans);
    CHECK(identical(targets, model.target_quantizer->codewords().value()) == !kmeans);
    if (kmeans) CHECK(model.measures()[2].value < 0.7 * before);
  }
}

TEST_CASE("LISA's measures count each item once", "[lisa]") {
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::mini}) {
    LisaOptions options = small(variant);
    options.similarity = ops::CodewordSimilarity::squared_distance;
    const Lisa model = make_double(options);
    const auto expect = [](const nn::VectorQuantizer& quantizer, const Matrix& x) {
      // The nearest codeword of what is left over, one item after another.
      const auto books = static_cast<std::size_t>(quantizer.options.codebooks);
      const auto words = static_cast<std::size_t>(quantizer.options.codewords);
      const Matrix codewords = matrix(quantizer.codebooks.value());
      std::vector<std::vector<double>> counts(books, std::vector<double>(words));
      double error = 0, size = 0;
      for (const std::vector<double>& item : x) {
        std::vector<double> rest = item;
        for (std::size_t b = 0; b < books; ++b) {
          std::size_t best = 0;
          double least = 1e300;
          for (std::size_t w = 0; w < words; ++w) {
            double distance = 0;
            for (std::size_t k = 0; k < rest.size(); ++k) {
              distance += std::pow(rest[k] - codewords[b * words + w][k], 2);
            }
            if (distance < least) least = distance, best = w;
          }
          for (std::size_t k = 0; k < rest.size(); ++k) rest[k] -= codewords[b * words + best][k];
          counts[b][best] += 1;
        }
        for (const double value : rest) error += value * value;
        for (const double value : item) size += value * value;
      }
      double used = 0, perplexity = 0;
      for (const std::vector<double>& of_book : counts) {
        double entropy = 0;
        for (const double count : of_book) {
          used += count > 0 ? 1 : 0;
          const double share = count / static_cast<double>(x.size());
          if (count > 0) entropy -= share * std::log(share);
        }
        perplexity += std::exp(entropy) / static_cast<double>(books);
      }
      return std::vector<double>{used / static_cast<double>(books * words), perplexity, error / size};
    };
    Matrix embedded = matrix(model.items.table.value());
    for (auto& row : embedded) {
      for (double& value : row) value *= std::sqrt(6.0);
    }
    std::vector<double> expected = expect(model.quantizer, embedded);
    if (model.target_quantizer) {
      for (const double value : expect(*model.target_quantizer, embedded)) expected.push_back(value);
    }
    const std::vector<Measure> measures = model.measures();
    REQUIRE(measures.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      INFO(measures[i].name);
      CHECK(measures[i].value == Approx(expected[i]));
    }
    CHECK(measures[0].name == "codewords_used");
    if (model.target_quantizer) CHECK(measures[3].name == "target_codewords_used");
  }
  // Soft: the error is that of the averages.
  const Lisa soft = make_double(small(LisaVariant::soft));
  const std::vector<double> x = soft.items.table.value().to_doubles();
  const std::vector<double> averages = soft.prepare(BatchItems::all(11)).reconstructions().value().to_doubles();
  double error = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    error += std::pow(x[i] * std::sqrt(6.0) - averages[i], 2);
    size += 6 * x[i] * x[i];
  }
  CHECK(soft.measures()[2].value == Approx(error / size));
}

TEST_CASE("LISA refuses options that mean nothing", "[lisa]") {
  for (const auto& spoil : std::vector<std::function<void(LisaOptions&)>>{
           [](LisaOptions& o) { o.codewords = 0; }, [](LisaOptions& o) { o.codebooks = 0; },
           [](LisaOptions& o) { o.layers = 0; }, [](LisaOptions& o) { o.decay = -1; },
           [](LisaOptions& o) {
             o.decay = 0;
             o.learn_decay = true;
           },
           [](LisaOptions& o) { o.temperature = 0; }, [](LisaOptions& o) { o.temperature = 1e-40; },
           [](LisaOptions& o) { o.attention_window = -1; }, [](LisaOptions& o) { o.position_codebooks = -1; },
           [](LisaOptions& o) { o.position_codebooks = 2, o.position_codewords = 0; },
           [](LisaOptions& o) { o.position_codebooks = 2, o.alignment = PositionAlignment::end; },
           [](LisaOptions& o) { o.variant = LisaVariant::mini, o.quantized = LisaQuantized::histories; }}) {
    LisaOptions options = small(LisaVariant::base);
    spoil(options);
    CHECK_THROWS_AS(Lisa::make(options, RngKey{1}), Error);
  }
}

}  // namespace tally::recsys
