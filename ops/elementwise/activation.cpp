#include "tally/ops/elementwise/activation.h"

#include "tally/core/error.h"

namespace tally::ops {

std::string_view name_of(Activation activation) { return word_of(activation); }

Activation activation_named(std::string_view name) {
  for (const Word<Activation>& each : words(Activation{})) {
    if (each.word == name) return each.value;
  }
  fail<ConfigError>("activation", "needs none, relu, gelu, silu, tanh or sigmoid; got '", name, "'");
}

}  // namespace tally::ops
