#include "tally/nn/attention/attention_kinds.h"

#include "tally/nn/attention/dispatcher.h"
#include "tally/nn/attention/efficient.h"
#include "tally/nn/attention/fixed_memory.h"
#include "tally/nn/attention/galerkin.h"
#include "tally/nn/attention/gated_slot.h"
#include "tally/nn/attention/histogram.h"
#include "tally/nn/attention/hstu.h"
#include "tally/nn/attention/lambda.h"
#include "tally/nn/attention/lightsans.h"
#include "tally/nn/attention/linear.h"
#include "tally/nn/attention/linear_memory.h"
#include "tally/nn/attention/linformer.h"
#include "tally/nn/attention/linrec.h"
#include "tally/nn/attention/lsh.h"
#include "tally/nn/attention/recgrela.h"
#include "tally/nn/attention/sinkhorn.h"
#include "tally/nn/attention/softmax.h"

namespace tally::nn {
namespace {

/// A row for settings of LinearMemoryKind.
template <Listed O>
AttentionRow linear_memory_row(const std::string& name, const std::string& summary, O defaults,
                               LinearMemoryParts (*parts_of)(const O& options)) {
  return {.name = name,
          .summary = summary,
          .options = std::move(defaults),
          .make = [name, parts_of](const AnyOptions& options, const AttentionSettings& settings, RngKey key) {
            return Attention(name, LinearMemoryKind::make(parts_of(options.as<O>()), settings, key));
          }};
}

AttentionKinds standard() {
  AttentionRow linformer =
      multi_head_row<LinformerCore>("linformer", "softmax over projected keys; has no causal form", LinformerOptions{});
  linformer.causal = false;
  AttentionRow lightsans = multi_head_row<LightSansCore>(
      "lightsans", "softmax over interests that gather the history (LightSANs); has no causal form",
      LightSansOptions{});
  lightsans.causal = false;
  AttentionRow galerkin{.name = "galerkin",
                        .summary = "products of normed keys and values over the number of rows, without a softmax",
                        .options = GalerkinOptions{},
                        .make = [](const AnyOptions& options, const AttentionSettings& settings, RngKey key) {
                          return Attention("galerkin", make_galerkin(options.as<GalerkinOptions>(), settings, key));
                        }};
  AttentionRow histogram = attention_row<HistogramKind>(
      "histogram", "LISA's tally of codewords, by codebooks of the layer's own", HistogramOptions{});
  histogram.smooth = false;
  return {
      "attention",
      {multi_head_row<SoftmaxCore>("softmax", "all earlier rows, without a matrix of scores", SoftmaxOptions{}),
       multi_head_row<SoftmaxCore>("softmax_materialized", "all earlier rows, with the matrix of scores",
                                   MaterializedOptions{}),
       multi_head_row<SoftmaxCore>("local", "softmax over the last `attention_block` rows", LocalOptions{}),
       multi_head_row<LinearAttentionCore>("linear_elu", "linear attention with elu + 1", NoOptions{}),
       multi_head_row<LinearAttentionCore>("linear_favor", "linear attention with positive random features",
                                           FavorOptions{}),
       multi_head_row<LshCore>("lsh", "softmax within buckets of a random hash", LshOptions{}),
       multi_head_row<SinkhornCore>("sinkhorn", "softmax over one's own and one softly sorted block",
                                    SinkhornOptions{}),
       multi_head_row<LinRecCore>("linrec", "linear attention of normed elu features, without a softmax",
                                  LinRecOptions{}),
       attention_row<HstuKind>("hstu", "silu of the scores in place of a softmax, and a gate (HSTU)", HstuOptions{}),
       multi_head_row<EfficientCore>("efficient", "queries softmaxed over features, keys over positions", NoOptions{}),
       attention_row<LambdaKind>("lambda", "softmax over positions and learned nearby offsets (lambda layers)",
                                 LambdaOptions{}),
       std::move(galerkin),
       attention_row<FixedMemoryKind>("fixed_memory", "a fixed number of contexts that rows write and read",
                                      MemoryContextsOptions{}),
       std::move(linformer),
       std::move(lightsans),
       std::move(histogram),
       attention_row<DispatcherKind>("dispatcher", "experts gather the history, and rows read them (ELASTIC)",
                                     DispatcherOptions{}),
       attention_row<RecGrelaKind>("recgrela", "rotary linear attention, gated, with a local shortcut (RecGRELA)",
                                   RecGrelaOptions{}),
       linear_memory_row<NoOptions>("retnet", "linear memories that decay at constant rates, rotary (RetNet)", {},
                                    [](const NoOptions&) { return retnet_parts(); }),
       linear_memory_row<NoOptions>("lightning", "the same at ALiBi's rates, of silu features (Lightning)", {},
                                    [](const NoOptions&) { return lightning_parts(); }),
       linear_memory_row<NoOptions>("gla", "linear memories whose channels the row lets decay (GLA)", {},
                                    [](const NoOptions&) { return gla_parts(); }),
       linear_memory_row<GatedDeltaOptions>(
           "deltanet", "memories corrected by the delta rule, after a short convolution (DeltaNet)", {},
           deltanet_parts),
       linear_memory_row<GatedDeltaOptions>("gated_deltanet", "the same, which the row lets decay (Gated DeltaNet)", {},
                                            gated_deltanet_parts),
       linear_memory_row<TimeDecayOptions>(
           "time_decay", "linear memories that decay by events and by the time between them", {}, time_decay_parts),
       attention_row<GatedSlotKind>("gated_slot", "slots that the row lets decay and writes, read by a softmax (GSA)",
                                    GatedSlotOptions{})}};
}

}  // namespace

Attention make_attention(const AttentionChoice& choice, const AttentionSettings& settings, RngKey key) {
  const AttentionRow& row = choice.row();
  check<ValueError>(settings.heads > 0 && settings.width % settings.heads == 0, row.name,
                    "needs a width that divides by the heads; got width ", settings.width, ", heads ", settings.heads);
  check<ValueError>(row.causal || settings.mask == ops::AttentionMask::bidirectional, row.name,
                    "has no causal form: a row would see what follows it");
  return row.make(choice.options, settings, key);
}

const AttentionKinds& attention_kinds() {
  static const AttentionKinds all = standard();
  return all;
}

}  // namespace tally::nn
