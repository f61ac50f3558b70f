#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "tally/recsys/data/id_map.h"
#include "tally/recsys/models/recurrent_model.h"
#include "tally/recsys/ranker.h"

namespace tally::tools {

/// What `tally recommend` answers from.
struct Recommender {
  std::string source;                                   ///< for messages: the data of the run, or the directory
  recsys::IdMap items;                                  ///< names of the ranker's items
  std::unordered_map<std::string, std::string> titles;  ///< by item id; empty where there are none
  std::string user_column = "user_id", item_column = "item_id";  ///< of files of histories
  recsys::Ranker ranker;
  /// The same one event at a time. Throws ValueError for a model that has no such face.
  std::function<std::shared_ptr<const recsys::RecurrentModel>()> recurrent;

  /// An item for people: its title when there is one, else its id.
  std::string label(std::int32_t item) const;
};

/// From the directory of a run, or from one that `tally compress` wrote, which needs neither the run nor its data.
/// Throws IoError when it is neither, or damaged.
Recommender open_recommender(const std::filesystem::path& directory);

}  // namespace tally::tools
