// Histories that a short window cannot read. Every user has a favourite item in each of many departments, and walks
// from department to department along a ring. The next item is the next department's favourite, which was last chosen a
// round ago. Writes `user item time`, tab-separated, to standard output.
//   planted_interests [USERS] [EVENTS] [DEPARTMENTS] [SEED]     default 400 1200 256 1; EVENTS is the mean length
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <vector>

#include "tally/core/random.h"

using namespace tally;

namespace {

constexpr std::uint64_t kItems = 8;              // of a department
constexpr double kStep = 0.9, kFavourite = 0.9;  // shares of steps to the next department, of favourites

/// Numbers drawn one after the other from a key.
class Draws {
 public:
  explicit Draws(RngKey key) : key_(key) {}
  std::uint64_t below(std::uint64_t bound) { return uniform_below(key_, place_++, 0, bound); }
  bool chance(double share) { return static_cast<double>(below(1 << 20)) < share * (1 << 20); }

 private:
  RngKey key_;
  std::uint64_t place_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, std::uint64_t otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  const std::uint64_t users = argument(1, 400), events = argument(2, 1200), departments = argument(3, 256);
  if (users == 0 || events < 8 || departments == 0) {
    std::cerr << "planted_interests: needs at least a user, 8 events and a department\n";
    return 2;
  }
  std::cout << "user\titem\ttime\n";
  for (std::uint64_t user = 0; user < users; ++user) {
    Draws draw(RngKey{argument(4, 1)}.fold_in(user));
    std::vector<std::uint64_t> favourites(departments);
    for (std::uint64_t& item : favourites) item = draw.below(kItems);
    const std::uint64_t length = events * 3 / 4 + draw.below(events / 2 + 1);
    std::uint64_t department = draw.below(departments);
    for (std::uint64_t t = 0; t < length; ++t) {
      department = draw.chance(kStep) ? (department + 1) % departments : draw.below(departments);
      const std::uint64_t item = draw.chance(kFavourite) ? favourites[department] : draw.below(kItems);
      std::cout << 'u' << user << "\ti" << department * kItems + item << '\t' << t << '\n';
    }
  }
  return std::cout.good() ? 0 : 1;
}
