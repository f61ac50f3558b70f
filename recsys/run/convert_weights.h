#pragma once

#include <map>
#include <string>
#include <vector>

#include "tally/core/io/json.h"
#include "tally/recsys/data/id_map.h"
#include "tally/recsys/models/sequence_model.h"

namespace tally::recsys {

/// Tensors of another program as the weights of a model, by a map of names:
///
///   {"tensors": {"blocks.*.attention.query.weight": {"from": "attention_layers.*.in_proj_weight", "part": 0, "parts":
///   3},
///                "norm.weight": "last_layernorm.weight"},
///    "unused": ["num_batches_*"]}
///
/// A key is the path of a tensor of the model, a value the name of the other's; * stands for the same text in both. Of
/// keys that fit a path the first counts. Along the first dimension the first "skip" are left out (a row of padding);
/// of "parts" equal ones of the rest "part" is taken, and the whole is multiplied by "factor". Sizes of 1 may be more
/// or fewer (the kernel of a convolution of width 1). Tensors are converted to the model's type.
///
/// Tensors with a row for each item are matched by id: `rows` has the id of each row, or is empty where rows are in the
/// order of `items`. Rows of ids that the model does not have (padding) are left out.
///
/// Throws ConfigError for a map that is malformed; IoError, naming them, for tensors of the model that the map does not
/// name or the file does not have, of another shape, integers for floats, numbers that are not finite in the model's
/// type, for items without a row or with two, and for tensors of the file that are neither taken nor listed as unused.
/// The model is then unchanged.
void convert_weights(SequenceModel& model, const IdMap& items, const std::map<std::string, Tensor>& tensors,
                     const Json& map, const std::vector<std::string>& rows = {});

}  // namespace tally::recsys
