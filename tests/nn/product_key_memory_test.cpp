#include "tally/nn/memory/product_key_memory.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <set>

#include "tally/autograd/tape.h"
#include "tally/nn/buffer_updates.h"
#include "tally/nn/memory/memory_use.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"
#include "tests/nn/module_gradients.h"

namespace product_key_memory_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

using Rows = std::vector<std::vector<double>>;

nn::ProductKeyMemoryOptions small() {
  nn::ProductKeyMemoryOptions options;
  options.in = 5;
  options.width = 3;
  options.sub_keys = 4;
  options.key_width = 6;
  options.heads = 2;
  options.slots = 3;
  return options;
}

Tensor rows_of(std::int64_t count, std::int64_t width, std::uint64_t stream, DType dtype = DType::f32) {
  Tensor x({count, width}, DType::f64);
  fill_normal(RngKey{5, stream}, x, 0, 1);
  return x.to(dtype);
}

Rows matrix(const Tensor& x) {
  const std::vector<double> all = x.to_doubles();
  const auto columns = static_cast<std::ptrdiff_t>(x.dim(x.rank() - 1));
  Rows rows;
  for (auto at = all.begin(); at != all.end(); at += columns) rows.emplace_back(at, at + columns);
  return rows;
}

std::vector<double> linear(const nn::Linear& layer, const std::vector<double>& x) {
  std::vector<double> y = layer.bias.value().to_doubles();
  const Rows weight = matrix(layer.weight.value());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = std::inner_product(x.begin(), x.end(), weight[i].begin(), y[i]);
  return y;
}

void to_length_one(double* x, std::size_t n) {
  const double length = std::sqrt(std::inner_product(x, x + n, x, 0.0));
  for (std::size_t i = 0; i < n; ++i) x[i] /= length;
}

/// What a row reads, by a look at every slot: of each head the weighted rows, best first.
Rows read_by_definition(const nn::ProductKeyMemory& memory, const std::vector<double>& row, const Tensor& values) {
  const auto heads = static_cast<std::size_t>(memory.options.heads), k = static_cast<std::size_t>(memory.options.slots);
  const auto n = static_cast<std::size_t>(memory.keys.shape()[2]), w = static_cast<std::size_t>(memory.keys.shape()[3]);
  std::vector<double> queries = linear(memory.query, row);
  std::vector<double> keys = memory.keys.value().to_doubles();
  const Rows of_slots = matrix(values);
  if (memory.norm == nn::MemoryNorm::unit) {
    for (std::size_t i = 0; i < keys.size(); i += w) to_length_one(keys.data() + i, w);
  }
  Rows read;
  for (std::size_t h = 0; h < heads; ++h) {
    double* q = queries.data() + h * 2 * w;
    if (memory.norm == nn::MemoryNorm::layer) {
      const double mean = std::accumulate(q, q + 2 * w, 0.0) / static_cast<double>(2 * w);
      double variance = 0;
      for (std::size_t i = 0; i < 2 * w; ++i) variance += (q[i] - mean) * (q[i] - mean) / static_cast<double>(2 * w);
      const auto scale = memory.query_norm.weight.value().to_doubles(),
                 shift = memory.query_norm.bias.value().to_doubles();
      for (std::size_t i = 0; i < 2 * w; ++i) q[i] = (q[i] - mean) / std::sqrt(variance + 1e-5) * scale[i] + shift[i];
    }
    if (memory.norm == nn::MemoryNorm::unit) {
      for (std::size_t half = 0; half < 2; ++half) {
        to_length_one(q + half * w, w);
        for (std::size_t i = 0; i < w; ++i) q[half * w + i] *= memory.score_scale.value().to_doubles()[h];
      }
    }
    std::vector<std::pair<double, std::size_t>> slots;
    for (std::size_t slot = 0; slot < n * n; ++slot) {
      double score = 0;
      for (std::size_t i = 0; i < w; ++i) {
        score += q[i] * keys[((h * 2) * n + slot / n) * w + i] + q[w + i] * keys[((h * 2 + 1) * n + slot % n) * w + i];
      }
      slots.emplace_back(-score, slot);
    }
    std::sort(slots.begin(), slots.end());
    double total = 0;
    for (std::size_t j = 0; j < k; ++j) total += std::exp(-slots[j].first);
    for (std::size_t j = 0; j < k; ++j) {
      const double score = -slots[j].first, softmax = std::exp(score) / total;
      const double weight = memory.options.weights == ops::MemoryWeights::softmax ? softmax
                            : memory.options.weights == ops::MemoryWeights::scaled_softmax
                                ? softmax * static_cast<double>(k)
                                : 1 / (1 + std::exp(-score));
      std::vector<double>& to = read.emplace_back(of_slots[slots[j].second]);
      for (double& x : to) x *= weight;
    }
  }
  return read;
}

}  // namespace

TEST_CASE("a memory reads what a look at every slot finds", "[product_key_memory]") {
  const Tensor asking = rows_of(7, 5, 1);
  for (const nn::MemoryNorm norm : {nn::MemoryNorm::none, nn::MemoryNorm::layer, nn::MemoryNorm::unit}) {
    for (const ops::MemoryWeights weights :
         {ops::MemoryWeights::softmax, ops::MemoryWeights::scaled_softmax, ops::MemoryWeights::sigmoid}) {
      for (const ops::MemoryGate gate : {ops::MemoryGate::none, ops::MemoryGate::scalar, ops::MemoryGate::swilu}) {
        nn::ProductKeyMemoryOptions options = small();
        options.norm = norm;
        options.weights = weights;
        options.gate = gate;
        const bool pooled = gate != ops::MemoryGate::none || weights == ops::MemoryWeights::softmax;
        options.output = pooled ? ops::MemoryOutput::pooled : ops::MemoryOutput::rows;
        const auto memory = nn::ProductKeyMemory::make(options, RngKey{1});
        const Tensor read = memory(asking, {}).output.value();
        CHECK(read.shape() == (pooled ? Shape{7, 3} : Shape{7, 6, 3}));
        const Rows got = matrix(read), rows = matrix(asking);
        for (std::size_t t = 0; t < rows.size(); ++t) {
          Rows wanted = read_by_definition(memory, rows[t], memory.values.value());
          if (pooled) {
            std::vector<double> sum(3);
            for (const auto& row : wanted)
              std::transform(row.begin(), row.end(), sum.begin(), sum.begin(), std::plus());
            if (gate != ops::MemoryGate::none) {
              const std::vector<double> logits = linear(memory.gate, rows[t]);
              for (std::size_t i = 0; i < 3; ++i) {
                const double logit = logits[gate == ops::MemoryGate::scalar ? 0 : i], s = 1 / (1 + std::exp(-logit));
                sum[i] *= gate == ops::MemoryGate::scalar ? s : s * logit;
              }
            }
            wanted = {sum};
          }
          for (std::size_t j = 0; j < wanted.size(); ++j) {
            for (std::size_t i = 0; i < 3; ++i) CHECK(std::fabs(got[t * wanted.size() + j][i] - wanted[j][i]) < 1e-5);
          }
        }
      }
    }
  }
}

TEST_CASE("a memory has right gradients", "[product_key_memory]") {
  const auto weighted = [](const Var& y) {
    return y * Var(rows_of(y.dim(0), y.value().numel() / y.dim(0), 9, DType::f64).reshape(y.shape()));
  };
  for (const nn::MemoryNorm norm : {nn::MemoryNorm::layer, nn::MemoryNorm::unit}) {
    nn::ProductKeyMemoryOptions options = small();
    options.norm = norm;
    auto rows = nn::ProductKeyMemory::make(options, RngKey{1});
    testing::check_module(rows, rows_of(4, 5, 3, DType::f64),
                          [&](const Var& x) { return weighted(rows(x, {}).output); });
    options.output = ops::MemoryOutput::pooled;
    options.gate = ops::MemoryGate::swilu;
    auto pooled = nn::ProductKeyMemory::make(options, RngKey{1});
    testing::check_module(pooled, rows_of(4, 5, 3, DType::f64),
                          [&](const Var& x) { return weighted(pooled(x, {}).output); });
  }
}

TEST_CASE("memories may share their values", "[product_key_memory]") {
  nn::ProductKeyMemoryOptions options = small();
  options.own_values = false;
  const auto first = nn::ProductKeyMemory::make(options, RngKey{1}),
             second = nn::ProductKeyMemory::make(options, RngKey{2});
  const nn::Parameter values(rows_of(16, 3, 4));
  const Tensor asking = rows_of(2, 5, 1);
  CHECK_THROWS_WITH(first(asking, {}), Contains("no values of its own"));
  Tape tape;
  ops::ProductKeyMemoryResult a, b;
  Var loss;
  {
    const Recording on(tape);
    a = first(asking, values, {});
    b = second(asking, values, {});
    loss = ops::sum(a.output) + ops::sum(b.output);
  }
  const Gradients gradients = tape.backward(loss);
  std::set<std::int64_t> read;
  for (const auto* slots : {&a.slots, &b.slots}) {
    for (const std::int64_t slot : slots->span<std::int64_t>()) read.insert(slot);
  }
  const auto* const of_values = std::get_if<RowGrad>(gradients.find(values.id()));
  REQUIRE(of_values != nullptr);
  const auto touched = of_values->rows.span<std::int64_t>();
  CHECK(std::set<std::int64_t>(touched.begin(), touched.end()) == read);
}

TEST_CASE("a memory counts what is read of it in training", "[product_key_memory]") {
  auto memory = nn::ProductKeyMemory::make(small(), RngKey{1});
  const Tensor asking = rows_of(7, 5, 1);
  nn::BufferUpdates updates;
  memory(asking, {.training = false, .updates = &updates});
  CHECK(updates.empty());
  std::vector<double> slots(16), weights(16), sub_keys(2 * 2 * 4);
  for (std::uint64_t step = 0; step < 2; ++step) {
    nn::BufferUpdates posted;
    const auto read = memory(asking, {.training = true, .key = RngKey{step}, .updates = &posted});
    updates.append(std::move(posted));
    const std::vector<double> of_reads = read.weights.value().to_doubles();
    for (std::size_t i = 0; i < of_reads.size(); ++i) {
      const auto slot = static_cast<std::size_t>(read.slots.span<std::int64_t>()[i]), head = i / 3 % 2;
      ++slots[slot];
      weights[slot] += of_reads[i];
      ++sub_keys[head * 8 + slot / 4];
      ++sub_keys[head * 8 + 4 + slot % 4];
    }
  }
  updates.apply();
  CHECK(memory.slot_reads.value().to_doubles() == slots);
  CHECK(memory.sub_key_reads.value().to_doubles() == sub_keys);
  CHECK(memory.query_norms.value().to_doubles()[1] == 2 * 7 * 2);
  CHECK(memory.mean_query_norm() == Approx(std::sqrt(6.0)).epsilon(1e-2));  // layer norm's
  double length = 0;
  for (const auto& key : matrix(memory.keys.value())) {
    length += std::sqrt(std::inner_product(key.begin(), key.end(), key.begin(), 0.0)) / 16;
  }
  CHECK(memory.mean_key_norm() == Approx(length));
  for (std::size_t i = 0; i < 16; ++i) CHECK(memory.slot_weights.value().to_doubles()[i] == Approx(weights[i]));
}

TEST_CASE("use of a memory: share of slots and distance from uniform", "[product_key_memory]") {
  CHECK(nn::share_used(Tensor::from<std::int64_t>({0, 3, 1, 0}, {4})) == 0.5);
  CHECK(nn::divergence_from_uniform(Tensor::from<std::int64_t>({2, 2, 2, 2}, {2, 2})) == Approx(0).margin(1e-15));
  CHECK(nn::divergence_from_uniform(Tensor::from<double>({0, 0, 9, 0}, {4})) == Approx(std::log(4.0)));
  CHECK(nn::divergence_from_uniform(Tensor::from<std::int64_t>({1, 3}, {2})) ==
        Approx(std::log(2.0) + 0.25 * std::log(0.25) + 0.75 * std::log(0.75)));
  CHECK(nn::divergence_from_uniform(Tensor::from<std::int64_t>({0, 0}, {2})) == 0);
  CHECK(nn::share_used(Tensor({0}, DType::i64)) == 0);
  CHECK_THROWS_WITH(nn::share_used(Tensor::from<double>({-1}, {1})), Contains("at least 0"));
}

TEST_CASE("dead slots begin anew beside live ones", "[product_key_memory]") {
  auto memory = nn::ProductKeyMemory::make(small(), RngKey{1});
  CHECK(memory.revive(RngKey{3}) == 0);
  // Slot 6 alone, (1, 2), was read, by head 0.
  memory.slot_reads.mutable_value().mutable_data<std::int64_t>()[6] = 5;
  auto* reads = memory.sub_key_reads.mutable_value().mutable_data<std::int64_t>();
  reads[1] = reads[4 + 2] = 5;
  const nn::ProductKeyMemory before = memory;
  CHECK(memory.revive(RngKey{3}) == 3 + 3 + 15);
  CHECK(memory.slot_reads.value().to_doubles() == std::vector<double>(16, 0));
  const Rows keys = matrix(memory.keys.value()), old_keys = matrix(before.keys.value());
  const auto distance = [](const std::vector<double>& a, const std::vector<double>& b) {
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
    return most;
  };
  CHECK(keys[1] == old_keys[1]);
  CHECK(keys[6] == old_keys[6]);
  for (const std::size_t dead : {0, 2, 3})
    CHECK((distance(keys[dead], keys[1]) > 0 && distance(keys[dead], keys[1]) < 0.4));
  // Nothing was read by head 1: its keys stay.
  for (std::size_t i = 8; i < 16; ++i) CHECK(keys[i] == old_keys[i]);
  const Rows values = matrix(memory.values.value());
  CHECK(values[6] == matrix(before.values.value())[6]);
  for (std::size_t slot = 0; slot < 16; ++slot) CHECK(distance(values[slot], values[6]) < 0.5);
  // The same key, the same rows.
  nn::ProductKeyMemory again = before;
  again.revive(RngKey{3});
  CHECK(again.keys.value().to_doubles() == memory.keys.value().to_doubles());
}

TEST_CASE("a memory refuses what makes no sense, and takes nothing", "[product_key_memory]") {
  const auto make = [](auto&& change) {
    nn::ProductKeyMemoryOptions options = small();
    change(options);
    return nn::ProductKeyMemory::make(options, RngKey{1});
  };
  CHECK_THROWS_WITH(make([](auto& o) { o.slots = 0; }), Contains("needs to read 1 to 16 slots"));
  CHECK_THROWS_WITH(make([](auto& o) { o.slots = 17; }), Contains("needs to read 1 to 16 slots"));
  CHECK_THROWS_WITH(make([](auto& o) { o.heads = 0; }), Contains("at least 1"));
  CHECK_THROWS_WITH(make([](auto& o) { o.key_width = 5; }), Contains("even width"));
  CHECK_THROWS_WITH(make([](auto& o) { o.gate = ops::MemoryGate::scalar; }), Contains("not single rows"));
  const auto memory = make([](auto&) {});
  CHECK(memory(Tensor({0, 5}), {}).output.shape() == Shape{0, 6, 3});
  Tensor asking = rows_of(2, 5, 1);
  asking.mutable_data<float>()[3] = std::nanf("");
  CHECK_THROWS_AS(memory(asking, {}), ValueError);
}

}  // namespace product_key_memory_test
