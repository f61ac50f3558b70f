#pragma once

#include <functional>
#include <string>

#include "examples/question_answering/question_set.h"
#include "tally/core/options/option_tables.h"

namespace question_answering {

/// A row of the table of data sets.
struct DataSetRow {
  std::string name, summary;
  tally::AnyOptions options = {};
  std::function<QuestionSet(const tally::AnyOptions& options)> make = {};
};

using DataSets = tally::ChoiceTable<DataSetRow>;
using DataSetChoice = tally::Choice<DataSetRow>;

const DataSets& data_sets();

}  // namespace question_answering
