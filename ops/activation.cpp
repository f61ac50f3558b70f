#include "tally/ops/activation.h"

#include <array>
#include <utility>

#include "tally/core/error.h"

namespace tally::ops {
namespace {

constexpr std::array<std::pair<Activation, std::string_view>, 6> kNames = {{{Activation::none, "none"},
                                                                            {Activation::relu, "relu"},
                                                                            {Activation::gelu, "gelu"},
                                                                            {Activation::silu, "silu"},
                                                                            {Activation::tanh, "tanh"},
                                                                            {Activation::sigmoid, "sigmoid"}}};

}  // namespace

std::string_view name_of(Activation activation) {
  for (const auto& [value, name] : kNames) {
    if (value == activation) return name;
  }
  return "?";
}

Activation activation_named(std::string_view name) {
  for (const auto& [value, known] : kNames) {
    if (known == name) return value;
  }
  fail<ConfigError>("activation", "needs none, relu, gelu, silu, tanh or sigmoid; got '", name, "'");
}

}  // namespace tally::ops
