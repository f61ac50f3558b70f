#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "tally/core/tensor.h"
#include "tally/recsys/data/sequences.h"

namespace tally::recsys {

/// Anything that scores items for histories: popularity, Markov, a trained model. A value; copies share the model.
///
/// A type with these const members is a ranker, nothing else is needed:
///
///     std::string name() const;
///     std::int64_t num_items() const;
///     Tensor score(const Sequences& histories) const;   // f32 [histories.count(), num_items()], higher is better
///
/// Histories may be empty. Scores decide the order of items only; they must be finite and must not depend on what else
/// is in the block. Blocks come one after the other, so that a ranker may use all threads for one.
class Ranker {
 public:
  template <class Model>
  requires(!std::is_same_v<Model, Ranker>) Ranker(Model model)  // NOLINT: conversion is the point
      : Ranker(std::make_shared<const Model>(std::move(model))) {}

  template <class Model>
  explicit Ranker(std::shared_ptr<const Model> model)
      : name_(model->name()),
        num_items_(model->num_items()),
        score_([model](const Sequences& histories) { return model->score(histories); }) {}

  /// A ranker from a function, for a model that lives elsewhere (one that is still in training, say).
  static Ranker from_function(std::string name, std::int64_t num_items, std::function<Tensor(const Sequences&)> score) {
    return Ranker(Function{std::move(name), num_items, std::move(score)});
  }

  const std::string& name() const { return name_; }
  std::int64_t num_items() const { return num_items_; }
  /// Throws what the model throws, and ShapeError or DTypeError when it returns something else than f32 [N, num_items].
  Tensor score(const Sequences& histories) const;

 private:
  struct Function {
    std::string label;
    std::int64_t items;
    std::function<Tensor(const Sequences&)> function;
    const std::string& name() const { return label; }
    std::int64_t num_items() const { return items; }
    Tensor score(const Sequences& histories) const { return function(histories); }
  };

  std::string name_;
  std::int64_t num_items_;
  std::function<Tensor(const Sequences&)> score_;
};

}  // namespace tally::recsys
