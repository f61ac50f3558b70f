#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tally/recsys/models/gru4rec.h"
#include "tally/recsys/models/lisa.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/sessions/sessions.h"

/// Small models and events for tests of sessions.
namespace tally::test {

using namespace recsys;

constexpr std::int64_t kItems = 700, kWidth = 16;

inline LisaOptions lisa_options() {
  LisaOptions options;
  options.items = kItems;
  options.width = kWidth;
  options.window = 100;
  options.codebooks = 2;
  options.codewords = 8;
  return options;
}

inline std::unique_ptr<SequenceModel> model_named(const std::string& name, std::uint64_t seed = 1) {
  if (name == "gru4rec") {
    return std::make_unique<SequenceModelOf<Gru4Rec>>(
        name, Gru4Rec::make({.items = kItems, .width = kWidth, .window = 100, .deviation = 0.5}, RngKey{seed}));
  }
  if (name == "sasrec" || name == "time_decay") {
    SasRecOptions options{.items = kItems, .width = kWidth, .window = 100, .deviation = 0.3};
    if (name != "sasrec") options.attention = {nn::attention_kinds(), name};
    return std::make_unique<SequenceModelOf<SasRec>>(name, SasRec::make(options, RngKey{seed}));
  }
  return std::make_unique<SequenceModelOf<Lisa>>(name, Lisa::make(lisa_options(), RngKey{seed}));
}

/// Throws at every event: the first block's rows overflow, so the second cannot quantize them.
inline std::unique_ptr<SequenceModel> overflowing_model() {
  LisaOptions options = lisa_options();
  options.layers = 2;
  Lisa lisa = Lisa::make(options, RngKey{1});
  for (float& weight : lisa.blocks[0].feed_forward.outer.weight.mutable_value().mutable_span<float>()) weight = 1e38f;
  for (float& weight : lisa.blocks[0].feed_forward.inner.weight.mutable_value().mutable_span<float>()) weight *= 1e20f;
  return std::make_unique<SequenceModelOf<Lisa>>("lisa", std::move(lisa));
}

inline IdMap item_names() {
  IdMap names;
  for (std::int64_t i = 0; i < kItems; ++i) names.add("item-" + std::to_string(i));
  return names;
}

/// Events of users named u0, u1, ..., mixed, at irregular times.
struct EventStream {
  std::vector<std::string> users, items;
  std::vector<double> times;
  std::map<std::string, std::vector<std::int32_t>> histories;
  std::map<std::string, std::vector<double>> histories_times;

  EventStream(std::size_t count, std::uint64_t users_of, std::uint64_t seed = 99) {
    std::uint64_t x = seed;
    const auto draw = [&](std::uint64_t n) {
      x = x * 6364136223846793005ULL + 1442695040888963407ULL;
      return (x >> 33) % n;
    };
    for (std::size_t i = 0; i < count; ++i) {
      users.push_back("u" + std::to_string(draw(users_of)));
      const auto item = static_cast<std::int32_t>(draw(kItems));
      items.push_back("item-" + std::to_string(item));
      histories[users.back()].push_back(item);
      times.push_back(5000.5 * static_cast<double>(i) + static_cast<double>(i * 2'654'435'761 % 86'400) / 3);
      histories_times[users.back()].push_back(times.back());
    }
  }
  std::vector<UserEvent> events(std::size_t begin = 0, std::size_t end = std::size_t(-1)) const {
    std::vector<UserEvent> all;
    for (std::size_t i = begin; i < std::min(end, users.size()); ++i) all.push_back({users[i], items[i], times[i]});
    return all;
  }
};

}  // namespace tally::test
