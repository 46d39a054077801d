"""The discriminator and its relatives: pooling, spectral normalisation, pipelines, positions of logits."""

import pytest
import torch
from transformers import AttentionInterface, PreTrainedTokenizerFast, pipeline

from hf_gpt import (
    HfGptConfig,
    HfGptForCausalLM,
    HfGptForQuestionAnswering,
    HfGptForSequenceClassification,
    HfGptModel,
)
from hf_gpt.models.pooling_hf_gpt import HfGptSpectralLinear


def discriminator(**options):
    config = HfGptConfig.preset(
        "nano", vocab_size=64, num_labels=1, pad_token_id=0, output_projection_init="normal", **options
    )
    return HfGptForSequenceClassification(config).eval()


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("pooling", ["last", "mean", "attention"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_the_score(pooling, side, is_causal):
    model = discriminator(classifier_pooling=pooling, is_causal=is_causal)
    if pooling == "attention":
        torch.nn.init.normal_(model.pooler.query)
    ids = torch.randint(1, 64, (1, 8))
    pads = torch.zeros(1, 5, dtype=torch.long)
    padded = torch.cat([pads, ids] if side == "left" else [ids, pads], dim=1)
    mask = (padded != 0).long()
    expected = model(ids).logits
    torch.testing.assert_close(model(padded, attention_mask=mask).logits, expected, rtol=0.0, atol=1e-5)
    if side == "right" and is_causal:
        torch.testing.assert_close(model(padded).logits, expected, rtol=0.0, atol=1e-5)


def test_end_of_text_counts_even_when_it_is_the_padding_token():
    model = discriminator()
    ids = torch.tensor([[5, 6, 7, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    expected = model(ids[:, :4], attention_mask=mask[:, :4]).logits
    torch.testing.assert_close(model(ids, attention_mask=mask).logits, expected, rtol=0.0, atol=1e-5)
    assert not torch.allclose(expected, model(ids[:, :3]).logits)


def test_score_is_linear_in_the_features():
    model = discriminator(classifier_pooling="mean")
    ids = torch.randint(1, 64, (3, 6))
    features = model.model(ids).last_hidden_state.mean(1)
    expected = features @ model.score.weight.T + model.score.bias
    torch.testing.assert_close(model(ids).logits, expected, rtol=0.0, atol=1e-5)


def test_bidirectional_head_sees_the_future():
    ids = torch.randint(1, 64, (1, 8))
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] % 62) + 1
    for is_causal in (True, False):
        model = discriminator(is_causal=is_causal).model
        first = [model(x).last_hidden_state[0, 0] for x in (ids, changed)]
        assert torch.allclose(*first) == is_causal


def test_spectral_norm_bounds_the_slope():
    layer = HfGptSpectralLinear(20, 10)
    layer.weight.data.mul_(50)
    layer.train()
    x = torch.randn(4, 20)
    for _ in range(100):
        layer(x)
    layer.eval()
    before = layer.left_vector.clone()
    effective = layer(torch.eye(20)) - layer.bias
    assert torch.linalg.matrix_norm(effective, ord=2).item() == pytest.approx(1, abs=1e-3)
    assert torch.equal(layer.left_vector, before)


def test_spectral_state_survives_saving(tmp_path):
    model = discriminator(classifier_spectral_norm=True, classifier_hidden_size=8)
    model.train()(torch.randint(1, 64, (2, 5)), labels=torch.tensor([0, 1]))
    model.save_pretrained(tmp_path)
    loaded = HfGptForSequenceClassification.from_pretrained(tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def byte_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<pad>": 0, **{c: i + 1 for i, c in enumerate(alphabet)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


def test_pipeline_gives_a_probability():
    model = HfGptForSequenceClassification(
        HfGptConfig.preset("nano", vocab_size=257, num_labels=1, pad_token_id=0)
    ).eval()
    tokenizer = byte_tokenizer()
    score = pipeline("text-classification", model=model, tokenizer=tokenizer)("to be or not")[0]["score"]
    logit = model(**tokenizer("to be or not", return_tensors="pt")).logits
    assert score == pytest.approx(torch.sigmoid(logit).item(), abs=1e-6)


def test_question_answering_ignores_answers_past_the_input():
    model = HfGptForQuestionAnswering(HfGptConfig.preset("nano", vocab_size=64)).eval()
    ids = torch.randint(1, 64, (2, 8))
    inside = model(ids[:1], start_positions=torch.tensor([2]), end_positions=torch.tensor([3])).loss
    both = model(ids, start_positions=torch.tensor([2, 99]), end_positions=torch.tensor([3, 99])).loss
    torch.testing.assert_close(both, inside)


def test_logits_to_keep_in_all_its_forms():
    model = HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=64, output_projection_init="normal")).eval()
    ids = torch.randint(1, 64, (2, 8))
    full = model(ids).logits
    mask = torch.rand(2, 8) < 0.5
    rows = torch.tensor([[1, 3], [0, 7]])
    for keep, expected in (
        (0, full),
        (3, full[:, -3:]),
        (torch.tensor([2, 5]), full[:, [2, 5]]),
        (rows, torch.stack([full[0, [1, 3]], full[1, [0, 7]]])),
        (mask, full[mask]),
    ):
        actual = model(ids, logits_to_keep=keep).logits
        assert actual.shape == expected.shape
        torch.testing.assert_close(actual, expected, rtol=0.0, atol=1e-5)


def test_head_is_tied_only_when_asked(tmp_path):
    for tied in (True, False):
        model = HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=64, tie_word_embeddings=tied))
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
        model.save_pretrained(tmp_path / str(tied))
        loaded = HfGptForCausalLM.from_pretrained(tmp_path / str(tied))
        assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


def test_keyword_arguments_reach_attention_as_vllm_sends_them():
    """vLLM calls the base model with one row of packed tokens and looks its own attention up by layer index."""
    seen = []

    def attention(module, query, key, value, attention_mask, scaling=None, attention_instances=None, **kwargs):
        seen.append((attention_instances[module.layer_idx], attention_mask))
        return torch.zeros_like(query).transpose(1, 2), None

    AttentionInterface.register("recorded", attention)
    config = HfGptConfig.preset("nano", vocab_size=64)
    model = HfGptModel._from_config(config, attn_implementation="recorded").eval()
    output = model(
        input_ids=torch.randint(1, 64, (1, 6)),
        use_cache=False,
        position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]),
        attention_instances={i: f"layer {i}" for i in range(4)},
        return_dict=False,
    )
    assert output[0][0].shape == (6, 128)
    assert seen == [(f"layer {i}", None) for i in range(4)]


@pytest.mark.parametrize(("choice", "std"), [("zeros", 0.0), ("scaled", 0.02 / 8**0.5), ("normal", 0.02)])
def test_output_projections_start_as_configured(choice, std):
    model = HfGptModel(HfGptConfig.preset("nano", vocab_size=64, output_projection_init=choice))
    for layer in model.layers:
        for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
            assert projection.weight.std().item() == pytest.approx(std, rel=0.1)
        assert layer.self_attn.v_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_dropout_acts_in_training_only():
    config = HfGptConfig.preset("nano", vocab_size=64, hidden_dropout=0.5, attention_dropout=0.5)
    model = HfGptModel(config)
    ids = torch.randint(1, 64, (1, 6))
    train, evaluate = ([getattr(model, mode)()(ids).last_hidden_state for _ in range(2)] for mode in ("train", "eval"))
    assert not torch.equal(*train)
    assert torch.equal(*evaluate)
