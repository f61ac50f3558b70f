#include "tally/recsys/sessions/sessions.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "tally/core/parallel.h"

namespace tally::recsys {
namespace {

constexpr std::string_view kName = "Sessions";

/// Users that are scored together: they share what the scorer finds in cache.
constexpr std::int64_t kGroup = 16;

/// Memory of an entry of an unordered_map beside its value, and of one of its buckets, in libstdc++ and libc++.
constexpr std::size_t kNodeBytes = sizeof(void*) + sizeof(std::size_t);
constexpr std::size_t kBucketBytes = sizeof(void*);

}  // namespace

Sessions::Sessions(std::shared_ptr<const RecurrentModel> model, IdMap items, SessionsOptions options)
    : Sessions(std::move(model), std::make_shared<const IdMap>(std::move(items)), options) {}

Sessions::Sessions(std::shared_ptr<const RecurrentModel> model, std::shared_ptr<const IdMap> items,
                   SessionsOptions options)
    : model_(std::move(model)),
      items_(std::move(items)),
      options_(std::move(options)),
      stripes_(std::make_unique<Stripe[]>(kStripes)) {
  check<ShapeError>(items_->size() == model_->num_items(), kName, "needs a name for each of the model's ",
                    model_->num_items(), " items; got ", items_->size());
  check<ShapeError>(
      options_.candidates.empty() || static_cast<std::int64_t>(options_.candidates.size()) == items_->size(), kName,
      "needs a candidate byte for each of ", items_->size(), " items; got ", options_.candidates.size());
}

void Sessions::take(Users& users, const UserEvent& event, std::int32_t item, std::uint64_t now) const {
  const auto found = users.find(event.user);
  if (found == users.end()) {
    Session begun{model_->initial_state(), {}, now};
    model_->append(begun.state, item, event.time);
    if (options_.keep_seen) begun.seen.insert(item, items_->size());
    users.try_emplace(std::string(event.user), std::move(begun));
    return;
  }
  Session& session = found->second;
  model_->append(session.state, item, event.time);
  if (options_.keep_seen) session.seen.insert(item, items_->size());
  session.used = std::max(session.used, now);
}

void Sessions::check_event(const UserEvent& event) const {
  check<ValueError>(!event.user.empty(), kName, "needs the name of a user; got an empty one, with item '", event.item,
                    "'");
  check<ValueError>(items_->find(event.item).has_value(), kName, "knows no item '", event.item, "'");
  check<ValueError>(!model_->reads_times() || std::isfinite(event.time), kName, "needs the time of each event, which ",
                    model_->name(), " reads; got none for item '", event.item, "' of user '", event.user, "'");
}

void Sessions::append(std::span<const UserEvent> events) {
  std::vector<std::int32_t> items;
  items.reserve(events.size());
  for (const UserEvent& event : events) {
    check_event(event);
    items.push_back(*items_->find(event.item));
  }
  const std::uint64_t begin = clock_.fetch_add(events.size()) + 1;
  if (events.size() == 1) {
    Stripe& stripe = stripes_[stripe_of(events[0].user)];
    const std::lock_guard lock(stripe.mutex);
    take(stripe.users, events[0], items[0], begin);
    return;
  }
  std::array<std::vector<std::size_t>, kStripes> of_stripe;
  for (std::size_t i = 0; i < events.size(); ++i) of_stripe[stripe_of(events[i].user)].push_back(i);
  std::vector<std::size_t> busy;
  for (std::size_t s = 0; s < kStripes; ++s) {
    if (!of_stripe[s].empty()) busy.push_back(s);
  }
  parallel_for(static_cast<std::int64_t>(busy.size()), 1, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t b = from; b < to; ++b) {
      const std::size_t s = busy[static_cast<std::size_t>(b)];
      const std::lock_guard lock(stripes_[s].mutex);
      for (const std::size_t i : of_stripe[s]) take(stripes_[s].users, events[i], items[i], begin + i);
    }
  });
}

ItemSet Sessions::read(std::string_view user, std::uint64_t now, std::span<float> row) {
  Stripe& stripe = stripes_[stripe_of(user)];
  const std::lock_guard lock(stripe.mutex);
  const auto found = stripe.users.find(user);
  check<ValueError>(found != stripe.users.end(), kName, "has no events of user '", user, "'");
  Session& session = found->second;
  model_->hidden(session.state, row);
  session.used = std::max(session.used, now);
  return session.seen;
}

std::vector<ScoredItem> Sessions::recommend(std::string_view user, std::int64_t k) {
  return recommend(std::span(&user, 1), k).front();
}

std::vector<std::vector<ScoredItem>> Sessions::recommend(std::span<const std::string_view> users, std::int64_t k) {
  check<ValueError>(k >= 1, kName, "needs k of at least 1; got ", k);
  const std::int64_t count = model_->num_items(), width = model_->width();
  const std::uint64_t begin = clock_.fetch_add(users.size()) + 1;
  std::vector<std::vector<ScoredItem>> lists(users.size());
  parallel_for(static_cast<std::int64_t>(users.size()), kGroup, [&](std::int64_t from, std::int64_t to) {
    std::vector<float> rows(static_cast<std::size_t>((to - from) * width));
    std::vector<ItemSet> seen;
    for (std::int64_t u = from; u < to; ++u) {
      const auto i = static_cast<std::size_t>(u);
      const std::span row = std::span(rows).subspan(static_cast<std::size_t>((u - from) * width));
      seen.push_back(read(users[i], begin + i, row.first(static_cast<std::size_t>(width))));
    }
    std::vector<float> scores(static_cast<std::size_t>((to - from) * count));
    model_->scorer().score(rows, scores);
    std::vector<std::uint8_t> candidates;
    for (std::int64_t u = from; u < to; ++u) {
      const std::span<const float> row(scores.data() + (u - from) * count, static_cast<std::size_t>(count));
      candidates = options_.candidates;
      candidates.resize(static_cast<std::size_t>(count), 1);
      seen[static_cast<std::size_t>(u - from)].clear_bytes(candidates);
      lists[static_cast<std::size_t>(u)] = top_k(row, k, {}, candidates);
    }
  });
  return lists;
}

bool Sessions::use(std::string_view user) {
  const std::uint64_t now = clock_.fetch_add(1) + 1;
  Stripe& stripe = stripes_[stripe_of(user)];
  const std::lock_guard lock(stripe.mutex);
  const auto found = stripe.users.find(user);
  if (found == stripe.users.end()) return false;
  found->second.used = std::max(found->second.used, now);
  return true;
}

bool Sessions::contains(std::string_view user) const {
  const Stripe& stripe = stripes_[stripe_of(user)];
  const std::lock_guard lock(stripe.mutex);
  return stripe.users.contains(user);
}

std::optional<ModelState> Sessions::state(std::string_view user) const {
  const Stripe& stripe = stripes_[stripe_of(user)];
  const std::lock_guard lock(stripe.mutex);
  const auto found = stripe.users.find(user);
  return found == stripe.users.end() ? std::nullopt : std::optional(found->second.state);
}

std::int64_t Sessions::size() const {
  const std::shared_lock whole(whole_);
  std::int64_t total = 0;
  for (std::size_t s = 0; s < kStripes; ++s) {
    const std::lock_guard lock(stripes_[s].mutex);
    total += static_cast<std::int64_t>(stripes_[s].users.size());
  }
  return total;
}

std::size_t Sessions::bytes() const {
  const std::shared_lock whole(whole_);
  const std::size_t inline_name = std::string().capacity();
  std::size_t total = sizeof(*this) + kStripes * sizeof(Stripe);
  for (std::size_t s = 0; s < kStripes; ++s) {
    const std::lock_guard lock(stripes_[s].mutex);
    total += stripes_[s].users.bucket_count() * kBucketBytes;
    for (const auto& [name, session] : stripes_[s].users) {
      total += kNodeBytes + sizeof(Users::value_type) + (name.capacity() > inline_name ? name.capacity() + 1 : 0);
      total += session.state.bytes() - sizeof(ModelState) + session.seen.heap_bytes();
    }
  }
  return total;
}

bool Sessions::evict(std::string_view user) {
  Stripe& stripe = stripes_[stripe_of(user)];
  const std::lock_guard lock(stripe.mutex);
  const auto found = stripe.users.find(user);
  if (found == stripe.users.end()) return false;
  stripe.users.erase(found);
  return true;
}

std::int64_t Sessions::evict_least_recent(std::int64_t keep) {
  check<ValueError>(keep >= 0, kName, "keeps at least 0 users; got ", keep);
  const std::shared_lock whole(whole_);
  std::vector<std::uint64_t> used;
  for (std::size_t s = 0; s < kStripes; ++s) {
    const std::lock_guard lock(stripes_[s].mutex);
    for (const auto& [name, session] : stripes_[s].users) used.push_back(session.used);
  }
  const std::int64_t leaving = static_cast<std::int64_t>(used.size()) - keep;
  if (leaving <= 0) return 0;
  // Moments differ between users, so exactly `leaving` are not after this one.
  const auto last = used.begin() + (leaving - 1);
  std::nth_element(used.begin(), last, used.end());
  std::int64_t evicted = 0;
  for (std::size_t s = 0; s < kStripes; ++s) {
    const std::lock_guard lock(stripes_[s].mutex);
    evicted += static_cast<std::int64_t>(
        std::erase_if(stripes_[s].users, [&](const auto& entry) { return entry.second.used <= *last; }));
  }
  return evicted;
}

}  // namespace tally::recsys
