// Recall from a sequence by attentions of the table: multi-query associative recall (Arora et al., arXiv 2312.04927),
// and "the latest value wins". Small models of two blocks learn to give the value of a key that they saw before; what
// is compared is accuracy against the numbers that an attention keeps of a sequence.
//   recall [--task mqar|latest] [--pairs N] [--width N] [--heads N] [--steps N] [--seeds N] [--rates R,R,...]
//          [ATTENTION ...]                                                  defaults: see Settings
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/random.h"
#include "tally/core/report/table.h"
#include "tally/nn/blocks/transformer.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/ops/recurrent/causal_conv1d.h"
#include "tally/ops/tensor/matmul.h"
#include "tally/ops/tensor/shape.h"

using namespace tally;

namespace {

struct Settings {
  bool latest = false;
  std::int64_t pairs = 16, width = 32, heads = 2, steps = 400, seeds = 1;
  std::vector<double> rates{0.001, 0.003, 0.01};
  std::vector<std::string> attentions{"softmax",  "linear_elu",     "retnet",    "gla",
                                      "deltanet", "gated_deltanet", "gated_slot"};
};

constexpr std::int64_t kWords = 256, kBatch = 32, kTests = 256, kWrites = 3;

/// Sequences of one length, end to end, and what is asked for at each place: -1 where nothing is.
struct Batch {
  Tensor words, targets;  ///< i32 [T]
  Offsets offsets;
};

/// A key, from the lower half of the words but 0, which fills gaps, or a value, from the upper half.
std::vector<std::int32_t> drawn_words(std::int64_t count, bool values, RngKey key) {
  std::vector<std::int32_t> all;
  for (std::int32_t word = values ? kWords / 2 : 1; word < (values ? kWords : kWords / 2); ++word) all.push_back(word);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto rest = static_cast<std::uint64_t>(all.size()) - static_cast<std::uint64_t>(i);
    const auto j = i + static_cast<std::int64_t>(uniform_below(key, static_cast<std::uint64_t>(i), 0, rest));
    std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(j)]);
  }
  all.resize(static_cast<std::size_t>(count));
  return all;
}

/// One sequence: pairs of key and value, each key `writes` times with other values, then keys whose latest value is
/// asked for. In MQAR (one write) they stand at gaps drawn from the power law of its authors; the rest is filled by 0.
void add_sequence(const Settings& settings, RngKey key, std::vector<std::int32_t>& words,
                  std::vector<std::int32_t>& targets) {
  const std::int64_t pairs = settings.pairs, writes = settings.latest ? kWrites : 1;
  const std::vector<std::int32_t> keys = drawn_words(pairs, false, key.fold_in("keys"));
  std::vector<std::int32_t> latest(keys.size());
  for (std::int64_t w = 0; w < writes; ++w) {
    const std::vector<std::int32_t> values =
        drawn_words(pairs, true, key.fold_in("values").fold_in(static_cast<std::uint64_t>(w)));
    for (std::size_t i = 0; i < keys.size(); ++i) {
      words.insert(words.end(), {keys[i], values[i]});
      latest[i] = values[i];
    }
  }
  targets.resize(words.size(), -1);
  // Places 2 g of the second half; a gap g that is taken moves to the next that is free.
  const std::int64_t gaps = pairs;
  std::vector<std::int64_t> asked(static_cast<std::size_t>(gaps), -1);
  for (std::int64_t i = 0; i < pairs; ++i) {
    constexpr double kPower = 0.01;
    const double u =
        static_cast<double>(uniform_below(key.fold_in("gaps"), static_cast<std::uint64_t>(i), 0, 1 << 20)) / (1 << 20);
    auto gap = static_cast<std::int64_t>(std::pow(u, 1 / kPower) * static_cast<double>(gaps));
    while (asked[static_cast<std::size_t>(gap)] >= 0) gap = (gap + 1) % gaps;
    asked[static_cast<std::size_t>(gap)] = i;
  }
  for (const std::int64_t i : asked) {
    words.insert(words.end(), {keys[static_cast<std::size_t>(i)], 0});
    targets.insert(targets.end(), {latest[static_cast<std::size_t>(i)], -1});
  }
}

Batch make_batch(const Settings& settings, std::int64_t count, RngKey key) {
  std::vector<std::int32_t> words, targets;
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::size_t before = words.size();
    add_sequence(settings, key.fold_in(static_cast<std::uint64_t>(i)), words, targets);
    lengths.push_back(static_cast<std::int64_t>(words.size() - before));
  }
  const auto rows = static_cast<std::int64_t>(words.size());
  return {Tensor::from(words, {rows}), Tensor::from(targets, {rows}), Offsets::from_lengths(lengths)};
}

/// Two blocks over embedded words, each mixed with the two words before it: with that short convolution, as its
/// authors' models have, every attention can learn where the value of a key stands.
struct RecallModel {
  nn::Embedding words;
  nn::Parameter nearby;  ///< [width, 3]
  std::vector<nn::TransformerBlock> blocks;
  nn::LayerNorm norm;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("words", self.words);
    visit("nearby", self.nearby);
    visit("blocks", self.blocks);
    visit("norm", self.norm);
  }
  static RecallModel make(const std::string& attention, const Settings& settings, std::int64_t length, RngKey key) {
    Tensor nearby({settings.width, 3});
    fill_uniform(key.fold_in("nearby"), nearby, -0.5, 0.5);
    RecallModel model{.words = nn::Embedding::make({kWords, settings.width, 1}, key.fold_in("words")),
                      .nearby = nn::Parameter(std::move(nearby)),
                      .blocks = {},
                      .norm = nn::LayerNorm::make({settings.width})};
    for (std::uint64_t b = 0; b < 2; ++b) {
      model.blocks.push_back(nn::TransformerBlock::make(
          {.attention = {nn::attention_kinds(), attention},
           .settings = {.width = settings.width, .heads = settings.heads, .max_length = length}},
          key.fold_in("blocks").fold_in(b)));
    }
    return model;
  }
  Var operator()(const Batch& batch) const {
    Var x = words(batch.words);
    x = x + ops::causal_conv1d(x, nearby, {}, {}, batch.offsets);
    for (const nn::TransformerBlock& block : blocks) x = block(x, {batch.offsets}, {});
    return norm(x);
  }
  /// Numbers that both blocks keep of a sequence of so many rows.
  double kept(std::int64_t length) const {
    double numbers = 0;
    for (const nn::TransformerBlock& block : blocks) {
      numbers += block.has_state() ? static_cast<double>(block.initial_state().heap_bytes()) / sizeof(double)
                                   : 2 * static_cast<double>(length * words.table.shape()[1]);  // keys and values
    }
    return numbers;
  }
};

double accuracy(const RecallModel& model, const Batch& batch) {
  const Tensor scores = ops::matmul(model(batch), ops::transpose(model.words.table.var(), 0, 1)).value();
  std::int64_t found = 0, asked = 0;
  for (std::int64_t t = 0; t < scores.dim(0); ++t) {
    const std::int32_t target = batch.targets.data<std::int32_t>()[t];
    if (target < 0) continue;
    const float* const row = scores.data<float>() + t * kWords;
    found += std::max_element(row, row + kWords) - row == target;
    ++asked;
  }
  return static_cast<double>(found) / static_cast<double>(asked);
}

/// Accuracy on sequences that were not trained on.
double train(RecallModel& model, const Settings& settings, double rate, RngKey key, const Batch& test) {
  optim::Adam adam({.learning_rate = rate});
  for (std::int64_t step = 0; step < settings.steps; ++step) {
    const Batch batch = make_batch(settings, kBatch, key.fold_in(static_cast<std::uint64_t>(step)));
    const double questions = static_cast<double>(kBatch * settings.pairs);
    const auto [loss, gradients] = value_and_gradients([&] {
      return ops::item_cross_entropy(model(batch), model.words.table.var(), batch.targets,
                                     {.reduction_scale = 1 / questions});
    });
    adam.step(nn::parameters(model), gradients);
  }
  return accuracy(model, test);
}

Settings parse(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> attentions;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (!word.starts_with("--")) {
      attentions.push_back(word);
      continue;
    }
    check<ConfigError>(i + 1 < argc, word, "needs a value");
    const std::string value = argv[++i];
    const auto number = [&] {
      const std::int64_t parsed = std::strtoll(value.c_str(), nullptr, 10);
      check<ConfigError>(parsed > 0, word, "needs a number above 0; got ", value);
      return parsed;
    };
    if (word == "--task") {
      check<ConfigError>(value == "mqar" || value == "latest", word, "needs mqar or latest; got ", value);
      settings.latest = value == "latest";
    } else if (word == "--pairs") {
      settings.pairs = number();
      check<ConfigError>(settings.pairs < kWords / 2, word, "needs fewer than ", kWords / 2, " keys; got ", value);
    } else if (word == "--width") {
      settings.width = number();
    } else if (word == "--heads") {
      settings.heads = number();
    } else if (word == "--steps") {
      settings.steps = number();
    } else if (word == "--seeds") {
      settings.seeds = number();
    } else if (word == "--rates") {
      settings.rates.clear();
      std::istringstream rates(value);
      for (std::string rate; std::getline(rates, rate, ',');) settings.rates.push_back(std::stod(rate));
    } else {
      fail<ConfigError>(word, "is not an option: --task, --pairs, --width, --heads, --steps, --seeds, --rates");
    }
  }
  if (!attentions.empty()) settings.attentions = attentions;
  return settings;
}

int run(const Settings& settings) {
  const Batch test = make_batch(settings, kTests, RngKey{1}.fold_in("test"));
  const std::int64_t length = test.offsets.length(0);
  std::cout << (settings.latest ? "The latest value wins" : "Multi-query associative recall") << ": " << settings.pairs
            << " keys, " << length << " words a sequence, width " << settings.width << ", " << settings.heads
            << " heads, " << settings.steps << " steps of " << kBatch << " sequences, the best of "
            << settings.rates.size() << " rates\n\n";
  Table table({{"attention", false}, {"numbers kept"}, {"accuracy"}, {"rate"}});
  double best_of_all = 0;
  for (const std::string& attention : settings.attentions) {
    double best = -1, best_rate = 0, kept = 0;
    for (const double rate : settings.rates) {
      double mean = 0;
      for (std::int64_t seed = 0; seed < settings.seeds; ++seed) {
        const RngKey key{static_cast<std::uint64_t>(seed)};
        RecallModel model = RecallModel::make(attention, settings, length, key.fold_in("model"));
        kept = model.kept(length);
        mean += train(model, settings, rate, key.fold_in("batches"), test) / static_cast<double>(settings.seeds);
      }
      if (mean > best) best = mean, best_rate = rate;
    }
    best_of_all = std::max(best_of_all, best);
    table.add_row({attention, format_fixed(kept, 0), format_fixed(best, 3), format_exact(best_rate)});
  }
  std::cout << table.to_markdown();
  return best_of_all > 2.0 / static_cast<double>(settings.pairs) ? 0 : 1;  // more than guessing among what was written
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
