#include "tally/nn/readers/normalization.h"

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/norms/rms_norm.h"

namespace tally::nn {

Var normalized(const Var& answers, ReaderNormalization normalization, const Lookups& lookups) {
  switch (normalization) {
    case ReaderNormalization::none:
      return answers;
    case ReaderNormalization::length:
      return answers / Var(rows_seen(lookups, answers.dtype()));
    case ReaderNormalization::rms:
      return ops::rms_norm(answers);
  }
  fail<ValueError>("reader", "needs a normalization with a name");
}

}  // namespace tally::nn
