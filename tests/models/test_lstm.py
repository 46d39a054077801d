"""The LSTM: equal to cells run by hand, whatever the padding, packing and cache; and a state of constant size."""

import peft
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoModelForCausalLM

from hf_gpt import HfLstmConfig, HfLstmForCausalLM, HfLstmForSequenceClassification, HfLstmModel
from tests.conformance.specs import BY_NAME


TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
SPECS = ["lstm", "lstm_untied", "lstm_plain"]


def build(name="lstm", model_class=HfLstmForCausalLM, **overrides):
    torch.manual_seed(0)
    return model_class(BY_NAME[name].build_config(**{"initializer_range": 0.5, **overrides})).eval()


def tokens(*shape):
    return torch.randint(3, 99, shape)


def by_hand(model, ids):
    """Logits of one row by the equations of the LSTM, token by token."""
    states = [(0.0, 0.0) for _ in model.model.layers]
    logits = []
    for token in ids.tolist():
        inputs = model.model.embed_tokens.weight[token]
        for number, layer in enumerate(model.model.layers):
            lstm, (output, cell) = layer.lstm, states[number]
            gates = lstm.weight_ih_l0 @ inputs + lstm.bias_ih_l0 + lstm.bias_hh_l0
            gates = gates + lstm.weight_hh_l0 @ (torch.zeros(lstm.hidden_size) + output)
            enter, forget, candidate, leave = gates.chunk(4)
            cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
            output = leave.sigmoid() * cell.tanh()
            states[number] = output, cell
            inputs = output
        logit = model.lm_head.weight @ inputs
        if (cap := model.config.final_logit_softcapping) is not None:
            logit = cap * (logit / cap).tanh()
        logits.append(logit)
    return torch.stack(logits)


@pytest.mark.parametrize("name", SPECS)
def test_equals_the_equations(name):
    model = build(name)
    ids = tokens(2, 9)
    torch.testing.assert_close(model(ids).logits[1], by_hand(model, ids[1]), rtol=0.0, atol=1e-5)


def test_widths_lead_to_the_encoder_and_back():
    config = HfLstmConfig(vocab_size=99, hidden_size=12, intermediate_size=20, num_layers=4, num_decoder_layers=2)
    model = HfLstmForCausalLM(config)
    sizes = [(layer.lstm.input_size, layer.lstm.hidden_size) for layer in model.model.layers]
    assert sizes == [(12, 20), (20, 20), (20, 12), (12, 12)]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = tokens(1, 5)
    torch.testing.assert_close(model(ids).logits[0], by_hand(model, ids[0]), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("pattern", [[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 1, 0, 1]])
def test_padding_anywhere_leaves_the_state_as_it_is(name, pattern):
    model = build(name)
    mask = torch.tensor([pattern, [1] * 7])
    ids = tokens(2, 7)
    output = model(ids, attention_mask=mask, use_cache=True)
    alone = model(ids[:1, mask[0].bool()], use_cache=True)
    torch.testing.assert_close(output.logits[0, mask[0].bool()], alone.logits[0], **TOLERANCE)
    torch.testing.assert_close(output.logits[1], model(ids[1:]).logits[0], **TOLERANCE)
    for layer, expected in zip(output.past_key_values.layers, alone.past_key_values.layers, strict=True):
        torch.testing.assert_close((layer.keys[:1], layer.values[:1]), (expected.keys, expected.values), **TOLERANCE)


def test_row_of_padding_alone_keeps_its_state():
    model = build()
    begun = model(tokens(2, 4), use_cache=True).past_key_values
    before = [(layer.keys[0].clone(), layer.values[0].clone()) for layer in begun.layers]
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, 4:] = 0
    model(tokens(2, 3), attention_mask=mask, past_key_values=begun, use_cache=True)
    torch.testing.assert_close([(layer.keys[0], layer.values[0]) for layer in begun.layers], before, **TOLERANCE)
    nothing = model(tokens(1, 3), attention_mask=torch.zeros(1, 3)).logits
    assert torch.isfinite(nothing).all()


@pytest.mark.parametrize("name", SPECS)
def test_packed_documents_equal_separate_ones(name):
    model = build(name)
    lengths = [4, 1, 6]
    rows = [[tokens(1, length) for length in lengths] for _ in range(2)]
    position_ids = torch.cat([torch.arange(length) for length in lengths])[None]
    packed = model(torch.cat([torch.cat(row, 1) for row in rows]), position_ids=position_ids).logits
    separate = torch.cat([torch.cat([model(ids).logits for ids in row], 1) for row in rows])
    torch.testing.assert_close(packed, separate, **TOLERANCE)


def test_packed_gradients_equal_separate_ones():
    model = build().train()
    documents = [tokens(1, 9), tokens(1, 6)]
    ids = torch.cat(documents, 1)
    labels = ids.clone()
    labels[:, 9] = -100
    position_ids = torch.cat([torch.arange(9), torch.arange(6)])[None]
    model(ids, position_ids=position_ids, labels=labels, num_items_in_batch=13).loss.backward()
    packed = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    for document in documents:
        model(document, labels=document, num_items_in_batch=13).loss.backward()
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], packed, **TOLERANCE)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("cuts", [[1] * 12, [5, 1, 1, 5], [3, 9]])
def test_state_carried_over_equals_one_pass(name, cuts):
    """With the shorter row padded at the left, and the padding in a piece of its own."""
    model = build(name)
    ids = tokens(2, 12)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    cache, pieces, end = None, [], 0
    for length in cuts:
        start, end = end, end + length
        output = model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        pieces.append(output.logits)
    logits = torch.cat(pieces, 1)
    torch.testing.assert_close(logits[0, 3:], model(ids[:1, 3:]).logits[0], **TOLERANCE)
    torch.testing.assert_close(logits[1], model(ids[1:]).logits[0], **TOLERANCE)
    assert cache.get_seq_length() == 12


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generate_with_state_equals_full_forward(name, num_beams):
    model = build(name)
    ids = tokens(3, 6)
    ids[0, :4] = 0
    settings = {"attention_mask": (ids != 0).long(), "max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    settings |= {"num_beams": num_beams, "num_return_sequences": num_beams}
    expected = model.generate(ids, use_cache=False, **settings)
    for cache in ("dynamic", "static"):
        assert torch.equal(model.generate(ids, cache_implementation=cache, **settings), expected), cache
    alone = model.generate(ids[:1, 4:], **{**settings, "attention_mask": None})
    assert torch.equal(alone[:, 2:], expected[:num_beams, 6:])


def test_sampling_follows_the_seed_and_the_distribution():
    model = build("lstm_plain", initializer_range=1.0)
    ids = tokens(1, 3).expand(2000, 3)
    torch.manual_seed(0)
    samples = model.generate(ids, max_new_tokens=1, do_sample=True, top_k=0, eos_token_id=None)[:, -1]
    torch.manual_seed(0)
    again = model.generate(ids, max_new_tokens=1, do_sample=True, top_k=0, eos_token_id=None, use_cache=False)[:, -1]
    assert torch.equal(samples, again)
    expected = model(ids[:1]).logits[0, -1].softmax(-1)
    frequencies = torch.bincount(samples, minlength=99) / len(samples)
    # 2000 draws: three standard deviations of the likeliest token's frequency are at most 3 * sqrt(0.25 / 2000).
    assert (frequencies - expected).abs().max() < 0.034


def test_size_of_the_state_does_not_grow():
    model = build()
    sizes = []
    for length in (10, 200):
        cache = model(tokens(2, length), use_cache=True).past_key_values
        sizes.append([tuple(layer.keys.shape) for layer in cache.layers])
        assert cache.get_seq_length() == length
    assert sizes == [[(2, 40), (2, 32)]] * 2


def test_conversation_goes_on_from_its_state():
    model = build()
    ids = tokens(1, 5)
    settings = {"do_sample": False, "eos_token_id": None, "return_dict_in_generate": True}
    whole = model.generate(ids, max_new_tokens=10, **settings).sequences
    first = model.generate(ids, max_new_tokens=4, **settings)
    second = model.generate(first.sequences, max_new_tokens=6, past_key_values=first.past_key_values, **settings)
    assert torch.equal(second.sequences, whole)


def test_assistant_is_refused():
    model = build()
    with pytest.raises(ValueError, match="stateful"):
        model.generate(tokens(1, 4), assistant_model=build(), max_new_tokens=2)


def test_no_token_sees_a_later_one():
    model = build()
    ids = tokens(1, 8)
    changed = ids.clone()
    changed[0, 5] = 3 if ids[0, 5] != 3 else 4
    before, after = model(ids).logits[0], model(changed).logits[0]
    torch.testing.assert_close(before[:5], after[:5], rtol=0.0, atol=0.0)
    assert not torch.allclose(before[5], after[5])


def test_encoder_in_both_directions_is_for_classifiers():
    config = {"is_causal": False, "num_labels": 1, "classifier_pooling": "mean"}
    model = build(model_class=HfLstmForSequenceClassification, **config)
    ids = tokens(1, 6)
    pads = torch.zeros(1, 3, dtype=torch.long)
    expected = model(ids).logits
    for padded in (torch.cat([pads, ids], 1), torch.cat([ids, pads], 1)):
        torch.testing.assert_close(model(padded, attention_mask=(padded != 0).long()).logits, expected, **TOLERANCE)
    states = build(model_class=HfLstmModel, is_causal=False)(ids, output_hidden_states=True).hidden_states
    changed = ids.clone()
    changed[0, -1] = 3 if ids[0, -1] != 3 else 4
    others = build(model_class=HfLstmModel, is_causal=False)(changed, output_hidden_states=True).hidden_states
    assert not torch.allclose(states[1][0, 0], others[1][0, 0])
    with pytest.raises(ValueError, match="is_causal=False lets each token see"):
        build(is_causal=False)


def test_critic_scores_every_prefix_in_one_pass():
    model = build(model_class=HfLstmForSequenceClassification, num_labels=1, classifier_pooling="mean")
    ids = tokens(2, 6)
    expected = torch.stack([model(ids[:, :end]).logits for end in range(1, 7)], 1)
    torch.testing.assert_close(model.prefix_logits(ids), expected, **TOLERANCE)


@pytest.mark.parametrize("pooling", ["last", "mean", "attention"])
def test_critic_ignores_padding(pooling):
    model = build(model_class=HfLstmForSequenceClassification, num_labels=1, classifier_pooling=pooling)
    if pooling == "attention":
        torch.nn.init.normal_(model.pooler.query)
    ids = tokens(1, 6)
    pads = torch.zeros(1, 3, dtype=torch.long)
    for padded in (torch.cat([pads, ids], 1), torch.cat([ids, pads], 1)):
        actual = model(padded, attention_mask=(padded != 0).long()).logits
        torch.testing.assert_close(actual, model(ids).logits, **TOLERANCE)


def test_oracle_is_drawn_from_a_normal_distribution(tmp_path):
    """The random generator of the synthetic benchmark (https://arxiv.org/abs/1609.05473): everything from N(0, 1)."""
    config = HfLstmConfig(
        vocab_size=5000,
        hidden_size=32,
        num_layers=1,
        num_decoder_layers=0,
        tie_word_embeddings=False,
        lstm_init="normal",
        initializer_range=1.0,
        bos_token_id=0,
    )
    torch.manual_seed(0)
    oracle = HfLstmForCausalLM(config)
    for name, parameter in oracle.named_parameters():
        deviations = 5 / parameter.numel() ** 0.5
        assert abs(parameter.mean()) < deviations and abs(parameter.std() - 1) < deviations, name
    assert sum(parameter.numel() for parameter in oracle.parameters()) == 2 * 5000 * 32 + 4 * 32 * (32 + 32 + 2)
    oracle.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    texts = loaded.generate(max_new_tokens=20, do_sample=True, top_k=0, num_return_sequences=4)
    assert texts.shape == (4, 21) and (texts[:, 0] == 0).all()
    torch.testing.assert_close(loaded(texts, labels=texts).loss, oracle(texts, labels=texts).loss, **TOLERANCE)


def test_forget_gates_begin_open():
    lstm = HfLstmModel(BY_NAME["lstm"].build_config()).layers[0].lstm
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).view(4, -1)
    assert bias.mean(1).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert lstm.weight_hh_l0.abs().max() <= lstm.hidden_size**-0.5


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_equals_plain(use_reentrant):
    model = build().train()
    ids = tokens(2, 7)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], **TOLERANCE)


def test_lora_on_the_recurrent_weights():
    config = peft.LoraConfig(target_parameters=["lstm.weight_hh_l0"], r=2)
    model = peft.get_peft_model(build(), config)
    ids = tokens(1, 4)
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 2, "num_decoder_layers": 2}, "num_decoder_layers=2 must be at least 0 and below"),
        ({"num_decoder_layers": 0, "intermediate_size": 7}, "intermediate_size=7 must be hidden_size=256"),
        ({"is_causal": False, "intermediate_size": 7}, "intermediate_size=7 must be even"),
        ({"vocab_size": 10, "bos_token_id": 10}, "bos_token_id=10 must be at least 0 and below vocab_size=10"),
    ],
)
def test_impossible_combinations_name_field_and_remedy(settings, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        HfLstmConfig(**settings)
