#include "tally/ops/sample_coverage.h"

#include <algorithm>
#include <set>

#include "tally/ops/check.h"

namespace tally::ops {
namespace {

/// Are values of this option told apart one by one, or only from the default?
bool by_value(const OptionValue& value) {
  return std::holds_alternative<bool>(value) || std::holds_alternative<std::string>(value);
}

std::string plain(const OptionValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text == nullptr ? describe(value) : *text;
}

std::string level_of(const OpOption& option, const OpOptions& options) {
  const auto found = options.values().find(option.name);
  const OptionValue& value = found == options.values().end() ? option.otherwise : found->second;
  if (by_value(option.otherwise)) return option.name + "=" + plain(value);
  return option.name + (describe(value) == describe(option.otherwise) ? " default" : " set");
}

std::string presence(const OpInput& input, bool given) { return input.name + (given ? " given" : " absent"); }

bool declared_apart(const OpEntry& entry, const std::string& a, const std::string& b) {
  return std::any_of(entry.apart.begin(), entry.apart.end(), [&](const auto& pair) {
    return (pair.first == a && pair.second == b) || (pair.first == b && pair.second == a);
  });
}

/// Checked by differences, on at least one element. (An op without a gradient is held against its reference alone.)
bool counts(const OpEntry& entry, const OpSample& sample) {
  if (!sample.gradient) return false;
  const auto differentiable = [](const OpInput& input) { return input.kind == InputKind::differentiable; };
  if (std::none_of(entry.inputs.begin(), entry.inputs.end(), differentiable)) return true;
  const std::vector<bool> tracked = differentiable_inputs(entry, sample.inputs);
  for (std::size_t i = 0; i < tracked.size(); ++i) {
    if (tracked[i] && sample.inputs[i].numel() > 0) return true;
  }
  return false;
}

/// A choice of one factor of a covering array, and what it does to a sample.
struct Choice {
  std::vector<std::string> levels;
  std::function<void(OpSample&)> apply;
};

bool declared_apart(const OpEntry& entry, const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return std::any_of(a.begin(), a.end(), [&](const std::string& one) {
    return std::any_of(b.begin(), b.end(), [&](const std::string& other) { return declared_apart(entry, one, other); });
  });
}

/// Indices of the optional inputs.
std::vector<std::size_t> optional_inputs(const OpEntry& entry) {
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < entry.inputs.size(); ++i) {
    if (entry.inputs[i].optional) places.push_back(i);
  }
  return places;
}

/// Every combination of presence and absence, as levels.
std::vector<std::vector<std::string>> presences(const OpEntry& entry, const std::vector<std::size_t>& places) {
  std::vector<std::vector<std::string>> all(std::size_t{1} << places.size());
  for (std::size_t bits = 0; bits < all.size(); ++bits) {
    for (std::size_t k = 0; k < places.size(); ++k) {
      all[bits].push_back(presence(entry.inputs[places[k]], (bits >> k & 1) == 0));
    }
  }
  return all;
}

std::vector<std::vector<Choice>> choices_of(const OpEntry& entry, const OpVariations& variations) {
  std::vector<std::vector<Choice>> all;
  for (const OpOption& option : entry.options) {
    const auto found = std::find_if(variations.values.begin(), variations.values.end(),
                                    [&](const auto& each) { return each.first == option.name; });
    if (found == variations.values.end()) continue;
    std::vector<Choice>& levels = all.emplace_back();
    std::vector<OptionValue> values{option.otherwise};
    values.insert(values.end(), found->second.begin(), found->second.end());
    for (const OptionValue& value : values) {
      levels.push_back({{level_of(option, OpOptions{{option.name, value}})},
                        [name = option.name, value](OpSample& sample) { sample.options.set(name, value); }});
    }
  }
  // All optional inputs together are one factor, so that each combination of them occurs.
  std::vector<std::size_t> places = optional_inputs(entry);
  std::erase_if(places, [&](std::size_t i) { return !variations.base.inputs.at(i).defined(); });
  const std::vector<std::vector<std::string>> combinations = presences(entry, places);
  std::vector<Choice> inputs;
  for (std::size_t bits = 0; bits < combinations.size() && !places.empty(); ++bits) {
    inputs.push_back({combinations[bits], [places, bits](OpSample& sample) {
                        for (std::size_t k = 0; k < places.size(); ++k) {
                          if ((bits >> k & 1) != 0) sample.inputs[places[k]] = Tensor();
                        }
                      }});
  }
  if (!inputs.empty()) all.push_back(std::move(inputs));
  return all;
}

using Pair = std::pair<std::pair<std::size_t, std::size_t>, std::pair<std::size_t, std::size_t>>;

/// Adds the combinations of more than two optional inputs.
void see_presences(const OpEntry& entry, const std::vector<std::size_t>& places, PairCoverage& coverage) {
  std::set<std::vector<std::string>> met;
  for (const OpSample& sample : entry.samples()) {
    if (!counts(entry, sample)) continue;
    std::vector<std::string> levels;
    for (const std::size_t i : places) levels.push_back(presence(entry.inputs[i], sample.inputs[i].defined()));
    met.insert(levels);
  }
  for (const std::vector<std::string>& combination : presences(entry, places)) {
    if (declared_apart(entry, combination, combination)) continue;
    ++coverage.total;
    if (met.contains(combination)) {
      ++coverage.covered;
      continue;
    }
    std::string text;
    for (const std::string& level : combination) text += (text.empty() ? "" : ", ") + level;
    coverage.missing.push_back(text);
  }
}

}  // namespace

std::vector<SampleFactor> sample_factors(const OpEntry& entry) {
  std::vector<SampleFactor> factors;
  const std::vector<OpSample> samples = entry.samples();
  for (const OpOption& option : entry.options) {
    SampleFactor factor{option.name, {level_of(option, {})}};
    if (std::holds_alternative<bool>(option.otherwise)) {
      factor.levels = {option.name + "=false", option.name + "=true"};
    } else if (!by_value(option.otherwise)) {
      factor.levels = {option.name + " default", option.name + " set"};
    }
    for (const OpSample& sample : samples) {
      const std::string level = level_of(option, sample.options);
      if (std::find(factor.levels.begin(), factor.levels.end(), level) == factor.levels.end())
        factor.levels.push_back(level);
    }
    factors.push_back(std::move(factor));
  }
  for (const OpInput& input : entry.inputs) {
    if (input.optional) factors.push_back({input.name, {presence(input, true), presence(input, false)}});
  }
  return factors;
}

std::vector<std::string> levels_of(const OpEntry& entry, const OpSample& sample) {
  std::vector<std::string> levels;
  for (const OpOption& option : entry.options) levels.push_back(level_of(option, sample.options));
  for (std::size_t i = 0; i < entry.inputs.size(); ++i) {
    if (entry.inputs[i].optional) levels.push_back(presence(entry.inputs[i], sample.inputs[i].defined()));
  }
  return levels;
}

PairCoverage pair_coverage(const OpEntry& entry) {
  std::set<std::pair<std::string, std::string>> met;
  for (const OpSample& sample : entry.samples()) {
    if (!counts(entry, sample)) continue;
    const std::vector<std::string> levels = levels_of(entry, sample);
    for (std::size_t a = 0; a < levels.size(); ++a) {
      for (std::size_t b = a; b < levels.size(); ++b) met.insert({levels[a], levels[b]});
    }
  }
  PairCoverage coverage;
  const std::vector<SampleFactor> factors = sample_factors(entry);
  const auto see = [&](const std::string& a, const std::string& b) {
    if (declared_apart(entry, a, b)) return;
    ++coverage.total;
    if (met.contains({a, b})) {
      ++coverage.covered;
    } else {
      coverage.missing.push_back(a == b ? a : a + " with " + b);
    }
  };
  const std::vector<std::size_t> places = optional_inputs(entry);
  if (places.size() > 2) see_presences(entry, places, coverage);
  for (std::size_t a = 0; a < factors.size(); ++a) {
    for (const std::string& level : factors[a].levels) {
      if (factors.size() == 1) see(level, level);
      for (std::size_t b = a + 1; b < factors.size(); ++b) {
        for (const std::string& other : factors[b].levels) see(level, other);
      }
    }
  }
  return coverage;
}

std::vector<OpSample> paired_samples(const OpEntry& entry, const OpVariations& variations) {
  std::vector<std::vector<Choice>> factors = choices_of(entry, variations);
  std::set<Pair> open;
  // What the base has and nothing varies.
  std::vector<std::string> fixed = levels_of(entry, variations.base);
  for (const std::vector<Choice>& factor : factors) {
    for (const Choice& choice : factor) {
      std::erase_if(fixed, [&](const std::string& level) {
        return std::find(choice.levels.begin(), choice.levels.end(), level) != choice.levels.end();
      });
    }
  }
  for (std::vector<Choice>& factor : factors) {
    std::erase_if(factor, [&](const Choice& choice) {
      return declared_apart(entry, choice.levels, fixed) || declared_apart(entry, choice.levels, choice.levels);
    });
  }
  const auto apart = [&](std::size_t f, std::size_t i, std::size_t g, std::size_t j) {
    return declared_apart(entry, factors[f][i].levels, factors[g][j].levels);
  };
  for (std::size_t f = 0; f < factors.size(); ++f) {
    for (std::size_t g = f + 1; g < factors.size(); ++g) {
      for (std::size_t i = 0; i < factors[f].size(); ++i) {
        for (std::size_t j = 0; j < factors[g].size(); ++j) {
          if (!apart(f, i, g, j)) open.insert({{f, i}, {g, j}});
        }
      }
    }
  }
  std::vector<OpSample> samples;
  while (!open.empty()) {
    constexpr std::size_t kNone = ~std::size_t{0};
    std::vector<std::size_t> chosen(factors.size(), kNone);
    const Pair first = *open.begin();
    open.erase(open.begin());
    chosen[first.first.first] = first.first.second;
    chosen[first.second.first] = first.second.second;
    bool possible = true;
    for (std::size_t f = 0; f < factors.size() && possible; ++f) {
      if (chosen[f] != kNone) continue;
      std::int64_t most = -1;
      for (std::size_t i = 0; i < factors[f].size(); ++i) {
        std::int64_t gained = 0;
        bool allowed = true;
        for (std::size_t g = 0; g < factors.size() && allowed; ++g) {
          if (chosen[g] == kNone) continue;
          allowed = !apart(f, i, g, chosen[g]);
          gained += f < g ? static_cast<std::int64_t>(open.count({{f, i}, {g, chosen[g]}}))
                          : static_cast<std::int64_t>(open.count({{g, chosen[g]}, {f, i}}));
        }
        if (!allowed || gained <= most) continue;
        most = gained;
        chosen[f] = i;
      }
      possible = chosen[f] != kNone;
    }
    if (!possible) continue;  // the pair excludes every choice of another factor: the coverage will tell
    OpSample& sample = samples.emplace_back(variations.base);
    sample.name = variations.base.name + ", pairs " + std::to_string(samples.size());
    for (std::size_t f = 0; f < factors.size(); ++f) {
      factors[f][chosen[f]].apply(sample);
      for (std::size_t g = f + 1; g < factors.size(); ++g) open.erase({{f, chosen[f]}, {g, chosen[g]}});
    }
  }
  return samples;
}

}  // namespace tally::ops
