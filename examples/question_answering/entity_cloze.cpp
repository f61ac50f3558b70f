#include "examples/question_answering/entity_cloze.h"

#include <set>
#include <utility>

namespace question_answering {
namespace {

/// An entity is the subject of so many relations more often than of others: three of four of its sentences have one of
/// them.
constexpr std::int64_t kHabits = 3;

struct Fact {
  std::int64_t subject, relation, object;  ///< objects: entities, then attributes
};

class ClozeWriter {
 public:
  ClozeWriter(const EntityClozeOptions& options, QuestionSet& set) : options_(options) {
    const auto add = [](Vocabulary& words, const char* name, std::int64_t count) {
      std::vector<std::int32_t> ids;
      for (std::int64_t i = 0; i < count; ++i) ids.push_back(words.add(name + std::to_string(i)));
      return ids;
    };
    markers_ = add(set.words, "@entity", options.entities);
    relations_ = add(set.words, "relation", options.relations);
    attributes_ = add(set.words, "attribute", options.attributes);
    fillers_ = add(set.words, "filler", options.fillers);
    placeholder_ = set.words.add("@placeholder");
    answers_ = add(set.answers, "@entity", options.entities);
  }

  Document write(tally::RngKey key) const {
    KeyedDraws draws(key.fold_in("facts"));
    std::vector<std::int64_t> marker_of(markers_.size());
    for (std::size_t i = 0; i < marker_of.size(); ++i) marker_of[i] = static_cast<std::int64_t>(i);
    if (options_.permuted) marker_of = tally::random_permutation(key.fold_in("markers"), options_.entities);
    Document document;
    std::vector<Fact> facts;
    std::set<std::pair<std::int64_t, std::int64_t>> subjects, objects;  // each with its relation
    while (static_cast<std::int64_t>(document.words.size()) < options_.words) {
      const Fact fact = draw_fact(draws);
      if (subjects.contains({fact.subject, fact.relation}) || objects.contains({fact.object, fact.relation})) continue;
      subjects.emplace(fact.subject, fact.relation);
      objects.emplace(fact.object, fact.relation);
      facts.push_back(fact);
      for (const std::int32_t word : words_of(fact, marker_of)) document.words.push_back(word);
      for (std::int64_t i = draws.between(options_.least_fillers, options_.most_fillers); i > 0; --i) {
        document.words.push_back(fillers_[static_cast<std::size_t>(draws.below(options_.fillers))]);
      }
    }
    const auto last = static_cast<std::int64_t>(document.words.size()) - 1;
    const auto order = tally::random_permutation(key.fold_in("questions"), static_cast<std::int64_t>(facts.size()));
    for (std::int64_t i = 0; i < options_.drawn.questions; ++i) {
      const auto asked = static_cast<std::size_t>(order[static_cast<std::size_t>(i) % order.size()]);
      document.questions.push_back(ask(facts[asked], marker_of, draws, last));
    }
    return document;
  }

 private:
  Fact draw_fact(KeyedDraws& draws) const {
    Fact fact{};
    fact.subject = draws.below(options_.entities);
    fact.relation = draws.below(4) > 0 ? (fact.subject + draws.below(kHabits)) % options_.relations
                                       : draws.below(options_.relations);
    if (draws.below(2) == 0) {
      // Another entity than the subject.
      fact.object = (fact.subject + 1 + draws.below(options_.entities - 1)) % options_.entities;
    } else {
      fact.object = options_.entities + draws.below(options_.attributes);
    }
    return fact;
  }
  std::vector<std::int32_t> words_of(const Fact& fact, const std::vector<std::int64_t>& marker_of) const {
    const auto marker = [&](std::int64_t entity) {
      return markers_[static_cast<std::size_t>(marker_of[static_cast<std::size_t>(entity)])];
    };
    const bool entity = fact.object < options_.entities;
    return {marker(fact.subject), relations_[static_cast<std::size_t>(fact.relation)],
            entity ? marker(fact.object) : attributes_[static_cast<std::size_t>(fact.object - options_.entities)]};
  }
  Question ask(const Fact& fact, const std::vector<std::int64_t>& marker_of, KeyedDraws& draws,
               std::int64_t place) const {
    const bool about_object = fact.object < options_.entities && draws.below(2) == 0;
    const std::int64_t answer = about_object ? fact.object : fact.subject;
    Question question{words_of(fact, marker_of), place,
                      answers_[static_cast<std::size_t>(marker_of[static_cast<std::size_t>(answer)])]};
    question.words[about_object ? 2 : 0] = placeholder_;
    return question;
  }

  const EntityClozeOptions& options_;
  std::vector<std::int32_t> markers_, relations_, attributes_, fillers_, answers_;
  std::int32_t placeholder_ = 0;
};

}  // namespace

void EntityClozeOptions::check(const std::string& section) const {
  tally::check<tally::ConfigError>(least_fillers <= most_fillers, section, "needs at most most_fillers for ",
                                   "least_fillers; got ", least_fillers, " and ", most_fillers);
  // With half of all pairs free, one of the next few draws is new.
  const std::int64_t sentences = words / (3 + least_fillers) + 1;
  tally::check<tally::ConfigError>(
      sentences <= relations * entities / 4 && drawn.questions <= words / (3 + most_fillers), section,
      "needs more relations or entities for documents of ", sentences,
      " sentences, and no more questions than sentences; got ", relations, " relations, ", entities, " entities, ",
      drawn.questions, " questions");
}

QuestionSet draw_entity_cloze(const EntityClozeOptions& options) {
  options.check("data");
  QuestionSet set;
  set.name = "entity cloze";
  set.tasks = {"entity cloze"};
  const ClozeWriter writer(options, set);
  draw_documents(
      options.drawn, [&](tally::RngKey key) { return writer.write(key); }, set);
  return set;
}

}  // namespace question_answering
