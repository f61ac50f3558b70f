#include "examples/question_answering/data_sets.h"

#include "examples/question_answering/associative_retrieval.h"
#include "examples/question_answering/babi.h"
#include "examples/question_answering/entity_cloze.h"

namespace question_answering {
namespace {

template <tally::Listed O>
DataSetRow row(const std::string& name, const std::string& summary, QuestionSet (*make)(const O&)) {
  return {name, summary, O{}, [make](const tally::AnyOptions& options) { return make(options.as<O>()); }};
}

}  // namespace

const DataSets& data_sets() {
  static const DataSets all{"data set",
                            {row("babi", "the bAbI tasks, learned together", read_babi),
                             row("entity_cloze", "long drawn documents of permuted entities", draw_entity_cloze),
                             row("associative_retrieval", "letters with digits", draw_associative_retrieval)}};
  return all;
}

}  // namespace question_answering
