#include "tally/nn/training/progress.h"

namespace tally::nn {

Json TrainerProgress::to_json() const {
  return Json::object({{"epoch", epoch},
                       {"batch", batch},
                       {"step", step},
                       {"epoch_loss", epoch_loss},
                       {"epoch_targets", epoch_targets},
                       {"best_score", best_score ? Json(*best_score) : Json()},
                       {"best_epoch", best_epoch},
                       {"validations_since_best", validations_since_best},
                       {"validation_due", validation_due},
                       {"finished", finished}});
}

TrainerProgress TrainerProgress::from_json(const Json& json) {
  TrainerProgress progress;
  progress.epoch = json.at("epoch").as_integer();
  progress.batch = json.at("batch").as_integer();
  progress.step = json.at("step").as_integer();
  progress.epoch_loss = json.at("epoch_loss").as_double();
  progress.epoch_targets = json.at("epoch_targets").as_integer();
  progress.best_epoch = json.at("best_epoch").as_integer();
  // There is no best score without a best epoch, whatever an earlier build put in its place.
  if (progress.best_epoch > 0) progress.best_score = json.at("best_score").as<std::optional<double>>();
  progress.validations_since_best = json.at("validations_since_best").as_integer();
  if (const Json* due = json.find("validation_due")) progress.validation_due = due->as_bool();
  progress.finished = json.at("finished").as_bool();
  return progress;
}

}  // namespace tally::nn
