#include "examples/question_answering/drawn_sets.h"

namespace question_answering {

void draw_documents(const DrawnSetOptions& options, const std::function<Document(tally::RngKey)>& draw,
                    QuestionSet& set) {
  const tally::RngKey key = tally::RngKey{static_cast<std::uint64_t>(options.data_seed)}.fold_in(set.name);
  const auto draw_part = [&](std::string_view name, std::int64_t count, std::vector<Document>& part) {
    for (std::int64_t i = 0; i < count; ++i) {
      part.push_back(draw(key.fold_in(name).fold_in(static_cast<std::uint64_t>(i))));
    }
  };
  draw_part("training", options.training, set.training);
  draw_part("validation", options.validation, set.validation);
  draw_part("test", options.test, set.test);
}

}  // namespace question_answering
