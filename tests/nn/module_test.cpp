#include "tally/nn/module.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

#include "tally/nn/initializers.h"
#include "tally/nn/serialize.h"

namespace module_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

struct Leaf {
  nn::Parameter weight;
  nn::Buffer usage;
  double rate = 0.5;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("usage", self.usage);
    visit("rate", self.rate);
  }
};

struct Tree {
  std::vector<Leaf> blocks;
  std::optional<Leaf> head;
  nn::Parameter absent;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("blocks", self.blocks);
    visit("head", self.head);
    visit("absent", self.absent);
  }
};

Leaf leaf(double value) { return {nn::Parameter(Tensor::full({2, 2}, value)), nn::Buffer(Tensor::zeros({3})), 0.1}; }
Tree tree() { return {{leaf(1), leaf(2)}, leaf(3), {}}; }

std::filesystem::path temporary(const std::string& name) { return std::filesystem::temp_directory_path() / name; }

}  // namespace

TEST_CASE("a parameter does not share what somebody else holds", "[module]") {
  Tensor mine = Tensor::full({2, 2}, 1);
  nn::Parameter copied(mine), viewed(mine.slice(0, 0, 1));
  nn::Buffer buffer(mine);
  mine.fill(7);
  CHECK(copied.value().to_doubles() == std::vector<double>(4, 1));
  CHECK(viewed.value().to_doubles() == std::vector<double>(2, 1));
  CHECK(buffer.value().to_doubles() == std::vector<double>(4, 1));
  copied.mutable_value().fill(5);
  CHECK(mine.to_doubles() == std::vector<double>(4, 7));
  // A table that is moved in may be too large for a copy.
  const float* const place = mine.data<float>();
  const nn::Parameter moved(std::move(mine));
  CHECK(moved.value().data<float>() == place);
  CHECK_FALSE(nn::Parameter(Tensor()).defined());
  // What an optimizer writes has no gaps.
  Tensor turned = Tensor::from({1, 2, 3, 4, 5, 6}, {2, 3}).transpose(0, 1), repeated = Tensor::full({1}, 2).expand({3});
  nn::Parameter whole(std::move(turned)), filled(std::move(repeated));
  CHECK(whole.value().to_doubles() == std::vector<double>{1, 4, 2, 5, 3, 6});
  CHECK_NOTHROW(whole.mutable_value().fill(0));
  CHECK_NOTHROW(filled.mutable_value().fill(0));
}

TEST_CASE("parameters and state have paths", "[module]") {
  Tree t = tree();
  std::vector<std::string> paths;
  for (const auto& [path, parameter] : nn::parameters(t)) paths.push_back(path);
  CHECK(paths == std::vector<std::string>{"blocks.0.weight", "blocks.1.weight", "head.weight"});
  CHECK(nn::state(t).size() == 6);
  CHECK(nn::count_parameters(t) == 12);
}

TEST_CASE("copies have identities of their own, moves keep them", "[module]") {
  Tree t = tree();
  const LeafId id = t.blocks[0].weight.id();
  Tree copy = t;
  CHECK(copy.blocks[0].weight.id() != id);
  copy.blocks[0].weight.mutable_value().fill(9);
  CHECK(t.blocks[0].weight.value().to_doubles()[0] == 1);
  const Tree moved = std::move(t);
  CHECK(moved.blocks[0].weight.id() == id);
}

TEST_CASE("freezing by pattern makes constants", "[module]") {
  Tree t = tree();
  CHECK(nn::freeze(t, "blocks.*") == 2);
  CHECK_FALSE(t.blocks[1].weight.var().tracked());
  CHECK(t.head->weight.var().tracked());
  CHECK(nn::freeze(t, "*.weight", false) == 3);
  CHECK(nn::freeze(t, "nothing") == 0);
  CHECK(nn::matches("a*b*c", "aXXbYYc"));
  CHECK_FALSE(nn::matches("a*b", "acbd"));
}

TEST_CASE("conversion to f64", "[module]") {
  Tree t = tree();
  nn::convert(t, DType::f64);
  CHECK(t.head->weight.value().dtype() == DType::f64);
  CHECK(t.head->usage.value().dtype() == DType::f64);
}

TEST_CASE("a module is saved by path and read back", "[module]") {
  const auto path = temporary("tally_module_test.safetensors");
  Tree t = tree();
  nn::save(path, t);
  Tree other = tree();
  other.blocks[1].weight.mutable_value().fill(7);
  nn::load(path, other);
  CHECK(identical(other.blocks[1].weight.value(), t.blocks[1].weight.value()));

  Leaf stranger{nn::Parameter(Tensor::zeros({2, 2})), {}, 0};
  CHECK_THROWS_WITH(nn::load(path, stranger), Contains("missing: weight") && Contains("left over: blocks.0.usage"));
  Tree wide = tree();
  wide.head->weight = nn::Parameter(Tensor::zeros({2, 3}));
  CHECK_THROWS_WITH(nn::load(path, wide), Contains("head.weight (needs f32[2, 3], got f32[2, 2])"));
  CHECK(wide.blocks[0].weight.value().to_doubles()[0] == 1);
  std::filesystem::remove(path);
}

TEST_CASE("initial values have their distributions and depend on the key only", "[module]") {
  const auto deviation = [](const Tensor& t) {
    double square = 0;
    for (const float x : t.span<float>()) square += double{x} * x;
    return std::sqrt(square / static_cast<double>(t.numel()));
  };
  CHECK(deviation(nn::normal({300, 300}, 0.02, RngKey{1})) == Approx(0.02).epsilon(0.02));
  const Tensor truncated = nn::truncated_normal({300, 300}, 0.02, RngKey{1});
  CHECK(deviation(truncated) == Approx(0.02 * 0.8796).epsilon(0.02));
  for (const float x : truncated.span<float>()) REQUIRE(std::abs(x) <= 0.04f);
  CHECK(deviation(nn::xavier_uniform({100, 200}, RngKey{1})) == Approx(std::sqrt(2.0 / 300)).epsilon(0.02));
  CHECK(deviation(nn::he_normal({200, 100}, RngKey{1})) == Approx(std::sqrt(0.02)).epsilon(0.02));
  CHECK(identical(nn::normal({5}, 1, RngKey{1, 2}), nn::normal({5}, 1, RngKey{1, 2})));
}

}  // namespace module_test
