#pragma once

#include <string>

#include "tally/recsys/config/tables.h"

namespace tally::recsys {

/// The section `train` of a config.
struct TrainConfig {
  explicit TrainConfig(const Tables& tables)
      : learner(tables.learners, "adam"), decay(tables.schedules, "constant"), loss(tables.losses, "CE") {}

  std::int64_t epochs = 100;
  std::int64_t train_batch_size = 128;
  std::int64_t shard_tokens = 2048;
  Choice<LearnerRow> learner;
  double learning_rate = 1e-3;
  double clip_grad_norm = 0;
  std::int64_t accumulate_batches = 1;
  std::vector<optim::ParameterGroup> parameter_groups = {};
  std::int64_t warmup_steps = 0;
  Choice<ScheduleRow> decay;
  TrainingSamples train_samples = TrainingSamples::shifted;
  std::int64_t prefixes_per_user = 0;
  std::int64_t window_stride = 0;
  Choice<LossRow> loss;
  std::int64_t eval_step = 1;
  std::int64_t stopping_step = 10;
  std::string valid_metric = "NDCG@10";
  std::int64_t checkpoint_steps = 0;
  std::int64_t seed = 42;
  std::string start_from = {};
  bool flush_denormals = true;
  bool detect_anomaly = false;

  static void keys(auto& o, auto&& key) {
    using Samples = TrainingSamples;
    const auto with = [&](std::initializer_list<Samples> samples) {
      return only_with("train_samples", o.train_samples, samples);
    };
    key("epochs", o.epochs, at_least(1), "passes over all training samples");
    key("train_batch_size", o.train_batch_size, at_least(1), "samples of a step");
    key("shard_tokens", o.shard_tokens, at_least(1), "rows that one core works on at a time");
    key("learner", o.learner, "what changes the weights: `tally learners`");
    key("learning_rate", o.learning_rate, above(0), "of the learner, at its peak");
    key("clip_grad_norm", o.clip_grad_norm, at_least(0), "most that the gradients' joint norm may be; 0: any");
    key("accumulate_batches", o.accumulate_batches, at_least(1),
        "batches whose gradients make one step of the learner, as one batch of all their samples does");
    key("parameter_groups", o.parameter_groups,
        "parameters with rates of their own; the first group whose paths match holds; `tally gradcheck --model` prints "
        "all paths");
    key("warmup_steps", o.warmup_steps, at_least(0), "steps from 0 to the learning rate");
    key("decay", o.decay, "of the learning rate");
    key("train_samples", o.train_samples,
        "what a sample is: a whole history, a prefix, a window, or one of LISA's pieces");
    key("prefixes_per_user", o.prefixes_per_user, at_least(0), with({Samples::prefix}),
        "prefixes drawn each epoch; 0: all");
    key("window_stride", o.window_stride, at_least(0), with({Samples::window, Samples::pieces}),
        "inputs between two windows, or items of a piece; 0: the most there can be");
    key("loss_type", o.loss, "what is minimised: `tally losses`");
    key("eval_step", o.eval_step, at_least(1), "epochs between validations");
    key("stopping_step", o.stopping_step, at_least(0), "validations without improvement before stopping; 0: never");
    key("valid_metric", o.valid_metric, "metric that the best epoch is chosen by");
    key("checkpoint_steps", o.checkpoint_steps, at_least(0), "steps between checkpoints, beside one after each epoch");
    key("seed", o.seed, at_least(0), "of all random draws of a run");
    key("start_from", o.start_from,
        "directory of a run whose weights are begun with, items matched by id; empty: none");
    key("flush_denormals", o.flush_denormals, "treat the smallest numbers as 0, which is faster");
    key("detect_anomaly", o.detect_anomaly, "search every op's values for NaN and infinity");
  }
};

}  // namespace tally::recsys
