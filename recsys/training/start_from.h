#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tally/recsys/data/id_map.h"
#include "tally/recsys/models/sequence_model.h"

namespace tally::recsys {

/// What a model took over from another.
struct StartedFrom {
  std::vector<std::string> tensors;  ///< paths of those copied, whole or by item
  std::int64_t known_items = 0;      ///< that both have: they begin with the other's vectors
  std::int64_t new_items = 0;        ///< that the other has not: they keep their initial vectors
  std::int64_t left_items = 0;       ///< that only the other has
};

/// Begins with the weights of another model, of any kind: tensors of equal path, shape and type are copied; those with
/// a row for each item (SequenceModel::item_tensors) row by row, by the items' ids; the others stay; and the model
/// makes anew what follows from them (SequenceModel::initialize_from_weights). Throws IoError when no tensor or no item
/// is common; the model is then unchanged.
StartedFrom start_from(SequenceModel& model, const IdMap& items, SequenceModel& other, const IdMap& other_items,
                       RngKey key);

}  // namespace tally::recsys
