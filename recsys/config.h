#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tally/core/json.h"

// The configuration of a run: a JSON file, read strictly. Keys are RecBole's where it has the same thing.

namespace tally::recsys {

struct DataConfig {
  std::string path;                     ///< delimited text, plain or gzip'd; relative to the config file
  std::string format = "auto";          ///< a form of file_forms.h; auto: the one that the file's name tells
  std::string separator;                ///< one or more characters, "\t" for tabs; empty: the form's
  std::vector<std::string> columns;     ///< of a file without a header line; empty: the form's, or the header's
  std::string user_column = "user_id";  // USER_ID_FIELD
  std::string item_column = "item_id";  // ITEM_ID_FIELD
  std::string rating_column;            // RATING_FIELD; empty: none
  std::string order_column = "auto";    // TIME_FIELD; empty: file order; auto: "timestamp", or the form has none
  std::string tie_rule = "file_order";  ///< file_order | item_id | random
  std::int64_t tie_seed = 0;            ///< of tie_rule random
  std::string duplicates = "keep";      ///< keep | first | last
  std::optional<double> min_rating;     ///< rows rated below are left out; absent (null): none
  std::string user_inter_num_interval;  ///< allowed events of a user, "[5,inf)"; empty: any number
  std::string item_inter_num_interval;  ///< likewise of an item
  std::string core = "iterative";       ///< iterative | one_pass: how often these two are applied
  std::string bad_rows = "error";       ///< error | skip
  std::string titles;                   ///< file of item titles; empty: none
  std::string split = "leave_one_out";  ///< leave_one_out | leave_last_out (no validation)
  std::int64_t min_length = 3;          ///< users with fewer events are not evaluated
  std::string short_users = "train";    ///< train | drop: what becomes of them in training
};

struct ModelConfig {
  std::string name = "sasrec";
  std::int64_t hidden_size = 64;
  std::int64_t n_layers = 2;
  std::int64_t n_heads = 1;
  std::int64_t inner_size = 0;  ///< 0: hidden_size
  std::int64_t max_item_list_length = 200;
  double hidden_dropout_prob = 0.1;
  double attn_dropout_prob = 0.1;
  std::string hidden_act = "relu";           ///< relu | gelu | silu
  std::string norm = "sasrec";               ///< sasrec | pre | post
  std::string position_alignment = "start";  ///< start | end
  double initializer_range = 0.02;
  double layer_norm_eps = 1e-8;
  bool tie_embeddings = true;  ///< score items with the table that they are read with
  // Of the model sasrec:
  std::string attention =
      "softmax";  ///< softmax | softmax_materialized | local | linear_elu | linear_favor | lsh | ...
  std::int64_t attention_block = 32;  ///< rows of local's window, of lsh's chunks and of sinkhorn's blocks
  std::int64_t random_features = 64;  ///< of linear_favor
  std::int64_t lsh_buckets = 8;
  std::int64_t lsh_rounds = 1;
  // Of the model lisa:
  std::string lisa_variant = "base";  ///< base | soft | mini
  std::int64_t codebooks = 8;
  std::int64_t codewords = 128;         ///< of each codebook of the histories
  std::int64_t target_codewords = 128;  ///< of each codebook of the targets, in the variant mini
  std::string quantized = "all";        ///< all | histories | attention: what reads reconstructions, not the embeddings
  std::string similarity = "bilinear";  ///< bilinear | dot | squared_distance
  double temperature = 0.7;
  bool codeword_bias = false;  ///< a trained bias of each codeword's similarity
  bool residual_quantization = true;
  std::string codebook_init = "xavier";  ///< xavier | kmeans (of the initial item embeddings)
  double counts_decay = 0.1;             ///< an event k places back counts exp(-counts_decay k); 0: all count alike
  bool learn_decay = false;              ///< train it
  bool soft_query = false;               ///< of lisa_variant soft: queries are soft as well
  std::int64_t counts_window = 0;        ///< tally only the last so many events, which decay; 0: all
  std::int64_t position_codebooks = 0;   ///< blocks attend to quantized positions too; 0: they do not
  std::int64_t position_codewords = 32;  ///< of each codebook of the positions
  double score_scale = 1;                ///< of the scores in the loss: 1 / sqrt(width) undoes that of the embeddings
  double commitment_weight = 0;          ///< of the distance from embeddings to their reconstructions
};

struct TrainConfig {
  std::int64_t epochs = 100;
  std::int64_t train_batch_size = 128;
  std::int64_t shard_tokens = 2048;  ///< rows that one core works on at a time
  std::string learner = "adam";      ///< adam | sgd | adagrad
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double weight_decay = 0;
  double clip_grad_norm = 0;  ///< 0: none
  std::int64_t warmup_steps = 0;
  std::string decay = "constant";                 ///< constant | cosine
  std::string train_samples = "shifted";          ///< shifted | prefix | window | pieces
  std::int64_t prefixes_per_user = 0;             ///< drawn each epoch; 0: all
  std::int64_t window_stride = 0;                 ///< of windows, or length of pieces; 0: the longest there can be
  std::string loss_type = "CE";                   ///< CE | BCE | gBCE | SSM (sampled softmax)
  std::int64_t negatives = 1;                     ///< drawn for a target (or shared by several) by all losses but CE
  std::string negative_distribution = "uniform";  ///< uniform | popularity
  double negative_alpha = 1;                      ///< power of popularity
  std::string negative_scope = "position";        ///< position | sequence | batch: who shares negatives
  std::string negative_exclude = "none";          ///< none | target | history
  bool negative_replacement = true;
  bool logq = false;                 ///< SSM: scores corrected by the log probability of being drawn
  double gbce_t = 0.75;              ///< calibration of gBCE
  std::string bce_average = "none";  ///< none | samples | negatives
  std::int64_t eval_step = 1;        ///< epochs between validations
  std::int64_t stopping_step = 10;   ///< validations without improvement before stopping; 0: never
  std::string valid_metric = "NDCG@10";
  std::int64_t checkpoint_steps = 0;  ///< steps between checkpoints, beside one after each epoch
  std::int64_t seed = 42;
  std::string start_from;  ///< directory of a run whose weights are begun with, items matched by id; empty: none
  bool flush_denormals = true;
  bool detect_anomaly = false;  ///< search every op's values for NaN and infinity
};

struct EvaluationConfig {
  std::vector<std::int64_t> topk = {10};
  std::string filter_seen = "full";       ///< none | full
  std::string rank_ties = "mean";         ///< mean | pessimistic | optimistic
  std::string candidates = "all";         ///< all | train
  std::string mode = "full";              ///< full | uniN | popN: ranked among N drawn negatives
  std::string negatives_exclude = "all";  ///< all | history | training: the user's items that are never drawn
  bool negatives_replacement = true;
  std::int64_t sampling_seed = 0;  ///< of negatives and of chosen users: the same for every model and training seed
  std::int64_t valid_users = 0;    ///< at most so many users, drawn once, are validated on; 0: all
  std::int64_t test_users = 0;     ///< likewise for the test
};

struct RunConfig {
  std::string protocol;  ///< a name of protocol.h, whose values stand where the config says nothing; empty: none
  DataConfig data;
  ModelConfig model;
  TrainConfig train;
  EvaluationConfig evaluation;
  std::string output = "runs";  ///< directory that run directories go into
  bool keep_histories = true;   ///< in the run directory, so that it recommends for its users without the data
  std::string show_user;        ///< user id whose recommendations are printed at the end; empty: the first test user
};

/// `auto` replaced by what it stands for: the form that the file's name tells, and the form's column of times (with
/// `columns` of its own: "timestamp" if it is among them).
DataConfig resolved(DataConfig data);

/// Throws ConfigError for an unknown key (naming the nearest), a value of another type, or one outside its domain.
RunConfig parse_config(const Json& json);
/// Every value, defaults included: what the run directory records.
Json to_json(const RunConfig& config);
/// The dotted path of every value with the value, in the order of to_json().
std::vector<std::pair<std::string, Json>> flattened(const Json& config);

/// "uni100" and "pop100", taken apart; nothing for "full". Throws ConfigError for another form.
struct SamplingMode {
  bool popularity = false;
  std::int64_t count = 0;
};
std::optional<SamplingMode> parse_mode(const std::string& mode);

/// "NDCG@10", taken apart.
struct MetricName {
  std::string kind;  ///< NDCG | HR | Recall | MRR
  std::int64_t k = 0;
};
/// Throws ConfigError for another form, and for a cut-off that `evaluation` does not have.
MetricName parse_metric(const std::string& name, const EvaluationConfig& evaluation);

/// Applies `key=value` to a config, `key` dotted ("train.learning_rate") or, when only one section has it, bare
/// ("learning_rate"). The value is JSON, or else text. Throws ConfigError for an unknown or ambiguous key, and for one
/// that lies within a value.
void apply_override(Json& config, const std::string& assignment);

/// One value of a config and who set it: "default", "protocol klenitskiy", the file, or "--key=value".
struct ConfigValue {
  std::string key;
  Json value;
  std::string origin;
};

/// A config file with overrides applied. Paths of data are relative to the file, so that a config works from any
/// directory. Throws ConfigError, also when the file cannot be read.
RunConfig load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});
/// The same for a config that stands in another file, as a study's does: its data paths are relative to `directory`.
RunConfig load_config(Json json, const std::filesystem::path& directory, const std::vector<std::string>& overrides);
/// Every value of what load_config() gives, and where it came from.
std::vector<ConfigValue> explain_config(const std::filesystem::path& path,
                                        const std::vector<std::string>& overrides = {});

}  // namespace tally::recsys
