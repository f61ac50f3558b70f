// Every key of a model's config reaches the model: a key that is read, recorded and then ignored is worse than none.
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "tally/autograd/tape.h"
#include "tally/nn/buffer_updates.h"
#include "tally/recsys/config/config.h"

namespace model_config_test {

using namespace tally;
using namespace tally::recsys;

namespace {

constexpr std::int64_t kItems = 23;

using Overrides = std::vector<std::string>;

RunConfig config_of(const Overrides& overrides) {
  Json json = Json::object({{"data", Json::object({{"path", "ratings.csv"}})}});
  for (const std::string& each : overrides) apply_override(json, each);
  return parse_config(json);
}

/// All that training and evaluation see of a model: weights, what it prepares, hidden states with dropout, candidates,
/// a further loss, and what an epoch leaves.
std::vector<double> seen_of(const Overrides& overrides) {
  const auto model = make_sequence_model(config_of(overrides).model, kItems, RngKey{5});
  Sequences batch =
      Sequences::from({{3, 1, 4, 1, 5, 9, 2, 6, 5, 3}, {}, {8}, {2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0}}, kItems);
  batch.times = Tensor({batch.offsets.total()}, DType::f64);
  for (std::int64_t t = 0; t < batch.offsets.total(); ++t) batch.times.mutable_data<double>()[t] = std::pow(t, 3);
  const BatchItems all = BatchItems::all(kItems);
  Tape tape;
  const Recording on(tape);
  const auto prepared = model->prepare(all);
  nn::BufferUpdates updates;
  const nn::Context context{true, RngKey{6}, 0, &updates};
  const auto parameters = static_cast<double>(model->parameters().size());
  std::vector<double> all_numbers{parameters};
  const auto add = [&](const Var& var) {
    if (!var.defined()) return;
    const std::vector<double> numbers = var.value().to_doubles();
    all_numbers.insert(all_numbers.end(), numbers.begin(), numbers.end());
  };
  for (const Tensor& tensor : model->weights()) add(Var(tensor));
  for (const Var& value : prepared.vars()) add(value);
  add(model->encode(batch, prepared, context));
  add(model->candidate_table(prepared));
  add(model->auxiliary_loss(batch, batch.items, prepared, context));
  all_numbers.push_back(static_cast<double>(model->window()));
  all_numbers.push_back(static_cast<double>(model->events_before()));
  updates.apply();
  model->epoch_begins(2, RngKey{7});
  for (const Tensor& tensor : model->weights()) add(Var(tensor));
  return all_numbers;
}

struct Case {
  Overrides base;
  std::string changed;
};

const std::vector<Case>& cases() {
  static const Overrides sasrec = {"name=sasrec", "hidden_size=8", "MAX_ITEM_LIST_LENGTH=14"};
  static const Overrides lisa = {"name=lisa",  "hidden_size=8", "MAX_ITEM_LIST_LENGTH=14",
                                 "n_layers=1", "codebooks=3",   "codewords=4"};
  static const Overrides frame = {"name=elastic", "hidden_size=8", "MAX_ITEM_LIST_LENGTH=14"};
  static const Overrides elastic = {"name=elastic", "hidden_size=8", "MAX_ITEM_LIST_LENGTH=14", "experts=4",
                                    "mask=bidirectional"};
  static const Overrides rows = {"name=elastic",      "hidden_size=8",    "MAX_ITEM_LIST_LENGTH=14",
                                 "experts=4",         "retrieval=rows",   "mask=bidirectional",
                                 "memory_sub_keys=6", "memory_key_size=8"};
  static const Overrides recgrela = {"name=recgrela", "hidden_size=8", "MAX_ITEM_LIST_LENGTH=14", "n_layers=1",
                                     "n_heads=2"};
  static const Overrides gru4rec = {"name=gru4rec", "hidden_size=8", "MAX_ITEM_LIST_LENGTH=14"};
  const auto with = [](Overrides base, const Overrides& more) {
    base.insert(base.end(), more.begin(), more.end());
    return base;
  };
  static const std::vector<Case> all = {
      {sasrec, "name=gru4rec"},
      {sasrec, "hidden_size=12"},
      {sasrec, "n_layers=1"},
      {sasrec, "n_heads=2"},
      {sasrec, "inner_size=16"},
      {sasrec, "MAX_ITEM_LIST_LENGTH=15"},
      {sasrec, "hidden_dropout_prob=0.4"},
      {sasrec, "attn_dropout_prob=0.4"},
      {sasrec, "hidden_act=gelu"},
      {sasrec, "norm=post"},
      {sasrec, "position_alignment=end"},
      {sasrec, "initializer_range=0.2"},
      {sasrec, "layer_norm_eps=0.1"},
      {sasrec, "tie_embeddings=false"},
      {sasrec, "attention_window=3"},
      {sasrec, "embedding_norm=true"},
      {sasrec, "scale_embeddings=false"},
      {with(sasrec, {"attention=linear_elu"}), "attention=local"},
      {with(sasrec, {"attention=local"}), "attention_block=3"},
      {with(sasrec, {"attention=linear_favor"}), "random_features=16"},
      {with(sasrec, {"attention=lsh"}), "lsh_buckets=4"},
      {with(sasrec, {"attention=lsh"}), "lsh_rounds=2"},
      {with(sasrec, {"attention=softmax"}), "attention_window=3"},
      {with(sasrec, {"attention=linrec"}), "linrec_keys=column"},
      {with(sasrec, {"attention=hstu"}), "hstu_normalizer=window"},
      {with(sasrec, {"attention=lambda"}), "lambda_window=3"},
      {with(sasrec, {"attention=lambda"}), "lambda_norm=none"},
      {with(sasrec, {"attention=galerkin"}), "galerkin_init_gain=1"},
      {with(sasrec, {"attention=galerkin"}), "galerkin_init_diagonal=1"},
      {with(sasrec, {"attention=fixed_memory"}), "memory_contexts=3"},
      {with(sasrec, {"attention=dispatcher"}), "experts=3"},
      {with(sasrec, {"attention=dispatcher"}), "experts_init=0.5"},
      {with(sasrec, {"attention=dispatcher", "n_heads=2"}), "expert_heads=own"},
      {with(sasrec, {"attention=deltanet"}), "short_conv=3"},
      {with(sasrec, {"attention=gated_deltanet"}), "short_conv=0"},
      {with(sasrec, {"attention=time_decay"}), "time_unit=7"},
      {with(sasrec, {"attention=time_decay"}), "decay_by=events"},
      {with(sasrec, {"attention=gated_slot"}), "slots=3"},
      {with(sasrec, {"attention=gated_slot"}), "gate_logit_normalizer=2"},
      {elastic, "experts=3"},
      {elastic, "embedding_norm=true"},
      {elastic, "scale_embeddings=false"},
      {elastic, "mask=causal"},
      {frame, "attention=linear_elu"},
      {with(frame, {"mask=bidirectional", "attention=linformer"}), "projected_keys=3"},
      {with(frame, {"mask=bidirectional", "attention=lightsans"}), "k_interests=3"},
      {elastic, "expert_sharing=layer"},
      {elastic, "expert_sharing=carried"},
      {elastic, "retrieval=rows"},
      {with(rows, {"mask=causal"}), "retrieval_window=7"},
      {rows, "retrieval=pooled"},
      {with(elastic, {"retrieval=rows"}), "routing=codes"},
      {with(elastic, {"retrieval=rows", "routing=codes"}), "routing_codebooks=2"},
      {with(elastic, {"retrieval=rows", "routing=codes"}), "routing_codewords=7"},
      {rows, "query_pooling=mean"},
      {with(rows, {"query_pooling=mean"}), "query_pooling=mean_last"},
      {rows, "memory_sub_keys=5"},
      {rows, "memory_key_size=10"},
      {rows, "memory_heads=2"},
      {rows, "memory_norm=none"},
      {with(rows, {"memory_norm=none"}), "memory_norm=unit"},
      {rows, "memory_weights=sigmoid"},
      {rows, "memory_query_dropout=0.3"},
      {rows, "memory_values_init=0.3"},
      {rows, "memory_revive_epochs=2"},
      {with(elastic, {"retrieval=pooled"}), "memory_slots=3"},
      {with(elastic, {"retrieval=pooled"}), "memory_gate=swilu"},
      {recgrela, "hidden_size=12"},
      {recgrela, "n_layers=2"},
      {recgrela, "n_heads=4"},
      {recgrela, "inner_size=16"},
      {recgrela, "MAX_ITEM_LIST_LENGTH=15"},
      {recgrela, "hidden_dropout_prob=0.4"},
      {recgrela, "drop_path_prob=0.4"},
      {recgrela, "hidden_act=relu"},
      {recgrela, "initializer_range=0.2"},
      {recgrela, "layer_norm_eps=0.1"},
      {recgrela, "tie_embeddings=false"},
      {recgrela, "attention=linear_elu"},
      {recgrela, "mask=bidirectional"},
      {recgrela, "shortcut_kernel=3"},
      {recgrela, "shortcut_act=silu"},
      {lisa, "hidden_size=12"},
      {lisa, "n_layers=2"},
      {lisa, "inner_size=16"},
      {lisa, "MAX_ITEM_LIST_LENGTH=15"},
      {lisa, "hidden_dropout_prob=0.4"},
      {lisa, "hidden_act=gelu"},
      {lisa, "position_alignment=end"},
      {lisa, "layer_norm_eps=0.1"},
      {lisa, "lisa_variant=soft"},
      {lisa, "lisa_variant=mini"},
      {lisa, "codebooks=2"},
      {lisa, "codewords=5"},
      {with(lisa, {"lisa_variant=mini"}), "target_codewords=5"},
      {lisa, "quantized=histories"},
      {with(lisa, {"quantized=histories"}), "quantized=attention"},
      {lisa, "score_scale=0.3"},
      {lisa, "similarity=dot"},
      {lisa, "temperature=0.3"},
      {lisa, "codeword_bias=true"},
      {lisa, "residual_quantization=false"},
      {lisa, "codebook_init=kmeans"},
      {lisa, "counts_decay=0.4"},
      {lisa, "learn_decay=true"},
      {with(lisa, {"lisa_variant=soft"}), "soft_query=true"},
      {with(lisa, {"counts_decay=0"}), "counts_window=3"},
      {lisa, "position_codebooks=2"},
      {with(lisa, {"position_codebooks=2"}), "position_codewords=3"},
      {lisa, "commitment_weight=0.5"},
      {gru4rec, "hidden_size=12"},
      {gru4rec, "n_layers=1"},
      {gru4rec, "MAX_ITEM_LIST_LENGTH=15"},
      {gru4rec, "hidden_dropout_prob=0.4"},
      {gru4rec, "initializer_range=0.2"},
      {gru4rec, "tie_embeddings=false"},
      {gru4rec, "embedding_size=6"},
      {gru4rec, "gru_bias=false"},
  };
  return all;
}

}  // namespace

TEST_CASE("every key of a model's config reaches the model", "[config]") {
  for (const auto& [base, changed] : cases()) {
    INFO(base.front() << ", " << changed);
    Overrides overrides = base;
    overrides.push_back(changed);
    const std::vector<double> before = seen_of(base);
    const bool repeated = before == seen_of(base), ignored = before == seen_of(overrides);
    CHECK(repeated);
    CHECK_FALSE(ignored);
  }
}

TEST_CASE("no key of a model's config is left out of that test", "[config]") {
  std::set<std::string> tested;
  for (const auto& [base, changed] : cases()) tested.insert("model." + changed.substr(0, changed.find('=')));
  for (const auto& [key, value, former] : config_keys()) {
    if (!key.starts_with("model.")) continue;
    INFO(key);
    CHECK(tested.count(key) == 1);
  }
}

}  // namespace model_config_test
