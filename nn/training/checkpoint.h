#pragma once

#include <filesystem>

#include "tally/core/io/json.h"
#include "tally/nn/module.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/nn/training/progress.h"

namespace tally::nn {

/// Weights, optimizer state and progress of a training, as a directory that appears whole or not at all. `identity`
/// says whose it is (model and data); a checkpoint of another identity is refused. Members that it lacks, because a
/// build wrote it that did not know them, are those of `defaults`: what that build did. Members that `identity` lacks
/// and `defaults` knows have no effect.
void save_checkpoint(const std::filesystem::path& directory, const TensorList& state, const optim::Optimizer& optimizer,
                     const TrainerProgress& progress, const Json& identity);

/// Restores them. Throws IoError when a file is damaged or missing, or when the checkpoint is of another model or data
/// (naming what differs); the model is then unchanged.
TrainerProgress load_checkpoint(const std::filesystem::path& directory, const TensorList& state,
                                optim::Optimizer& optimizer, const Json& identity, const Json& defaults = {});

/// Weights alone, for use: the model of the best validation.
void save_weights(const std::filesystem::path& directory, const TensorList& state, const Json& identity);
void load_weights(const std::filesystem::path& directory, const TensorList& state, const Json& identity,
                  const Json& defaults = {});

}  // namespace tally::nn
