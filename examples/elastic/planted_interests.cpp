// Histories that a short window cannot read. Every user has a favourite shop in each of many departments, stays in a
// department for some events and goes on to the next along a ring, to come back a round of some 250 events later. In a
// department that is new in the window, only the round before tells whose items come. Writes `user item time`,
// tab-separated, to standard output.
//   planted_interests [USERS] [EVENTS] [DEPARTMENTS] [SEED]     default 400 1200 64 1; EVENTS is the mean length
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <vector>

#include "tally/core/random.h"

using namespace tally;

namespace {

constexpr std::uint64_t kShops = 8, kItems = 4;  // of a department, of a shop
// Shares of events that go on to the next department, that go to any, and of items that are of the favourite shop.
constexpr double kOn = 0.25, kAway = 0.02, kFavourite = 0.9;

/// Numbers drawn one after the other from a key.
class Draws {
 public:
  explicit Draws(RngKey key) : key_(key) {}
  std::uint64_t below(std::uint64_t bound) { return uniform_below(key_, place_++, 0, bound); }
  double share() { return static_cast<double>(below(1 << 20)) / (1 << 20); }

 private:
  RngKey key_;
  std::uint64_t place_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, std::uint64_t otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  const std::uint64_t users = argument(1, 400), events = argument(2, 1200), departments = argument(3, 64);
  if (users == 0 || events < 8 || departments == 0) {
    std::cerr << "planted_interests: needs at least a user, 8 events and a department\n";
    return 2;
  }
  std::cout << "user\titem\ttime\n";
  for (std::uint64_t user = 0; user < users; ++user) {
    Draws draw(RngKey{argument(4, 1)}.fold_in(user));
    std::vector<std::uint64_t> favourites(departments);
    for (std::uint64_t& shop : favourites) shop = draw.below(kShops);
    const std::uint64_t length = events * 3 / 4 + draw.below(events / 2 + 1);
    std::uint64_t department = draw.below(departments);
    for (std::uint64_t t = 0; t < length; ++t) {
      const double where = draw.share();
      if (where < kOn) {
        department = (department + 1) % departments;
      } else if (where < kOn + kAway) {
        department = draw.below(departments);
      }
      const std::uint64_t shop = draw.share() < kFavourite ? favourites[department] : draw.below(kShops);
      const std::uint64_t item = (department * kShops + shop) * kItems + draw.below(kItems);
      std::cout << 'u' << user << "\ti" << item << '\t' << t << '\n';
    }
  }
  return std::cout.good() ? 0 : 1;
}
