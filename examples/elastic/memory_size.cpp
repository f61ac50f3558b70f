// What the size of an interest memory costs: the time that the bidirectional ELASTIC takes for one history, whose
// experts are retrieved from memories of n^2 slots, beside that with static experts. One thread.
//   memory_size [LENGTH] [ROUNDS] [SUB_KEYS ...]     default 1000 200 64 128 256 512 1024
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tally/core/report/table.h"
#include "tally/nn/attention/dispatcher.h"
#include "tally/recsys/models/elastic.h"

using namespace tally;
using namespace tally::recsys;

namespace {

constexpr std::int64_t kItems = 10'000, kExperts = 64;

/// Width 64, two layers of two heads. Static experts for 0 sub-keys.
Elastic model_of(std::int64_t window, std::int64_t sub_keys) {
  ElasticOptions options = elastic_options();
  options.items = kItems;
  options.layers.window = window;
  options.layers.attention.options = nn::DispatcherOptions{.experts = kExperts};
  options.causal = false;
  options.sharing = ExpertSharing::carried;
  if (sub_keys > 0) {
    options.retrieval.retrieval = Retrieval::rows;
    options.retrieval.memory.sub_keys = sub_keys;
  }
  options.check("model");
  return Elastic::make(options, RngKey{1});
}

/// CPU time of one history, in ms.
double time_of(const Elastic& model, const Sequences& history) {
  const std::clock_t start = std::clock();
  model.encode(history, {});
  return 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, std::int64_t otherwise) {
    return argc > i ? std::strtoll(argv[i], nullptr, 10) : otherwise;
  };
  const std::int64_t length = argument(1, 1000), rounds = argument(2, 200);
  std::vector<std::int64_t> sizes{0};
  for (int i = 3; i < argc; ++i) sizes.push_back(argument(i, 0));
  if (argc <= 3) sizes.insert(sizes.end(), {64, 128, 256, 512, 1024});
  if (length < 1 || rounds < 1 || *std::min_element(sizes.begin(), sizes.end()) < 0) {
    std::cerr << "memory_size: needs a length and rounds of at least 1, and numbers of sub-keys\n";
    return 2;
  }
  set_num_threads(1);
  try {
    const Paused paused;
    std::vector<Elastic> models;
    for (const std::int64_t sub_keys : sizes) models.push_back(model_of(length, sub_keys));
    // Each round has another history: what a memory holds is not in a cache because the last one read it.
    std::vector<std::vector<double>> times(sizes.size()), ratios(sizes.size());
    for (std::int64_t round = 0; round < rounds; ++round) {
      std::vector<std::int32_t> items(static_cast<std::size_t>(length));
      for (std::size_t i = 0; i < items.size(); ++i) {
        items[i] = static_cast<std::int32_t>(uniform_below(RngKey{2}, static_cast<std::uint64_t>(round), i, kItems));
      }
      const Sequences history = Sequences::from({items}, kItems);
      for (std::size_t m = 0; m < models.size(); ++m) {
        times[m].push_back(time_of(models[m], history));
        ratios[m].push_back(times[m].back() / times[std::min<std::size_t>(m, 1)].back());
      }
    }
    Table table({{"sub-keys"}, {"slots"}, {"ms"}, {"of the smallest memory's"}});
    for (std::size_t m = 0; m < models.size(); ++m) {
      table.add_row({sizes[m] == 0 ? "none" : std::to_string(sizes[m]),
                     sizes[m] == 0 ? kNoFigure : std::to_string(sizes[m] * sizes[m]), format_fixed(median(times[m]), 3),
                     m == 0 ? kNoFigure : format_fixed(median(ratios[m]), 3)});
    }
    std::cout << "# Memory size\n\nOne history of " << length << " events, width 64, " << kExperts
              << " experts, two layers of two heads, both ways, one thread; medians of " << rounds
              << " rounds in which every memory is read once.\n\n"
              << table.to_markdown();
  } catch (const std::exception& error) {
    std::cerr << "memory_size: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
