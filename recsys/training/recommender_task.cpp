#include "tally/recsys/training/recommender_task.h"

namespace tally::recsys {

RecommenderTask::RecommenderTask(SequenceModel& model, const TrainingBatches& batches, TrainingLoss loss,
                                 Validate validate, Json identity, Json identity_defaults)
    : model_(model),
      batches_(batches),
      loss_(std::move(loss)),
      validate_(std::move(validate)),
      identity_(std::move(identity)),
      identity_defaults_(std::move(identity_defaults)) {}

nn::TaskStep RecommenderTask::step(const nn::StepPlace& place) {
  const TrainingBatch batch = batches_.batch(place.epoch, place.index);
  StageResult result = training_step(model_, batch, place.key, loss_, place.configure);
  return {result.loss, std::move(result.gradients), batch.targets, batch.rows};
}

}  // namespace tally::recsys
