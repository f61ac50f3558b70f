// tally embed and similar: the vectors of a run's items and users, and which items are alike.
#include <fmt/format.h>

#include <cmath>

#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/directory_lock.h"
#include "tally/core/io/file.h"
#include "tally/core/io/npy.h"
#include "tally/core/io/safetensors.h"
#include "tally/recsys/data/histories.h"
#include "tally/recsys/run/run_data.h"
#include "tally/recsys/serving/recommender.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using namespace recsys;

void write_user_ids(const std::filesystem::path& path, const IdMap& users) {
  std::string text = "user_id\n";
  for (std::int32_t user = 0; user < users.size(); ++user) text.append(users.name(user)).append(1, '\n');
  write_file_atomically(path, text);
}

/// Vectors as they are. Throws IoError where some are not finite, of which no score says anything.
Tensor check_vectors(Tensor vectors, const std::string& source) {
  check<IoError>(all_finite(vectors), source, "has weights that give vectors which are not finite");
  return vectors;
}

struct EmbedOptions {
  std::string directory, output, input;
  bool users = false;
};

void embed(const EmbedOptions& options, const Tables& tables) {
  const Recommender from = open_recommender(options.directory, tables);
  check<ConfigError>(!is_there(options.output) || recover_directory(options.output), "--output", options.output,
                     " is there already, and no directory of embeddings");
  const DirectoryLock lock = DirectoryLock::beside(options.output);
  AtomicDirectory files(options.output);
  std::map<std::string, Tensor> tensors{{"items", check_vectors(from.item_vectors(), from.source)}};
  write_catalogue(files.file("items.tsv"), from.items);
  save_npy(files.file("items.npy"), tensors["items"]);
  std::string summary = fmt::format("{} items of {} numbers", from.items.size(), tensors["items"].dim(1));
  if (options.users || !options.input.empty()) {
    IdMap ids;
    Sequences histories;
    if (options.users) {
      RunUsers users = from.read_users();
      ids = std::move(users.ids);
      histories = std::move(*users.histories);
    } else {
      Histories read = read_histories(options.input, from.items.ids, history_options(from.data));
      ids = std::move(read.users);
      histories = std::move(read.sequences);
    }
    tensors["users"] = check_vectors(from.user_vectors(histories), from.source);
    write_user_ids(files.file("users.tsv"), ids);
    save_npy(files.file("users.npy"), tensors["users"]);
    summary += fmt::format(", {} users", ids.size());
  }
  save_safetensors(files.file("embeddings.safetensors"), tensors, {{"ranker", from.ranker.name()}});
  files.commit(Json::object({{"embeddings_of", from.ranker.name()}}));
  print(detail::join(summary, '\n', options.output, '\n'));
}

struct SimilarOptions {
  std::string directory, item, measure = "cosine";
  std::int64_t k = 10;
};

/// The inner product of two rows, or its cosine; 0 with a row of zeros.
double similarity(const float* a, const float* b, std::int64_t width, bool cosine) {
  double product = 0, a_squares = 0, b_squares = 0;
  for (std::int64_t i = 0; i < width; ++i) {
    product += double{a[i]} * double{b[i]};
    a_squares += double{a[i]} * double{a[i]};
    b_squares += double{b[i]} * double{b[i]};
  }
  if (!cosine) return product;
  const double lengths = std::sqrt(a_squares) * std::sqrt(b_squares);
  return lengths > 0 ? product / lengths : 0;
}

void similar(const SimilarOptions& options, const Tables& tables) {
  check<ConfigError>(options.k >= 1, "--k", "needs at least 1; got ", options.k);
  const Recommender from = open_recommender(options.directory, tables);
  const auto item = from.items.ids.find(options.item);
  check<ConfigError>(item.has_value(), "--item", "item '", options.item, "' is not in ", from.source);
  const Tensor vectors = check_vectors(from.item_vectors(), from.source);
  const std::int64_t width = vectors.dim(1);
  const float* const rows = vectors.data<float>();
  std::vector<float> scores(static_cast<std::size_t>(from.items.size()));
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = static_cast<float>(similarity(rows + *item * width, rows + static_cast<std::int64_t>(i) * width, width,
                                              options.measure == "cosine"));
  }
  print("rank\titem_id\tscore\ttitle\n");
  const auto best = top_k(scores, options.k, std::span(&*item, 1), from.candidate_bytes());
  for (std::size_t r = 0; r < best.size(); ++r) {
    print(fmt::format("{}\t{}\t{:g}\t{}\n", r + 1, from.items.ids.name(best[r].item), best[r].score,
                      in_one_cell(from.items.label(best[r].item))));
  }
}

}  // namespace

void add_embed(CLI::App& app, const CommandContext& context) {
  auto options = std::make_shared<EmbedOptions>();
  CLI::App* command = app.add_subcommand(
      "embed", "Write the vectors of a run's items, and of users; a score is the inner product of the two");
  command->add_option("run", options->directory, "Run directory, or one that compress wrote")->required();
  command
      ->add_option("--output", options->output,
                   "Directory for items.npy with items.tsv (row i is line i), the same of users, and "
                   "embeddings.safetensors")
      ->required();
  CLI::Option* users = command->add_flag("--users", options->users, "Vectors of the run's users, too");
  command->add_option("--input", options->input, "Vectors of the histories of a file, too (as recommend reads them)")
      ->excludes(users);
  command->callback([=] {
    embed(*options, context.tables);
    context.exit_code = 0;
  });
}

void add_similar(CLI::App& app, const CommandContext& context) {
  auto options = std::make_shared<SimilarOptions>();
  CLI::App* command = app.add_subcommand("similar", "Items whose vectors are the most alike to one's, exactly");
  command->add_option("run", options->directory, "Run directory, or one that compress wrote")->required();
  command->add_option("--item", options->item, "Item id")->required();
  command->add_option("--k", options->k, "Number of items");
  command->add_option("--measure", options->measure, "cosine or dot")->check(CLI::IsMember({"cosine", "dot"}));
  command->callback([=] {
    similar(*options, context.tables);
    context.exit_code = 0;
  });
}

}  // namespace tally::tools
