#include "tally/recsys/training/recommender_task.h"

namespace tally::recsys {

RecommenderTask::RecommenderTask(SequenceModel& model, const TrainingBatches& batches, std::shared_ptr<const Loss> loss,
                                 Validate validate, Json identity, Json identity_defaults)
    : model_(model),
      batches_(batches),
      loss_(loss != nullptr ? std::move(loss) : std::make_shared<TrainingLoss>()),
      validate_(std::move(validate)),
      identity_(std::move(identity)),
      identity_defaults_(std::move(identity_defaults)) {
  const TrainingSamples samples = batches_.options().samples;
  check<ConfigError>(!model_.looks_ahead() || samples == TrainingSamples::prefix, "train.train_samples",
                     "needs prefix for ", model_.name(), ", whose rows see what follows them: with ", word_of(samples),
                     " they would see what they are to predict");
}

nn::TaskStep RecommenderTask::step(const nn::StepPlace& place) {
  if (place.index == 0 && place.epoch > 0) model_.epoch_begins(place.epoch, place.key.fold_in("epoch"));
  return training_step(model_, batches_.batch(place.epoch, place.index), place.key, *loss_, place.configure);
}

}  // namespace tally::recsys
