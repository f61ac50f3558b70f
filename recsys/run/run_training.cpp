#include "tally/recsys/run/run_training.h"

#include "tally/recsys/config_words.h"

namespace tally::recsys {

LossOptions loss_options(const TrainConfig& config) {
  using Kind = LossOptions::Kind;
  using Average = LossOptions::Average;
  using Scope = NegativeSampling::Scope;
  using Exclude = NegativeSampling::Exclude;
  using Distribution = NegativeSampling::Distribution;
  return {
      .kind = look_up<Kind>("train",
                            {{"CE", Kind::cross_entropy},
                             {"BCE", Kind::binary_cross_entropy},
                             {"gBCE", Kind::binary_cross_entropy},
                             {"SSM", Kind::sampled_softmax}},
                            config.loss_type),
      .stage = LossStage::automatic,
      .negatives = {.count = config.negatives,
                    .distribution = look_up<Distribution>(
                        "train", {{"uniform", Distribution::uniform}, {"popularity", Distribution::popularity}},
                        config.negative_distribution),
                    .alpha = config.negative_alpha,
                    .scope = look_up<Scope>(
                        "train",
                        {{"position", Scope::position}, {"sequence", Scope::sequence}, {"batch", Scope::batch}},
                        config.negative_scope),
                    .exclude = look_up<Exclude>(
                        "train", {{"none", Exclude::none}, {"target", Exclude::target}, {"history", Exclude::history}},
                        config.negative_exclude),
                    .replacement = config.negative_replacement},
      .average = look_up<Average>(
          "train", {{"none", Average::none}, {"samples", Average::samples}, {"negatives", Average::negatives}},
          config.bce_average),
      .gbce_calibration = config.loss_type == "gBCE" ? config.gbce_t : 0,
      .log_q = config.logq};
}

TrainingBatches::Options batch_options(const TrainConfig& config, std::int64_t window) {
  return {.batch_size = config.train_batch_size,
          .window = window,
          .shard_tokens = config.shard_tokens,
          .samples = look_up<TrainingSamples>("train",
                                              {{"shifted", TrainingSamples::shifted},
                                               {"prefix", TrainingSamples::prefix},
                                               {"window", TrainingSamples::window},
                                               {"pieces", TrainingSamples::pieces}},
                                              config.train_samples),
          .prefixes_per_user = config.prefixes_per_user,
          .stride = config.window_stride};
}

}  // namespace tally::recsys
