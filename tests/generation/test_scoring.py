"""Scores of texts and prefixes against the model's own forward pass, one text at a time and without padding."""

import pytest
import torch

from hf_gpt.generation.scoring.discriminator import (
    discriminator_logits,
    embedding_logits,
    prefix_scores,
    sequence_scores,
)


CAUSAL = {
    "hf_gpt last": ("hf_gpt", {}),
    "hf_gpt mean": ("hf_gpt", {"classifier_pooling": "mean"}),
    "hf_gpt attention": ("hf_gpt", {"classifier_pooling": "attention", "classifier_hidden_size": 8}),
    "hf_gpt learned positions": ("hf_gpt", {"position_embedding_type": "learned"}),
    "n-gram CNN": ("hf_ngram_cnn", {"num_highway_layers": 1}),
    "n-gram CNN mean": ("hf_ngram_cnn", {"classifier_pooling": "mean"}),
    "llama": ("llama", {}),
    "qwen3": ("qwen3", {"head_dim": 8, "num_key_value_heads": 1}),
    "gpt2": ("gpt2", {"n_inner": 24}),
}
OTHERS = {
    "bert": ("bert", {}),
    "bidirectional hf_gpt": ("hf_gpt", {"is_causal": False, "classifier_pooling": "mean"}),
    "centred n-gram CNN": ("hf_ngram_cnn", {"is_causal": False}),
}
LENGTHS = [5, 9, 3, 9, 1]


def make_texts() -> list[torch.Tensor]:
    return [torch.randint(3, 40, (length,)) for length in LENGTHS]


def pad(texts: list[torch.Tensor], side: str, filler: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(text) for text in texts) + 2
    ids = torch.full((len(texts), longest), filler)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        position = slice(0, len(text)) if side == "right" else slice(longest - len(text), longest)
        ids[row, position], mask[row, position] = text, 1
    return ids, mask


def randomise(model):
    """Weights that start as zeros, such as an attention query, would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", [*CAUSAL, *OTHERS])
def test_sequence_scores_are_those_of_each_text_alone(make_discriminator, name, side):
    model_type, options = {**CAUSAL, **OTHERS}[name]
    model = randomise(make_discriminator(model_type, **options))
    texts = make_texts()
    with torch.no_grad():
        alone = torch.cat([model(input_ids=text[None]).logits[:, 0] for text in texts])
    assert alone.std() > 0.01
    ids, mask = pad(texts, side, filler=7)
    for batch_size in (None, 2):
        scores = sequence_scores(model, ids, mask, batch_size=batch_size)
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CAUSAL)
def test_prefix_scores_are_those_of_each_prefix_alone(make_discriminator, name, side):
    model_type, options = CAUSAL[name]
    model = randomise(make_discriminator(model_type, **options))
    texts = make_texts()
    ids, mask = pad(texts, side)
    scores = prefix_scores(model, ids, mask, batch_size=3)
    assert scores.shape == ids.shape and (scores[mask == 0] == 0).all()
    for row, text in enumerate(texts):
        with torch.no_grad():
            alone = torch.cat([model(input_ids=text[None, :end]).logits[:, 0] for end in range(1, len(text) + 1)])
        torch.testing.assert_close(scores[row][mask[row] == 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_a_discriminator_that_sees_ahead_is_refused_or_recomputed(make_discriminator, name):
    model_type, options = OTHERS[name]
    model = randomise(make_discriminator(model_type, **options))
    ids, mask = pad(make_texts(), "left")
    with pytest.raises(ValueError, match=r"recompute=True"):
        prefix_scores(model, ids, mask)
    scores = prefix_scores(model, ids, mask, recompute=True)
    text = ids[1][mask[1] == 1]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=text[None, :end]).logits[:, 0] for end in range(1, len(text) + 1)])
    torch.testing.assert_close(scores[1][mask[1] == 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pad_token_id", [None, 2])
def test_an_end_of_text_token_that_pads_as_well_counts(make_discriminator, pad_token_id):
    """The library's own Llama head stops before such a token, and refuses a batch without a padding token."""
    model = make_discriminator("llama", pad_token_id=pad_token_id)
    reference = make_discriminator("llama", pad_token_id=0)
    model.load_state_dict(reference.state_dict())
    ids, mask = pad([torch.tensor([5, 6, 2]), torch.tensor([5, 6, 7, 8, 2])], "right", filler=2)
    with torch.no_grad():
        expected = torch.cat([reference(ids[:1, :3]).logits[:, 0], reference(ids[1:, :5]).logits[:, 0]])
    torch.testing.assert_close(sequence_scores(model, ids, mask), expected)
    torch.testing.assert_close(prefix_scores(model, ids, mask)[[0, 1], [2, 4]], expected)


def test_gradients_of_logits_are_those_of_the_forward_pass(make_discriminator):
    for model_type in ("llama", "hf_gpt", "hf_ngram_cnn", "bert"):
        model = make_discriminator(model_type)
        ids, mask = pad(make_texts()[:2], "left")
        discriminator_logits(model, ids, mask).sum().backward()
        ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        for row in range(2):
            model(input_ids=ids[row][mask[row] == 1][None]).logits.sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_scoring_leaves_modes_and_dropout_alone(make_discriminator):
    model = make_discriminator("hf_gpt", hidden_dropout=0.5).train()
    model.model.layers[0].eval()
    ids = torch.randint(3, 40, (4, 6))
    first, second = sequence_scores(model, ids), sequence_scores(model, ids)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert model.training and not model.model.layers[0].training and model.model.layers[1].training
    assert not first.requires_grad


def test_more_labels_are_refused(make_discriminator):
    model = make_discriminator("hf_gpt", num_labels=2)
    with pytest.raises(ValueError, match="2 labels"):
        sequence_scores(model, torch.ones(1, 3, dtype=torch.long))


def test_an_adapted_discriminator_scores_with_its_adapter(make_discriminator):
    peft = pytest.importorskip("peft")
    for model_type in ("llama", "hf_gpt"):
        config = peft.LoraConfig(task_type="SEQ_CLS", init_lora_weights=False, target_modules=["q_proj", "v_proj"])
        model = peft.get_peft_model(make_discriminator(model_type), config).eval()
        ids = torch.randint(3, 40, (2, 6))
        with torch.no_grad():
            expected = model(input_ids=ids).logits[:, 0]
        torch.testing.assert_close(sequence_scores(model, ids), expected)
        torch.testing.assert_close(prefix_scores(model, ids)[:, -1], expected)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CAUSAL)
def test_embeddings_score_as_their_tokens(make_discriminator, name, side):
    """At the last token of the mask, where the library's decoders would take padding."""
    model_type, options = CAUSAL[name]
    model = randomise(make_discriminator(model_type, **options))
    ids, mask = pad(make_texts(), side, filler=7)
    with torch.no_grad():
        embeddings = model.get_input_embeddings()(ids) * mask[..., None]
        found, expected = embedding_logits(model, embeddings, mask), discriminator_logits(model, ids, mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
