#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tally/recsys/config/config.h"
#include "tally/recsys/data/catalogue.h"
#include "tally/recsys/evaluation/top_k.h"
#include "tally/recsys/models/recurrent_model.h"
#include "tally/recsys/run/run_users.h"

namespace tally::recsys {

/// A user's best items.
struct Recommendation {
  std::vector<ScoredItem> items;
  /// Of a user without a history, whom a model has nothing to say of: these are the items that were trained on most
  /// often, and their scores say how often.
  bool popular = false;
};

/// What recommendations are made from: a finished run, or what `tally compress` wrote. It needs nothing but the
/// directory: not the data, which may have changed or be elsewhere.
struct Recommender {
  std::string source;  ///< for messages: the directory
  Catalogue items;     ///< in the order of the ranker's scores
  DataConfig data;     ///< how the run read its data, and so reads files of histories
  Candidates candidates = Candidates::all;
  std::filesystem::path users_file;  ///< of write_users; need not be there
  bool reads_times = false;          ///< the ranker needs the times of events: Sequences::times
  Ranker ranker;
  std::function<Tensor()> item_vectors;                  ///< f32 [items, D]
  std::function<Tensor(const Sequences&)> user_vectors;  ///< f32 [histories, D]; scores are inner products of the two
  /// The same one event at a time. Throws ValueError for a model that has no such form.
  std::function<std::shared_ptr<const RecurrentModel>()> recurrent;

  /// The users of the run. Throws IoError when their histories were left out.
  RunUsers read_users() const;
  /// [items] 1 for those that may be recommended: all, or where the run's candidates are `train` those trained on; and
  /// in either case only those of `among`, unless it is empty.
  std::vector<std::uint8_t> candidate_bytes(std::span<const std::uint8_t> among = {}) const;
  /// The best of the candidates (options.candidates narrows them). Throws ValueError for an empty history where the
  /// directory does not say how often items were trained on, and for histories without times where the ranker reads
  /// them.
  std::vector<Recommendation> recommend(const Sequences& histories, const RecommendOptions& options) const;
};

/// From the directory of a run, or from one that `tally compress` wrote. Throws IoError when it is neither, or damaged.
Recommender open_recommender(const std::filesystem::path& directory, const Tables& tables = standard());

}  // namespace tally::recsys
