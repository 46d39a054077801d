"""Tests that Llama passes and one of our specs cannot: `specs::test` pattern -> reason.

Keep it short and true. The report fails on a pattern that matches nothing, and on any test that Llama passes and we
neither pass nor list here.
"""

from fnmatch import fnmatchcase


NO_CAUSAL_LM = "bidirectional,discriminator,ngram_cnn"
BUILDS_CAUSAL_LM = "the test builds AutoModelForCausalLM, which these specs do not have"
ONE_LABEL = "a critic has one label and no other head"
NO_ATTENTION = "convolutions: there is no attention"

DESELECTED: dict[str, str] = {
    "gpt2_like,no_positions,ngram_cnn::test_model_rope_scaling_*": "there is no rotary embedding to scale",
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
    "discriminator,ngram_cnn::test_question_answering_model": ONE_LABEL,
    "discriminator,ngram_cnn::test_token_classification_model": ONE_LABEL,
}


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
