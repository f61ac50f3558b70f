#include "tally/recsys/evaluation/candidate_sampling.h"

#include <algorithm>

#include "tally/core/error.h"
#include "tally/core/random.h"

namespace tally::recsys {
namespace {

const char* name_of(CandidateSampling::Distribution distribution) {
  return distribution == CandidateSampling::Distribution::popularity ? "popularity" : "uniform";
}

const char* describe(CandidateSampling::Exclude exclude) {
  switch (exclude) {
    case CandidateSampling::Exclude::training:
      return "outside the user's training items";
    case CandidateSampling::Exclude::history:
      return "outside the user's history";
    default:
      return "outside the user's items";
  }
}

bool contains(std::span<const std::int32_t> sorted, std::int32_t item) {
  return std::binary_search(sorted.begin(), sorted.end(), item);
}

/// Index of the interval of a cumulative sum that a uniform draw falls into: proportional to the summands.
std::size_t draw_index(RngKey key, std::uint64_t row, std::uint64_t column, std::span<const std::int64_t> cumulative) {
  const auto at =
      static_cast<std::int64_t>(uniform_below(key, row, column, static_cast<std::uint64_t>(cumulative.back())));
  return static_cast<std::size_t>(std::upper_bound(cumulative.begin(), cumulative.end(), at) - cumulative.begin());
}

}  // namespace

std::string CandidateSampling::label() const {
  return (distribution == Distribution::popularity ? "pop" : "uni") + std::to_string(count);
}

std::string CandidateSampling::description() const {
  return detail::join(count, ' ', name_of(distribution), " negatives ", replacement ? "with" : "without",
                      " replacement, ", describe(exclude), ", seed ", seed);
}

CandidateSampler::CandidateSampler(const Split& split, Part part, const CandidateSampling& sampling)
    : split_(split),
      part_(part),
      sampling_(sampling),
      key_(RngKey{sampling.seed, 0}.fold_in("candidates").fold_in(recsys::name_of(part))),
      drawable_items_(split.data().num_items()) {
  check<ValueError>(sampling.count >= 1, "candidate sampling", "needs at least one negative; got ", sampling.count);
  if (sampling.distribution == CandidateSampling::Distribution::popularity) {
    training_counts_ = split.training_counts();
    drawable_items_ = 0;
    std::int64_t sum = 0;
    for (const std::int64_t count : training_counts_) {
      cumulative_.push_back(sum += count);
      drawable_items_ += count > 0;
    }
    check<ValueError>(sum > 0, "candidate sampling", "needs training events to draw by popularity; got none");
  }
}

std::vector<std::int32_t> CandidateSampler::excluded(const Target& target) const {
  std::vector<std::int32_t> items;
  const auto take = [&](std::span<const std::int32_t> part) { items.insert(items.end(), part.begin(), part.end()); };
  switch (sampling_.exclude) {
    case CandidateSampling::Exclude::training:
      take(split_.training(target.user));
      break;
    case CandidateSampling::Exclude::history:
      take(split_.history(target));
      items.push_back(split_.item(target));
      break;
    case CandidateSampling::Exclude::all:
      take(split_.data().sequence(target.user));
      break;
  }
  std::sort(items.begin(), items.end());
  items.erase(std::unique(items.begin(), items.end()), items.end());
  return items;
}

std::int64_t CandidateSampler::weight(std::int32_t item) const {
  return cumulative_.empty() ? 1 : training_counts_[static_cast<std::size_t>(item)];
}

void CandidateSampler::check_enough(const Target& target, std::int64_t drawable) const {
  const std::string_view user = split_.data().users.name(target.user);
  check<ValueError>(drawable > 0, "candidate sampling", "finds no item to draw for user '", user, "' (",
                    recsys::name_of(part_), " part, ", sampling_.description(), ")");
  check<ValueError>(sampling_.replacement || drawable >= sampling_.count, "candidate sampling", "needs ",
                    sampling_.count, " items to draw for every user without replacement (", sampling_.label(),
                    "); got ", drawable, " for user '", user, "' in the ", recsys::name_of(part_), " part");
}

void CandidateSampler::check_target(const Target& target) const {
  std::int64_t drawable = drawable_items_;
  for (const std::int32_t item : excluded(target)) drawable -= weight(item) > 0;
  check_enough(target, drawable);
}

std::vector<std::int32_t> CandidateSampler::draw(const Target& target) const {
  const std::vector<std::int32_t> excluded = this->excluded(target);
  std::int64_t excluded_weight = 0;
  for (const std::int32_t item : excluded) excluded_weight += weight(item);
  const std::int64_t all_weight = cumulative_.empty() ? split_.data().num_items() : cumulative_.back();
  const std::int64_t rest = drawable_items_ - static_cast<std::int64_t>(excluded.size());
  // Drawing again what is excluded or was drawn before is fast while most draws are good ones.
  const bool mostly_good =
      2 * excluded_weight <= all_weight && rest >= 4 * (sampling_.replacement ? 1 : sampling_.count);
  return mostly_good ? draw_by_rejection(excluded, static_cast<std::uint64_t>(target.user))
                     : draw_from_rest(excluded, target);
}

std::vector<std::int32_t> CandidateSampler::draw_by_rejection(std::span<const std::int32_t> excluded,
                                                              std::uint64_t user) const {
  std::vector<std::int32_t> drawn;
  const auto items = static_cast<std::uint64_t>(split_.data().num_items());
  for (std::uint64_t column = 0; static_cast<std::int64_t>(drawn.size()) < sampling_.count; ++column) {
    const auto item = static_cast<std::int32_t>(cumulative_.empty() ? uniform_below(key_, user, column, items)
                                                                    : draw_index(key_, user, column, cumulative_));
    if (contains(excluded, item)) continue;
    if (!sampling_.replacement && std::find(drawn.begin(), drawn.end(), item) != drawn.end()) continue;
    drawn.push_back(item);
  }
  return drawn;
}

std::vector<std::int32_t> CandidateSampler::draw_from_rest(std::span<const std::int32_t> excluded,
                                                           const Target& target) const {
  std::vector<std::int32_t> rest;
  std::vector<std::int64_t> weights;
  for (std::int32_t item = 0; item < split_.data().num_items(); ++item) {
    if (weight(item) == 0 || contains(excluded, item)) continue;
    rest.push_back(item);
    weights.push_back(weight(item));
  }
  check_enough(target, static_cast<std::int64_t>(rest.size()));
  std::vector<std::int64_t> cumulative(rest.size());
  const auto sum_up = [&] {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < rest.size(); ++i) cumulative[i] = sum += weights[i];
  };
  sum_up();
  std::vector<std::int32_t> drawn;
  for (std::uint64_t column = 0; static_cast<std::int64_t>(drawn.size()) < sampling_.count; ++column) {
    const std::size_t i = draw_index(key_, static_cast<std::uint64_t>(target.user), column, cumulative);
    // Without replacement a second draw of an item is drawn again; when little is left, the weights are summed anew.
    if (!sampling_.replacement) {
      if (weights[i] == 0) {
        sum_up();
        continue;
      }
      weights[i] = 0;
    }
    drawn.push_back(rest[i]);
  }
  return drawn;
}

void check_candidates(const Split& split, Part part, std::span<const Target> targets,
                      const CandidateSampling& sampling) {
  const CandidateSampler sampler(split, part, sampling);
  for (const Target& target : targets) sampler.check_target(target);
}

}  // namespace tally::recsys
