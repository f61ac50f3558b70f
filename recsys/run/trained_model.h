#pragma once

#include <memory>
#include <string>

#include "tally/core/io/json.h"
#include "tally/recsys/config/config.h"
#include "tally/recsys/data/catalogue.h"
#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/record/run_directory.h"
#include "tally/recsys/run/run_data.h"

// A run for use. Its items and users are matched with what comes from outside by id, never by place: docs/notes.md,
// Note [Order of items].

namespace tally::recsys {

/// The config that a run recorded. Throws IoError when the directory is no run.
RunConfig read_run_config(const RunDirectory& directory, const Tables& tables = standard());

/// What a checkpoint must have in common with the run that loads it: the model, the data (content_hash) and the order
/// of the items.
Json checkpoint_identity(const RunConfig& config, const std::string& data_hash, const IdMap& items);
/// Every key that an identity may hold: at its default where a checkpoint was written before there was that key, and
/// without effect where it is of another model, for earlier builds wrote the keys of all.
Json checkpoint_identity_defaults(const RunConfig& config);
/// And what a training can go on with: also its config, less the keys that may change between two starts (epochs,
/// checkpoint_steps, stopping_step, detect_anomaly) or matter at the first alone (start_from). Older checkpoints, which
/// do not say, are taken for the same.
Json training_identity(const RunConfig& config, const std::string& data_hash, const IdMap& items);
Json training_identity_defaults(const RunConfig& config);
/// The key that all random draws of a run follow from.
RngKey run_key(const RunConfig& config);

/// The model of a run at its best epoch, and its items.
struct TrainedModel {
  RunConfig config;
  Catalogue items;
  std::unique_ptr<SequenceModel> model;
};

/// Reads nothing but the run directory. The one exception is a directory of a build that did not keep its items: there
/// the data are read, and trusted if every recommendation that the run wrote comes out again. Throws IoError when the
/// directory is no run, has no weights yet, is damaged, or does not prove the order of its items.
TrainedModel open_model(const RunDirectory& directory, const Tables& tables = standard());

/// The same with the run's data.
struct OpenedRun {
  TrainedModel trained;
  RunData data;  ///< users and items numbered as at the training
};
/// Throws as open_model, and IoError when the data cannot be read or are not those of the training.
OpenedRun open_run(const RunDirectory& directory, const Tables& tables = standard());

/// The data of a run that recorded them, with users and items numbered as they were, whatever their order in the file
/// is by now. Throws IoError when the file holds other events.
RunData load_recorded_data(const RunDirectory& directory, const RunConfig& config,
                           const StopRequested& stop_requested = {});

/// Throws IoError unless `data` are what the run recorded, in whatever order of users. `recorded`: its data.json.
void check_same_data(const RunDirectory& directory, const Json& recorded, const RunConfig& config, const RunData& data);

}  // namespace tally::recsys
