#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tally/recsys/models/layered_recurrence.h"
#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/models/weights_fingerprint.h"
#include "tally/recsys/models/window_recurrence.h"

namespace tally::recsys {

/// The SequenceModel of a module with `window` and
///
///     Var encode(const Sequences&, const nn::Context&) const;
///     Var item_table() const;
///
/// or, where it computes something once for a step, with a struct of that (models/prepared.h) and
///
///     Values prepare(const BatchItems&) const;
///     Var encode(const Sequences&, const Values&, const nn::Context&) const;
///     Var candidate_table(const Values&) const;                 // and num_items(), width()
///
/// and, if it likes, `looks_ahead` (false where it is missing), `reads_times` (whether a layer does), `events_before`
/// (0), `prepares_candidates` (true), `auxiliary_loss` (with the struct too), `initialize_from_weights`,
/// `epoch_begins`, `item_tensors` (items.table and output, where the module has them) and `measures` as above, and
///
///     std::shared_ptr<const RecurrentModel> recurrent(const std::string& name, std::uint64_t weights) const;
///
/// which makes a RecurrentModelOf something of the module's own, given a hash of all weights.
template <class M>
class SequenceModelOf final : public SequenceModel {
 public:
  SequenceModelOf(std::string name, M module) : name_(std::move(name)), module_(std::move(module)) {}

  const M& module() const { return module_; }

  std::string name() const override { return name_; }
  std::int64_t num_items() const override {
    if constexpr (requires { module_.num_items(); }) {
      return module_.num_items();
    } else {
      return module_.item_table().dim(0);
    }
  }
  std::int64_t width() const override {
    if constexpr (requires { module_.width(); }) {
      return module_.width();
    } else {
      return module_.item_table().dim(1);
    }
  }
  std::int64_t window() const override { return module_.window; }
  std::int64_t events_before() const override {
    if constexpr (requires { module_.events_before(); }) {
      return module_.events_before();
    } else {
      return 0;
    }
  }

  bool reads_times() const override {
    if constexpr (requires { module_.reads_times(); }) {
      return module_.reads_times();
    } else if constexpr (LayeredModel<M>) {
      return layers_read_times(module_);
    } else {
      return false;
    }
  }

  bool looks_ahead() const override {
    if constexpr (requires { module_.looks_ahead(); }) {
      return module_.looks_ahead();
    } else {
      return false;
    }
  }
  bool prepares() const override {
    return requires(const M& module, const BatchItems& items) { module.prepare(items); };
  }
  Prepared prepare(const BatchItems& items) const override {
    if constexpr (requires { module_.prepare(items); }) {
      return Prepared(module_.prepare(items));
    } else {
      return {};
    }
  }
  bool prepares_candidates() const override {
    if constexpr (requires { module_.prepares_candidates(); }) {
      return module_.prepares_candidates();
    } else {
      return prepares();
    }
  }
  Var encode(const Sequences& batch, const Prepared& prepared, const nn::Context& context) const override {
    if constexpr (requires { module_.prepare(BatchItems()); }) {
      return module_.encode(batch, values_of(prepared), context);
    } else {
      return module_.encode(batch, context);
    }
  }
  Var candidate_table(const Prepared& prepared) const override {
    if constexpr (requires { module_.prepare(BatchItems()); }) {
      return module_.candidate_table(values_of(prepared));
    } else {
      return module_.item_table();
    }
  }
  Var auxiliary_loss(const Sequences& batch, const Tensor& targets, const Prepared& prepared,
                     const nn::Context& context) const override {
    if constexpr (requires { module_.auxiliary_loss(batch, targets, values_of(prepared), context); }) {
      return module_.auxiliary_loss(batch, targets, values_of(prepared), context);
    } else {
      return {};
    }
  }

  void initialize_from_weights(RngKey key) override {
    if constexpr (requires { module_.initialize_from_weights(key); }) module_.initialize_from_weights(key);
  }

  void epoch_begins(std::int64_t epoch, RngKey key) override {
    if constexpr (requires { module_.epoch_begins(epoch, key); }) module_.epoch_begins(epoch, key);
  }

  std::vector<std::string> item_tensors() const override {
    if constexpr (requires { module_.item_tensors(); }) {
      return module_.item_tensors();
    } else {
      return {"items.table", "output"};
    }
  }

  std::vector<Measure> measures() const override {
    if constexpr (requires { module_.measures(); }) {
      return module_.measures();
    } else {
      return {};
    }
  }

  std::shared_ptr<const RecurrentModel> recurrent() const override {
    const std::uint64_t weights = weights_fingerprint(module_);
    std::string settings;
    if constexpr (requires { module_.recurrent(name_, weights); }) {
      return module_.recurrent(name_, weights);
    } else if constexpr (LayeredModel<M>) {
      using Layered = LayeredRecurrence<M>;
      if (streams_by_layers(module_)) {
        return std::make_shared<RecurrentModelOf<Layered>>(name_, weights, Layered(module_));
      }
      settings = layout_of_layers(module_);
    }
    return recurrent_by_window(std::make_shared<const SequenceModelOf>(*this), weights, settings);
  }

  nn::ParameterList parameters() override { return nn::parameters(module_); }
  nn::TensorList state() override { return nn::state(module_); }
  std::vector<Tensor> weights() const override {
    std::vector<Tensor> tensors;
    nn::walk("", module_, [&](const std::string&, const auto& field) { tensors.push_back(field.value()); });
    return tensors;
  }

 private:
  /// The module's own struct.
  static decltype(auto) values_of(const Prepared& prepared) requires requires(const M& module) {
    module.prepare(BatchItems());
  }
  { return prepared.as<decltype(std::declval<const M&>().prepare(BatchItems()))>(); }

  std::string name_;
  M module_;
};

}  // namespace tally::recsys
