#pragma once

#include <memory>
#include <string>

#include "tally/nn/module.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

/// A model that reads item sequences, as the trainer and the evaluation see it. Models themselves are plain modules;
/// this type-erased face is made once, where a config names one (models/registry.h).
class SequenceModel {
 public:
  virtual ~SequenceModel() = default;

  virtual std::string name() const = 0;
  /// Hidden state after each item, [T, D].
  virtual Var encode(const Sequences& batch, const nn::Context& context) const = 0;
  /// Output embeddings of all items, [items, D]: an item's score is their inner product with the hidden state.
  virtual Var item_table() const = 0;
  /// Longest history it reads; longer ones are cut to their last items.
  virtual std::int64_t window() const = 0;

  virtual nn::ParameterList parameters() = 0;
  /// Parameters and buffers, for saving.
  virtual nn::TensorList state() = 0;
};

/// The face of a module with `encode`, `item_table` and `window`.
template <class M>
class SequenceModelOf final : public SequenceModel {
 public:
  SequenceModelOf(std::string name, M module) : name_(std::move(name)), module_(std::move(module)) {}

  std::string name() const override { return name_; }
  Var encode(const Sequences& batch, const nn::Context& context) const override {
    return module_.encode(batch, context);
  }
  Var item_table() const override { return module_.item_table(); }
  std::int64_t window() const override { return module_.window; }
  nn::ParameterList parameters() override { return nn::parameters(module_); }
  nn::TensorList state() override { return nn::state(module_); }

 private:
  std::string name_;
  M module_;
};

}  // namespace tally::recsys
