// Modules whose list of members must not compile, one for each CASE. compile.sh reads these lines.
// case 0 compiles
// case 1 refused: fields() must visit every member
// case 2 refused: fields() must visit every member
// case 3 refused: visits a member twice
// case 4 refused: visits a member twice, or gives two the same name
// case 5 refused: fields() must be 'static constexpr void', and must visit without looking at a member's value
// case 6 refused: fields() must be 'static constexpr void', and must visit without looking at a member's value
// case 7 refused: must be a plain one
// case 8 refused: fields() must visit every member
#include <array>
#include <optional>
#include <string>

#include "tally/nn/attention/attention.h"
#include "tally/nn/layers.h"

using namespace tally;

namespace {

struct Part {
  nn::Parameter weight;
  static constexpr void fields(auto& self, auto&& visit) { visit("weight", self.weight); }
};

#if CASE == 0  // a member of every type that modules have
struct Layer {
  nn::Parameter weight;
  nn::Buffer usage;
  nn::Linear linear;
  std::optional<Part> maybe;
  std::vector<Part> parts;
  nn::Attention attention;
  std::string name;
  std::array<double, 3> factors{};
  double rate = 0.5;
  bool flag = false;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("usage", self.usage);
    visit("linear", self.linear);
    visit("maybe", self.maybe);
    visit("parts", self.parts);
    visit("attention", self.attention);
    visit("name", self.name);
    visit("factors", self.factors);
    visit("rate", self.rate);
    visit("flag", self.flag);
  }
};
#elif CASE == 1
struct Layer {
  nn::Parameter weight, bias;
  static constexpr void fields(auto& self, auto&& visit) { visit("weight", self.weight); }
};
#elif CASE == 2  // a plain value, and inside a vector
struct Inside {
  Part part;
  double rate = 0.5;
  static constexpr void fields(auto& self, auto&& visit) { visit("part", self.part); }
};
struct Layer {
  std::vector<Inside> parts;
  static constexpr void fields(auto& self, auto&& visit) { visit("parts", self.parts); }
};
#elif CASE == 3
struct Layer {
  nn::Parameter weight, bias;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("bias", self.weight);
  }
};
#elif CASE == 4
struct Layer {
  nn::Parameter weight, bias;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("weight", self.bias);
  }
};
#elif CASE == 5
struct Layer {
  nn::Parameter weight;
  static void fields(auto& self, auto&& visit) { visit("weight", self.weight); }
};
#elif CASE == 6
struct Layer {
  nn::Parameter weight;
  bool frozen = false;
  static constexpr void fields(auto& self, auto&& visit) {
    if (!self.frozen) visit("weight", self.weight);
    visit("frozen", self.frozen);
  }
};
#elif CASE == 7
class Layer {
 public:
  Layer() = default;
  static constexpr void fields(auto& self, auto&& visit) { visit("weight", self.weight_); }

 private:
  nn::Parameter weight_;
};
#elif CASE == 8  // a base class, of which the list inherited has nothing to say
struct Layer : Part {
  nn::Parameter bias, scale;
};
#endif

}  // namespace

std::size_t count() {
  Layer layer;
  return nn::parameters(layer).size();
}
