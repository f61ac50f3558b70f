// LISA's models against a computation written from the paper's token-level equations.
#include "tally/recsys/models/lisa.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tests/recsys/lisa_samples.h"

namespace tally::recsys::lisa_test {
namespace {

using namespace lisa_samples;

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
      const std::vector<double>& assignment = assignments[t][b];
      const auto code =
          static_cast<std::size_t>(std::max_element(assignment.begin(), assignment.end()) - assignment.begin());
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

}  // namespace tally::recsys::lisa_test
