#pragma once

#include <memory>

#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/ranker.h"

namespace tally::recsys {

/// A sequence model as a ranker: the last hidden state of each history against the item table. Histories longer than
/// the model's window are cut to their end; an empty one scores every item 0. A history's scores are the same bits
/// whatever else is in the block. What the model prepares is computed when scores are first asked for, and again after
/// its weights have changed. `model` must outlive the ranker.
Ranker make_ranker(const SequenceModel& model);

}  // namespace tally::recsys
