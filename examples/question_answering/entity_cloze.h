#pragma once

#include <string>

#include "examples/question_answering/drawn_sets.h"

// A drawn stand-in for the news articles of Hermann et al. (arXiv 1506.03340), which linear attention was tried on and
// which are not ours to ship. A document is a row of sentences
//
//   @entity7 relation3 @entity20 filler41 filler5 filler88 ...      or
//   @entity7 relation3 attribute12 filler9 ...
//
// and a question one of its sentences, less the fillers, with an entity replaced: "@placeholder relation3 @entity20".
// Each entity of the world is the subject of some relations more often than of others, as people of the news are. But
// which marker stands for which entity is drawn anew for each document, so knowing the world answers nothing: the
// document has to be read. Within a document a subject has a relation to one object alone, and an object has it from
// one subject alone: there is one right answer. Sentences are as long as those of the news, about 23 words.

namespace question_answering {

struct EntityClozeOptions {
  DrawnSetOptions drawn{.questions = 20};
  std::int64_t words = 750;
  std::int64_t entities = 26;
  std::int64_t relations = 20;
  std::int64_t attributes = 40;
  std::int64_t fillers = 200;
  std::int64_t least_fillers = 10, most_fillers = 30;
  bool permuted = true;
  static void keys(auto& o, auto&& key) {
    key(o.drawn);
    key("words", o.words, tally::at_least(1), "of a document, at least; its last sentence is whole");
    key("entities", o.entities, tally::at_least(2), "of the world, and of each document: the possible answers");
    key("relations", o.relations, tally::at_least(4), "words between two entities, or an entity and an attribute");
    key("attributes", o.attributes, tally::at_least(1), "things that entities are related to");
    key("fillers", o.fillers, tally::at_least(1), "words that say nothing");
    key("least_fillers", o.least_fillers, tally::at_least(0), "of a sentence");
    key("most_fillers", o.most_fillers, tally::at_least(0), "of a sentence");
    key("permuted", o.permuted, "draw the markers of the entities for each document; false: the world can be learned");
  }
  /// Throws ConfigError for documents that cannot be drawn: too many sentences for so few relations.
  void check(const std::string& section) const;
};

QuestionSet draw_entity_cloze(const EntityClozeOptions& options);

}  // namespace question_answering
