#include "tally/nn/readers/reader_kinds.h"

#include "tally/nn/readers/fixed_memory.h"
#include "tally/nn/readers/linear.h"
#include "tally/nn/readers/plain.h"

namespace tally::nn {

const ReaderKinds& reader_kinds() {
  static const ReaderKinds all{
      "reader",
      {reader_row<StateReader>("none", "the document's last state, whatever the query", NoOptions{}),
       reader_row<SoftmaxReader>("softmax", "a mean of all rows, weighed by the query", SoftmaxReaderOptions{}),
       reader_row<LinearReader>("linear", "the query times H^T H: a document of a fixed size",
                                ReaderNormalizationOptions{}),
       reader_row<GatedLinearReader>("gated_linear", "the same of gated rows, with learned decay and gain",
                                     GatedLinearReaderOptions{}),
       reader_row<FixedMemoryReader>("fixed_memory", "K contexts, filled while the document is read",
                                     FixedMemoryOptions{})}};
  return all;
}

Reader make_reader(const ReaderChoice& choice, std::int64_t width, RngKey key) {
  check<ValueError>(width >= 1, choice.name(), "needs a width of at least 1; got ", width);
  return choice.row().make(choice.options, width, key);
}

}  // namespace tally::nn
