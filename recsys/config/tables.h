#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tally/core/options/option_tables.h"
#include "tally/nn/attention/attention_kinds.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/nn/optim/schedule.h"
#include "tally/recsys/config/protocol.h"
#include "tally/recsys/data/file_forms.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/training/loss.h"

// What a config may name. A program adds rows of its own:
//
//     nn::AttentionKinds attentions = nn::attention_kinds();
//     attentions.add(nn::attention_row<MyAttention>("mine", "what it is", MyAttentionOptions{}));
//     Tables tables = standard(attentions);
//     tables.models.add(model_row<MyModel>("mine", "what it is", MyOptions{}));
//     tables.losses.add(loss_row("mine", "what it is", MyLossOptions{}, my_loss));
//     const RunConfig config = load_config("config.json", overrides, tables);

namespace tally::recsys {

struct ModelRow {
  std::string name, summary;
  AnyOptions options;
  /// The model for so many items, with initial weights drawn from the key.
  std::function<std::unique_ptr<SequenceModel>(const AnyOptions& options, std::int64_t items, RngKey key)> make;
  /// Throws ConfigError for options whose gradient no numeric derivative sees; may be empty.
  std::function<void(const AnyOptions& options)> check_differentiable = {};
};

/// A row for a module with `make(options, key)`, whose options have the member `items` and list their keys. What the
/// model is called in tables is `options.model_name()` where there is one, else the row's name.
template <class Model, class O>
ModelRow model_row(const std::string& name, const std::string& summary, O defaults) {
  return {.name = name,
          .summary = summary,
          .options = std::move(defaults),
          .make = [name](const AnyOptions& options, std::int64_t items, RngKey key) -> std::unique_ptr<SequenceModel> {
            O o = options.as<O>();
            o.items = items;
            std::string called = name;
            if constexpr (requires { o.model_name(); }) called = o.model_name();
            return std::make_unique<SequenceModelOf<Model>>(called, Model::make(o, key));
          }};
}

struct LossRow {
  std::string name, summary;
  AnyOptions options;
  std::function<std::shared_ptr<const Loss>(const AnyOptions& options, const LossData& data)> make;
};

/// A row for a loss over all items that is a function of options and rows: `Var loss(const O&, const LossRows&)`.
template <Listed O, class F>
LossRow loss_row(const std::string& name, const std::string& summary, O defaults, F loss) {
  return {.name = name,
          .summary = summary,
          .options = std::move(defaults),
          .make = [summary, loss](const AnyOptions& options, const LossData&) {
            return loss_function(summary, [loss, o = options.as<O>()](const LossRows& rows) { return loss(o, rows); });
          }};
}

struct LearnerRow {
  std::string name, summary;
  AnyOptions options;
  std::function<std::unique_ptr<optim::Optimizer>(const AnyOptions& options, double learning_rate)> make;
};

struct ScheduleRow {
  std::string name, summary;
  AnyOptions options;
  /// `steps` of the whole run.
  std::function<optim::Schedule(const AnyOptions& options, double learning_rate, std::int64_t warmup,
                                std::int64_t steps)>
      make;
};

struct Tables {
  ChoiceTable<ModelRow> models;
  nn::AttentionKinds attentions;  ///< those that standard() was given: models choose among them
  ChoiceTable<LossRow> losses;
  ChoiceTable<LearnerRow> learners;
  ChoiceTable<ScheduleRow> schedules;
  ChoiceTable<Protocol> protocols;
  ChoiceTable<FileForm> readers;
};

/// What the library brings. Models choose among these attentions: a program hands over a copy of nn::attention_kinds()
/// with rows of its own.
Tables standard(const nn::AttentionKinds& attentions = nn::attention_kinds());

}  // namespace tally::recsys
