"""The n-gram CNN: hand-worked convolutions, padding, prefixes, gradients, presets, and the checkpoint's own code."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel, AutoModelForSequenceClassification

from hf_gpt import HfNgramCnnConfig, HfNgramCnnForSequenceClassification, HfNgramCnnModel


def make_discriminator(**options) -> HfNgramCnnForSequenceClassification:
    settings = {"vocab_size": 30, "embedding_size": 8, "kernel_sizes": [1, 2, 5], "num_labels": 1}
    return HfNgramCnnForSequenceClassification(HfNgramCnnConfig(**{**settings, **options})).eval()


def test_bigram_filter_by_hand():
    """One filter of width 2 over one-number embeddings: relu(a * previous + b * current + c), then its maximum."""
    discriminator = make_discriminator(vocab_size=4, embedding_size=1, kernel_sizes=[2], num_filters=[1])
    with torch.no_grad():
        discriminator.model.embed_tokens.weight[:, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
        discriminator.model.convolutions.filters[0].weight[0, 0] = torch.tensor([10.0, -1.0])
        discriminator.model.convolutions.filters[0].bias[0] = 0.5
        discriminator.score.weight[0, 0], discriminator.score.bias[0] = 2.0, -7.0
    ids = torch.tensor([[1, 3, 2]])
    # Windows (nothing, 1), (1, 3), (3, 2): -1 + .5 -> 0; 10 - 3 + .5 = 7.5; 30 - 2 + .5 = 28.5.
    assert discriminator.model(ids).last_hidden_state.flatten().tolist() == [0.0, 7.5, 28.5]
    assert discriminator(ids).logits.item() == 2 * 28.5 - 7
    assert discriminator.prefix_logits(ids).flatten().tolist() == [-7.0, 8.0, 50.0]
    discriminator.pooler.pooling = "mean"
    assert discriminator(ids).logits.item() == pytest.approx(2 * 36 / 3 - 7)
    assert discriminator.prefix_logits(ids).flatten().tolist() == pytest.approx([-7.0, 2 * 3.75 - 7, 17.0])


def test_centred_window_by_hand():
    discriminator = make_discriminator(
        vocab_size=4, embedding_size=1, kernel_sizes=[3], num_filters=[1], is_causal=False, hidden_act="linear"
    )
    with torch.no_grad():
        discriminator.model.embed_tokens.weight[:, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
        discriminator.model.convolutions.filters[0].weight[0, 0] = torch.tensor([100.0, 10.0, 1.0])
        discriminator.model.convolutions.filters[0].bias[0] = 0.0
    assert discriminator.model(torch.tensor([[1, 3, 2]])).last_hidden_state.flatten().tolist() == [13.0, 132.0, 320.0]
    with pytest.raises(ValueError, match="is_causal=False"):
        discriminator.prefix_logits(torch.tensor([[1, 3, 2]]))


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("hidden_act", ["relu", "tanh"])
def test_padding_never_counts(is_causal, pooling, hidden_act):
    discriminator = make_discriminator(
        is_causal=is_causal, classifier_pooling=pooling, hidden_act=hidden_act, num_highway_layers=2, pad_token_id=3
    )
    ids = torch.tensor([[5, 3, 9, 7]])  # The padding token inside the text is a token like any other.
    alone = discriminator(ids, attention_mask=torch.ones_like(ids)).logits
    junk = torch.tensor([[11, 3, 29]])
    right = discriminator(torch.cat([ids, junk], 1), attention_mask=torch.tensor([[1] * 4 + [0] * 3])).logits
    left = discriminator(torch.cat([junk, ids], 1), attention_mask=torch.tensor([[0] * 3 + [1] * 4])).logits
    torch.testing.assert_close(right, alone, rtol=0, atol=1e-7)
    torch.testing.assert_close(left, alone, rtol=0, atol=1e-7)
    without_mask = discriminator(torch.tensor([[5, 9, 7, 3, 3]])).logits
    torch.testing.assert_close(without_mask, discriminator(torch.tensor([[5, 9, 7]])).logits, rtol=0, atol=1e-7)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_prefixes_in_one_pass_equal_shortened_texts(pooling):
    discriminator = make_discriminator(
        classifier_pooling=pooling, num_highway_layers=1, hidden_act="tanh", num_labels=2
    )
    ids = torch.randint(30, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    prefixes = discriminator.prefix_logits(ids, mask)
    assert prefixes.shape == (3, 9, 2)
    for end in range(3, 10):
        whole = discriminator(ids[:, :end], attention_mask=mask[:, :end]).logits
        torch.testing.assert_close(prefixes[:, end - 1], whole, rtol=0, atol=1e-6)


def test_an_empty_text_has_a_finite_score():
    discriminator = make_discriminator(hidden_act="tanh")
    ids = torch.randint(30, (2, 4))
    logits = discriminator(ids, attention_mask=torch.tensor([[0] * 4, [1] * 4])).logits
    assert logits[0].item() == pytest.approx(discriminator.score.bias.item())
    assert torch.isfinite(logits).all()


def test_gradient_reaches_the_embeddings_and_a_penalty_on_it_the_weights():
    discriminator = make_discriminator(num_highway_layers=1, classifier_spectral_norm=True)
    embeds = torch.randn(2, 6, 8, dtype=torch.double, requires_grad=True)
    discriminator.double()
    assert torch.autograd.gradcheck(lambda x: discriminator(inputs_embeds=x).logits, embeds)
    logits = discriminator(inputs_embeds=embeds).logits
    (gradient,) = torch.autograd.grad(logits.sum(), embeds, create_graph=True)
    gradient.square().sum().backward()
    for convolution in discriminator.model.convolutions.filters:
        assert convolution.weight.grad.abs().sum() > 0
    one_hot = torch.nn.functional.one_hot(torch.arange(5), 30).double()[None] @ discriminator.model.embed_tokens.weight
    torch.testing.assert_close(discriminator(inputs_embeds=one_hot).logits, discriminator(torch.arange(5)[None]).logits)


def test_one_label_trains_with_binary_cross_entropy_and_several_with_classes():
    ids = torch.randint(30, (4, 6))
    discriminator = make_discriminator()
    labels = torch.tensor([1.0, 0.0, 0.9, 0.0])
    output = discriminator(ids, labels=labels)
    expected = torch.nn.functional.binary_cross_entropy(output.logits.sigmoid()[:, 0], labels)
    torch.testing.assert_close(output.loss, expected)
    classes = torch.tensor([2, 0, 1, 1])
    output = make_discriminator(num_labels=3)(ids, labels=classes)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, classes))


def test_presets():
    config = HfNgramCnnConfig.preset("seqgan", vocab_size=5000, num_labels=1)
    assert (sum(config.num_filters), config.hidden_size, len(config.kernel_sizes)) == (1720, 1720, 12)
    small = HfNgramCnnForSequenceClassification(HfNgramCnnConfig.preset("small", vocab_size=100, num_labels=1))
    # Embeddings, five convolutions of 64 filters with their biases, and W and b.
    assert small.num_parameters() == 100 * 64 + 64 * 64 * (1 + 2 + 3 + 4 + 5) + 5 * 64 + 5 * 64 + 1
    assert HfNgramCnnConfig(hidden_size=10, kernel_sizes=[1, 2, 3]).num_filters == [4, 3, 3]
    with pytest.raises(ValueError, match="Choose one of: small, seqgan"):
        HfNgramCnnConfig.preset("huge")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_sizes": [1, 0]}, "kernel_sizes"),
        ({"kernel_sizes": []}, "kernel_sizes"),
        ({"kernel_sizes": [1, 2], "num_filters": [3]}, "an entry for each of kernel_sizes"),
        ({"hidden_size": 7, "kernel_sizes": [1], "num_filters": [3]}, "leave one of the two out"),
        ({"classifier_dropout": 1.0}, "below 1"),
        ({"hidden_act": "mystery"}, "hidden_act"),
        ({"classifier_pooling": "last"}, "classifier_pooling"),
    ],
)
def test_settings_that_cannot_work(options, message):
    with pytest.raises(StrictDataclassError) as caught:
        HfNgramCnnConfig(**options)
    assert message in f"{caught.value} {caught.value.__cause__}"


def test_highway_starts_close_to_the_identity():
    discriminator = make_discriminator(num_highway_layers=1, initializer_range=0.0, highway_bias=-30.0)
    pooled = torch.rand(2, discriminator.config.hidden_size)
    torch.testing.assert_close(discriminator.highway[0](pooled), pooled)


def test_checkpoint_opens_by_auto_class(tmp_path):
    discriminator = make_discriminator(num_highway_layers=1)
    discriminator.save_pretrained(tmp_path)
    ids = torch.arange(12).reshape(2, 6)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again) is HfNgramCnnForSequenceClassification
    torch.testing.assert_close(again(ids).logits, discriminator(ids).logits, rtol=0, atol=1e-6)
    assert type(AutoModel.from_pretrained(tmp_path)) is HfNgramCnnModel
