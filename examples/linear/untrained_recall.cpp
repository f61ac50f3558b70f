// How many pairs of a key and a value a memory of fixed size holds without any training, rule by rule, and what it
// remembers of keys that are written again. Keys and values are drawn, of length 1; what a memory reads is taken for
// the nearest of all values written. Two tables, and failure where they are not what is known of the rules.
//   untrained_recall [DRAWS]     default 20
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include "tally/core/random.h"
#include "tally/core/report/table.h"
#include "tally/ops/attention/linear_attention.h"
#include "tally/ops/attention/softmax_attention.h"

using namespace tally;

namespace {

constexpr std::int64_t kWidth = 64;

/// Rows of length 1.
Tensor unit_rows(std::int64_t rows, std::int64_t width, RngKey key) {
  Tensor x({rows, width});
  fill_normal(key, x, 0, 1);
  for (std::int64_t i = 0; i < rows; ++i) {
    float* const row = x.mutable_data<float>() + i * width;
    const float length = std::sqrt(std::inner_product(row, row + width, row, 0.0f));
    std::for_each(row, row + width, [&](float& value) { value /= length; });
  }
  return x;
}

/// Rows of x by index.
Tensor taken(const Tensor& x, const std::vector<std::int64_t>& rows) {
  const std::int64_t width = x.dim(1);
  Tensor y({static_cast<std::int64_t>(rows.size()), width});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x.data<float>() + rows[i] * width, width,
                y.mutable_data<float>() + static_cast<std::int64_t>(i) * width);
  }
  return y;
}

/// x, and below it so many rows of zeros; or above it.
Tensor padded(const Tensor& x, std::int64_t above, std::int64_t below) {
  Tensor y = Tensor::zeros({above + x.dim(0) + below, x.dim(1)});
  std::copy_n(x.data<float>(), x.numel(), y.mutable_data<float>() + above * x.dim(1));
  return y;
}

/// Halves side by side.
Tensor beside(const Tensor& a, const Tensor& b) {
  Tensor y({a.dim(0), a.dim(1) + b.dim(1)});
  for (std::int64_t i = 0; i < a.dim(0); ++i) {
    float* const row = y.mutable_data<float>() + i * y.dim(1);
    std::copy_n(a.data<float>() + i * a.dim(1), a.dim(1), row);
    std::copy_n(b.data<float>() + i * b.dim(1), b.dim(1), row + a.dim(1));
  }
  return y;
}

/// A way to remember: a rule with a decay, the symmetric memory of one kind of rows, or softmax over all pairs.
struct Memory {
  std::string name;
  ops::UpdateRule rule = ops::UpdateRule::linear;
  double decay = 1;
  bool symmetric = false;
  double temperature = 0;  ///< of softmax, where that is meant

  std::int64_t key_width() const { return symmetric ? kWidth / 2 : kWidth; }
};

/// What is read for each query after all keys and values were written.
Tensor read(const Memory& memory, const Tensor& keys, const Tensor& values, const Tensor& queries) {
  const std::int64_t written = keys.dim(0), asked = queries.dim(0);
  if (memory.temperature > 0) {
    // A query for every key: further ones than were asked are not looked at.
    return ops::softmax_attention(padded(queries, 0, written - asked), keys, values, Offsets::single(written),
                                  {.mask = ops::AttentionMask::bidirectional, .scale = 1 / memory.temperature})
        .value();
  }
  // The queries come after all keys, with keys of zeros and no decay of their own, and change nothing.
  const Tensor zeros = Tensor::zeros(queries.shape());
  const Tensor written_keys = memory.symmetric ? beside(keys, values) : keys,
               written_values = memory.symmetric ? written_keys : values,
               asking = memory.symmetric ? beside(queries, zeros) : queries;
  ops::LinearAttentionInputs inputs{.q = Var(padded(asking, written, 0)),
                                    .k = Var(padded(written_keys, 0, asked)),
                                    .v = Var(padded(written_values, 0, asked))};
  if (ops::decays(memory.rule)) {
    Tensor decays = Tensor::zeros({written + asked, 1});
    std::fill_n(decays.mutable_data<float>(), written, static_cast<float>(std::log(memory.decay)));
    inputs.log_decay = Var(decays);
  }
  const Tensor all = ops::linear_attention(inputs, Offsets::single(written + asked),
                                           {.rule = memory.rule, .scale = 1, .final_state = false})
                         .output.value();
  const Tensor rows = all.slice(0, written, written + asked);
  return (memory.symmetric ? rows.slice(1, kWidth / 2, kWidth) : rows).contiguous();
}

/// Share of queries whose row is nearest to the value that is right.
double accuracy(const Tensor& rows, const Tensor& values, const std::vector<std::int64_t>& right) {
  std::int64_t found = 0;
  for (std::size_t i = 0; i < right.size(); ++i) {
    const float* const row = rows.data<float>() + static_cast<std::int64_t>(i) * rows.dim(1);
    std::vector<double> products;
    for (std::int64_t j = 0; j < values.dim(0); ++j) {
      const float* const value = values.data<float>() + j * values.dim(1);
      products.push_back(std::inner_product(row, row + rows.dim(1), value, 0.0));
    }
    found += std::max_element(products.begin(), products.end()) - products.begin() == right[i];
  }
  return static_cast<double>(found) / static_cast<double>(right.size());
}

/// Pairs that never repeat, each asked for once.
double of_pairs(const Memory& memory, std::int64_t pairs, RngKey key) {
  const Tensor keys = unit_rows(pairs, memory.key_width(), key.fold_in("keys")),
               values = unit_rows(pairs, memory.key_width(), key.fold_in("values"));
  std::vector<std::int64_t> right(static_cast<std::size_t>(pairs));
  std::iota(right.begin(), right.end(), 0);
  return accuracy(read(memory, keys, values, keys), values, right);
}

/// Each of so many keys written `times` times with other values, and asked for at the end: the latest value wins.
double of_latest(const Memory& memory, std::int64_t count, std::int64_t times, RngKey key) {
  const Tensor keys = unit_rows(count, memory.key_width(), key.fold_in("keys")),
               values = unit_rows(count * times, memory.key_width(), key.fold_in("values"));
  // Round by round; the last round's values are right.
  std::vector<std::int64_t> order, right;
  for (std::int64_t i = 0; i < count * times; ++i) order.push_back(i % count);
  for (std::int64_t i = 0; i < count; ++i) right.push_back(count * (times - 1) + i);
  return accuracy(read(memory, taken(keys, order), values, keys), values, right);
}

double mean_of_draws(std::int64_t draws, const auto& accuracy_of) {
  double sum = 0;
  for (std::int64_t i = 0; i < draws; ++i) sum += accuracy_of(RngKey{static_cast<std::uint64_t>(i)});
  return sum / static_cast<double>(draws);
}

const std::vector<Memory> kMemories = {
    {.name = "linear"},
    {.name = "gated, a = .99", .rule = ops::UpdateRule::gated, .decay = 0.99},
    {.name = "delta, b = 1", .rule = ops::UpdateRule::delta},
    {.name = "gated delta, a = .99, b = 1", .rule = ops::UpdateRule::gated_delta, .decay = 0.99},
    {.name = "symmetric, keys and values of 32", .symmetric = true},
    {.name = "softmax over all pairs, temperature .1", .temperature = 0.1}};

/// A table with a row for each memory.
std::vector<std::vector<double>> print_table(const std::string& title, const std::vector<std::int64_t>& numbers,
                                             const auto& figure) {
  std::vector<TableColumn> columns{{"memory", false}};
  for (const std::int64_t number : numbers) columns.push_back({std::to_string(number)});
  Table table(columns);
  std::vector<std::vector<double>> figures;
  for (const Memory& memory : kMemories) {
    std::vector<std::string> row{memory.name};
    std::vector<double>& of_memory = figures.emplace_back();
    for (const std::int64_t number : numbers) {
      of_memory.push_back(figure(memory, number));
      row.push_back(format_fixed(of_memory.back(), 2));
    }
    table.add_row(row);
  }
  std::cout << title << "\n\n" << table.to_markdown() << '\n';
  return figures;
}

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t draws = argc > 1 ? std::strtoll(argv[1], nullptr, 10) : 20;
  if (draws < 1) {
    std::cerr << "untrained_recall: needs a number of draws above 0\n";
    return 2;
  }
  const auto pairs =
      print_table("Accuracy by the number of pairs that never repeat, width 64.", {16, 32, 64, 128, 256, 512},
                  [&](const Memory& memory, std::int64_t count) {
                    return mean_of_draws(draws, [&](RngKey key) { return of_pairs(memory, count, key); });
                  });
  const auto latest =
      print_table("Accuracy of the latest value by how often each of 32 keys was written, width 64.", {1, 2, 4, 8},
                  [&](const Memory& memory, std::int64_t times) {
                    return mean_of_draws(draws, [&](RngKey key) { return of_latest(memory, 32, times, key); });
                  });
  // Twice the width of pairs are held by the linear rule, fewer by the delta rule; written again, only the delta rules
  // know the latest.
  const bool holds = pairs[0][3] > 0.9 && pairs[0][5] < 0.5 && pairs[2][3] < pairs[0][3] - 0.2 &&
                     pairs[4][3] < pairs[0][3] - 0.2 && pairs[5][5] > 0.99 && latest[0][2] < 0.6 && latest[2][3] > 0.9;
  if (!holds) std::cerr << "untrained_recall: the figures are not what is known of the rules\n";
  return holds ? 0 : 1;
}
