#include "tally/recsys/config/tables.h"

#include "tally/recsys/models/elastic.h"
#include "tally/recsys/models/gru4rec.h"
#include "tally/recsys/models/lisa.h"
#include "tally/recsys/models/recgrela.h"
#include "tally/recsys/models/sasrec.h"

namespace tally::recsys {
namespace {

// What a config sets of a loss, of a learner. What is common to all stands in the section itself.

/// What scope and exclusion of negatives need of one another; the samplers' messages, with the keys of the section.
void check_negatives(const NegativeSampling& negatives, const std::string& section) {
  using Scope = NegativeSampling::Scope;
  using Exclude = NegativeSampling::Exclude;
  const std::string exclude = section + ".negative_exclude";
  check<ConfigError>(negatives.exclude != Exclude::target || negatives.scope == Scope::position, exclude,
                     "needs negative_scope position to exclude the target; got ", word_of(negatives.scope));
  check<ConfigError>(negatives.exclude != Exclude::history || negatives.scope != Scope::batch, exclude,
                     "needs negative_scope position or sequence to exclude the history; got batch");
}

void check_replacement(bool can_be_false, const char* loss, const NegativeSampling& negatives,
                       const std::string& section) {
  check<ConfigError>(negatives.replacement || can_be_false, section + ".negative_replacement",
                     "can be false with loss_type SSM and negative_scope sequence or batch alone; got ", loss, " and ",
                     word_of(negatives.scope));
}

struct BinaryKeys {
  NegativeSampling negatives;
  LossOptions::Average average = LossOptions::Average::none;
  static void keys(auto& o, auto&& key) {
    key(o.negatives);
    key("bce_average", o.average,
        "`none`: sum of target and negatives (SASRec); `samples`: their mean (gSASRec); `negatives`: mean of "
        "negatives (LISA)");
  }
  void check(const std::string& section) const {
    check_negatives(negatives, section);
    check_replacement(false, "BCE", negatives, section);
  }
};

struct CalibratedKeys {
  BinaryKeys binary;
  double calibration = 0.75;
  static void keys(auto& o, auto&& key) {
    key(o.binary);
    key("gbce_t", o.calibration, share(), "calibration t of gBCE; 0: plain BCE");
  }
  void check(const std::string& section) const {
    const NegativeSampling::Distribution distribution = binary.negatives.distribution;
    tally::check<ConfigError>(distribution == NegativeSampling::Distribution::uniform,
                              section + ".negative_distribution", "needs uniform negatives for gBCE; got ",
                              word_of(distribution));
  }
};

struct SoftmaxKeys {
  NegativeSampling negatives;
  bool log_q = false;
  static void keys(auto& o, auto&& key) {
    key(o.negatives);
    key("logq", o.log_q, "scores of targets and negatives are corrected by log q, the probability of being drawn");
  }
  void check(const std::string& section) const {
    check_negatives(negatives, section);
    check_replacement(negatives.scope != NegativeSampling::Scope::position, "SSM", negatives, section);
  }
};

LossOptions binary_loss(const BinaryKeys& keys, double calibration = 0) {
  return {.kind = LossOptions::Kind::binary_cross_entropy,
          .negatives = keys.negatives,
          .average = keys.average,
          .gbce_calibration = calibration};
}

template <class Keys>
LossRow standard_loss(const std::string& name, const std::string& summary, LossOptions (*options_of)(const Keys&)) {
  return {.name = name,
          .summary = summary,
          .options = Keys{},
          .make = [options_of](const AnyOptions& options, const LossData& data) {
            return std::make_shared<TrainingLoss>(options_of(options.as<Keys>()), data);
          }};
}

ChoiceTable<LossRow> standard_losses() {
  return {
      "train.loss_type",
      {standard_loss<NoOptions>("CE", "cross-entropy over all items", [](const NoOptions&) { return LossOptions{}; }),
       standard_loss<BinaryKeys>("BCE", "binary cross-entropy of the target and drawn negatives",
                                 [](const BinaryKeys& keys) { return binary_loss(keys); }),
       standard_loss<CalibratedKeys>(
           "gBCE", "the same, calibrated for the share of items that is drawn (arXiv 2308.07192)",
           [](const CalibratedKeys& keys) { return binary_loss(keys.binary, keys.calibration); }),
       standard_loss<SoftmaxKeys>(
           "SSM", "sampled softmax: cross-entropy over the target and drawn negatives", [](const SoftmaxKeys& keys) {
             return LossOptions{
                 .kind = LossOptions::Kind::sampled_softmax, .negatives = keys.negatives, .log_q = keys.log_q};
           })}};
}

struct AdamKeys {
  optim::AdamOptions adam;
  static void keys(auto& o, auto&& key) {
    key("beta1", o.adam.beta1, rate(), "decay of the mean of gradients");
    key("beta2", o.adam.beta2, rate(), "decay of the mean of their squares");
    key("weight_decay", o.adam.weight_decay, at_least(0), "decoupled (AdamW): of a step, times the learning rate");
  }
};

struct SgdKeys {
  optim::SgdOptions sgd;
  static void keys(auto& o, auto&& key) {
    key("weight_decay", o.sgd.weight_decay, at_least(0), "of the weights, added to the gradient");
  }
};

ChoiceTable<LearnerRow> standard_learners() {
  return {"train.learner",
          {{"adam", "Adam, and with a weight decay AdamW", AdamKeys{},
            [](const AnyOptions& o, double rate) {
              optim::AdamOptions adam = o.as<AdamKeys>().adam;
              adam.learning_rate = rate;
              return std::make_unique<optim::Adam>(adam);
            }},
           {"sgd", "stochastic gradient descent", SgdKeys{},
            [](const AnyOptions& o, double rate) {
              optim::SgdOptions sgd = o.as<SgdKeys>().sgd;
              sgd.learning_rate = rate;
              return std::make_unique<optim::Sgd>(sgd);
            }},
           {"adagrad", "Adagrad", {}, [](const AnyOptions&, double rate) {
              return std::make_unique<optim::Adagrad>(optim::AdagradOptions{rate});
            }}}};
}

ChoiceTable<ScheduleRow> standard_schedules() {
  const auto with = [](optim::Decay decay) {
    return [decay](const AnyOptions&, double rate, std::int64_t warmup, std::int64_t steps) {
      return optim::Schedule{.peak = rate, .warmup = warmup, .decay = decay, .total = steps};
    };
  };
  return {"train.decay",
          {{"constant", "the learning rate stays", {}, with(optim::Decay::constant)},
           {"cosine", "it falls to 0 along a half cosine, over all epochs", {}, with(optim::Decay::cosine)}}};
}

ChoiceTable<ModelRow> standard_models(const nn::AttentionKinds& attentions) {
  // Defaults of sizes are the same for all models, as they are in configs written so far.
  ModelRow lisa = model_row<Lisa>("lisa", "attention by codeword histogram over quantized items (WWW 2021)",
                                  LisaOptions{.width = 64, .layers = 2, .window = 200, .epsilon = 1e-8});
  lisa.check_differentiable = [](const AnyOptions& options) {
    const LisaVariant variant = options.as<LisaOptions>().variant;
    check<ConfigError>(
        variant == LisaVariant::soft, "model.lisa_variant",
        "passes gradients straight through hard codes, which no numeric derivative sees: check the variant "
        "soft, and the ops vector_quantization and histogram_attention against their surrogates; got ",
        word_of(variant));
  };
  return {"model.name",
          {model_row<Gru4Rec>("gru4rec", "gated recurrent units over item embeddings (ICLR 2016)",
                              Gru4RecOptions{.layers = 2, .dropout = 0.1}),
           model_row<SasRec>("sasrec", "a transformer over item embeddings (ICDM 2018)",
                             SasRecOptions{.attention = {causal_attentions(attentions), "softmax"}}),
           std::move(lisa),
           model_row<Elastic>("elastic", "dispatcher attention by experts of the user's interests (arXiv 2408.09380)",
                              elastic_options(attentions)),
           model_row<RecGrela>("recgrela", "gated rotary linear attention with a local shortcut (arXiv 2506.13315)",
                               recgrela_options(attentions))}};
}

}  // namespace

Tables standard(const nn::AttentionKinds& attentions) {
  // All but the models are the same for every program.
  static const Tables shared{.models = {"model.name", {}},
                             .attentions = nn::attention_kinds(),
                             .losses = standard_losses(),
                             .learners = standard_learners(),
                             .schedules = standard_schedules(),
                             .protocols = standard_protocols(),
                             .readers = standard_readers()};
  Tables all = shared;
  all.attentions = attentions;
  all.models = standard_models(attentions);
  return all;
}

}  // namespace tally::recsys
