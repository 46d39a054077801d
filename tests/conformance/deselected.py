"""Tests that Llama passes and one of our specs cannot: `specs::test` pattern -> reason.

Keep it short and true. The report fails on a pattern that matches nothing, and on any test that Llama passes and we
neither pass nor list here.
"""

from fnmatch import fnmatchcase

import transformers
from packaging.version import Version


NO_CAUSAL_LM = "bidirectional,discriminator,ngram_cnn"
BUILDS_CAUSAL_LM = "the test builds AutoModelForCausalLM, which these specs do not have"
ONE_LABEL = "a critic has one label and no other head"
LSTMS = "lstm,lstm_untied,lstm_plain"
NO_ATTENTION = "there is no attention, but an LSTM or convolutions"
NO_TP_PLAN = "an LSTM is not sharded by tensor parallelism: each step needs the whole state"

DESELECTED: dict[str, str] = {
    "gpt2_like,no_positions,ngram_cnn,seq2seq_separate::test_model_rope_scaling_*": (
        "there is no rotary embedding to scale"
    ),
    f"{NO_CAUSAL_LM}::test_causal_lm_*": BUILDS_CAUSAL_LM,
    f"{NO_CAUSAL_LM}::test_pipeline_text_generation*": BUILDS_CAUSAL_LM,
    f"{NO_CAUSAL_LM}::test_[fh]sdp*": BUILDS_CAUSAL_LM,
    f"{NO_CAUSAL_LM}::test_tp_forward_*": BUILDS_CAUSAL_LM,
    f"{NO_CAUSAL_LM}::test_tp_backward": BUILDS_CAUSAL_LM,
    f"{NO_CAUSAL_LM}::test_tp_generation*": BUILDS_CAUSAL_LM,
    f"{NO_CAUSAL_LM}::test_training_overfit": (
        "without a language model the test trains the sequence classifier, but with a label for each token"
    ),
    "discriminator,ngram_cnn::test_pipeline_token_classification*": ONE_LABEL,
    "ngram_cnn::test_attention_outputs": NO_ATTENTION,
    "ngram_cnn::test_can_set_attention_dynamically": NO_ATTENTION,
    "ngram_cnn::test_eager_matches_sdpa_inference_*": NO_ATTENTION,
    "ngram_cnn::test_sdpa_can_dispatch_non_composite_models": NO_ATTENTION,
    "ngram_cnn::test_fsdp_plan_declared": BUILDS_CAUSAL_LM,
    "ngram_cnn::test_tied_head_has_a_tp_plan_entry": "a few convolutions are not sharded over devices",
    "ngram_cnn::test_tp_plan_matches_params": "a few convolutions are not sharded over devices",
    "discriminator::test_pipeline_zero_shot*": ONE_LABEL,
    "seq2seq_untied,seq2seq_separate::test_inputs_embeds_matches_input_ids": (
        "the test embeds the target by the embeddings of the source"
    ),
    "lstm_plain::test_[fh]sdp*": "the test sets intermediate_size, and a plain LSTM has one width for all",
    f"{LSTMS}::test_attention_outputs": NO_ATTENTION,
    f"{LSTMS}::test_can_set_attention_dynamically": NO_ATTENTION,
    f"{LSTMS}::test_eager_matches_sdpa_inference_*": NO_ATTENTION,
    f"{LSTMS}::test_sdpa_can_dispatch_non_composite_models": NO_ATTENTION,
    f"{LSTMS}::test_model_rope_scaling_*": "there is no rotary embedding to scale",
    f"{LSTMS}::test_question_answering_model": "an LSTM has no head for answer spans",
    f"{LSTMS}::test_tp_plan_matches_params": NO_TP_PLAN,
    f"{LSTMS}::test_tied_head_has_a_tp_plan_entry": NO_TP_PLAN,
    f"{LSTMS}::test_tp_backward": NO_TP_PLAN,
    f"{LSTMS}::test_tp_forward_*": NO_TP_PLAN,
    f"{LSTMS}::test_tp_generation*": NO_TP_PLAN,
    "discriminator,ngram_cnn::test_question_answering_model": ONE_LABEL,
    "discriminator,ngram_cnn::test_token_classification_model": ONE_LABEL,
}


if Version(transformers.__version__) < Version("5.23"):
    DESELECTED["seq2seq,seq2seq_untied,seq2seq_separate::test_tp_plan_matches_params"] = (
        "this version adds `embed_tokens` to the plan of every tied model; an encoder-decoder has one in each half"
    )


def patterns_for(spec: str, test: str) -> list[str]:
    """Every pattern that matches."""
    matching = []
    for pattern in DESELECTED:
        specs, _, tests = pattern.partition("::")
        if spec in specs.split(",") and fnmatchcase(test, tests):
            matching.append(pattern)
    return matching


def reason_for(spec: str, test: str) -> str | None:
    """The reason why `test` is not run for `spec`, if there is one."""
    return next((DESELECTED[pattern] for pattern in patterns_for(spec, test)), None)
