"""The encoder-decoder: equal to Pegasus on Pegasus' weights, and the same numbers by every way of computing them."""

import copy

import peft
import pytest
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from hf_gpt import (
    HfGptConfig,
    HfGptForCausalLM,
    HfGptForConditionalGeneration,
    HfGptSeq2SeqConfig,
    HfGptSeq2SeqForSequenceClassification,
)
from hf_gpt.models.modeling_hf_gpt_seq2seq import shift_tokens_right
from tests.conformance.specs import BY_NAME


TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
SPECS = ["seq2seq", "seq2seq_untied", "seq2seq_separate"]


def build(name="seq2seq", attention="sdpa", **overrides):
    config = BY_NAME[name].build_config(**overrides)
    config.initializer_range = 0.2
    torch.manual_seed(0)
    return HfGptForConditionalGeneration._from_config(config, attn_implementation=attention).eval()


def tokens(*shape):
    return torch.randint(3, 99, shape)


def pegasus():
    torch.manual_seed(0)
    config = PegasusConfig(
        vocab_size=99,
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=40,
        activation_function="gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        init_std=0.3,
        forced_eos_token_id=None,
        scale_embedding=False,
    )
    return PegasusForConditionalGeneration(config).eval()


def from_pegasus(reference):
    config = HfGptSeq2SeqConfig(
        vocab_size=99,
        hidden_size=32,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        position_embedding_type="learned",
        norm_type="layernorm",
        norm_eps=1e-5,
        hidden_act="gelu",
        use_qk_norm=False,
        attention_bias=True,
        mlp_bias=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    model = HfGptForConditionalGeneration(config).eval()
    renamed = {}
    for name, weight in reference.state_dict().items():
        for old, new in (
            (".self_attn_layer_norm.", ".input_layernorm."),
            (".encoder_attn_layer_norm.", ".cross_attention_layernorm."),
            (".final_layer_norm.", ".post_attention_layernorm."),
            (".encoder_attn.", ".cross_attn."),
            (".out_proj.", ".o_proj."),
            (".fc1.", ".mlp.up_proj."),
            (".fc2.", ".mlp.down_proj."),
            ("coder.layer_norm.", "coder.norm."),
        ):
            name = name.replace(old, new)
        renamed[name] = weight
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert (missing, set(unexpected)) == ([], {"final_logits_bias", "model.shared.weight"})
    return model


def test_equals_pegasus():
    """Pegasus is the same pre-norm architecture with fixed positions, biases and LayerNorm."""
    reference = pegasus()
    model = from_pegasus(reference)
    source, target = tokens(3, 9), tokens(3, 6)
    mask = torch.ones_like(source)
    mask[0, 5:] = 0
    expected = reference(source, attention_mask=mask, labels=target)
    actual = model(source, attention_mask=mask, labels=target)
    torch.testing.assert_close(actual.logits, expected.logits, rtol=0.0, atol=2e-5)
    torch.testing.assert_close(actual.loss, expected.loss, **TOLERANCE)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_writes_what_pegasus_writes(num_beams):
    reference = pegasus()
    model = from_pegasus(reference)
    source = tokens(3, 9)
    mask = torch.ones_like(source)
    mask[1, 4:] = 0
    settings = {"attention_mask": mask, "max_new_tokens": 15, "num_beams": num_beams, "do_sample": False}
    settings |= {"length_penalty": 1.0}
    assert torch.equal(model.generate(source, **settings), reference.generate(source, **settings))


@pytest.mark.parametrize("name", SPECS)
def test_sdpa_equals_eager(name):
    source, target = tokens(2, 11), tokens(2, 7)
    mask = torch.ones_like(source)
    mask[0, :4] = 0
    expected, actual = (
        build(name, attention)(source, attention_mask=mask, decoder_input_ids=target).logits
        for attention in ("eager", "sdpa")
    )
    torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("name", SPECS)
def test_padding_of_the_source_changes_nothing(name):
    model = build(name)
    source, target = tokens(1, 6), tokens(1, 5)
    expected = model(source, decoder_input_ids=target).logits
    pads = torch.zeros(1, 3, dtype=torch.long)
    for padded in (torch.cat([pads, source], 1), torch.cat([source, pads], 1)):
        actual = model(padded, attention_mask=(padded != 0).long(), decoder_input_ids=target).logits
        torch.testing.assert_close(actual, expected, **TOLERANCE)


def packed_pairs():
    """Three pairs of source and target, and the same as one packed row."""
    lengths = [(5, 3), (2, 6), (7, 1)]
    pairs = [(tokens(1, source), tokens(1, target)) for source, target in lengths]
    positions, decoder_positions = (torch.cat([torch.arange(pair[side]) for pair in lengths])[None] for side in (0, 1))
    return pairs, {
        "input_ids": torch.cat([source for source, _ in pairs], 1),
        "position_ids": positions,
        "decoder_input_ids": torch.cat([target for _, target in pairs], 1),
        "decoder_position_ids": decoder_positions,
    }


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", SPECS)
def test_packed_pairs_equal_separate_ones(name, attention):
    model = build(name, attention)
    pairs, packed = packed_pairs()
    separate = torch.cat([model(source, decoder_input_ids=target).logits for source, target in pairs], 1)
    torch.testing.assert_close(model(**packed).logits, separate, **TOLERANCE)


@pytest.mark.slow
def test_flex_attention_packs_as_sdpa_does():
    """Slow for its compiler, which sees three shapes."""
    _, packed = packed_pairs()
    with torch.no_grad():
        actual, expected = (build(attention=attention)(**packed).logits for attention in ("flex_attention", "sdpa"))
    torch.testing.assert_close(actual, expected, **TOLERANCE)


def test_packed_gradients_equal_separate_ones():
    model = build().train()
    pairs = [(tokens(1, 5), tokens(1, 3)), (tokens(1, 2), tokens(1, 6))]
    model(
        torch.cat([source for source, _ in pairs], 1),
        position_ids=torch.tensor([[0, 1, 2, 3, 4, 0, 1]]),
        decoder_position_ids=torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 5]]),
        labels=torch.cat([target for _, target in pairs], 1),
        num_items_in_batch=9,
    ).loss.backward()
    packed = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    for source, target in pairs:
        model(source, labels=target, num_items_in_batch=9).loss.backward()
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], packed, **TOLERANCE)


def test_packing_refuses_sources_without_targets():
    with pytest.raises(ValueError, match=r"\[2\] packed sources and \[1\] targets"):
        build()(tokens(1, 4), position_ids=torch.tensor([[0, 1, 0, 1]]), labels=tokens(1, 3))


def test_labels_are_read_shifted_by_one():
    labels = torch.tensor([[5, 6, 7, 8, -100], [9, 10, 11, 12, 13]])
    assert shift_tokens_right(labels, 1, 0).tolist() == [[1, 5, 6, 7, 8], [1, 9, 10, 11, 12]]
    labels[0, 2] = -100
    assert shift_tokens_right(labels, 1, 0)[0].tolist() == [1, 5, 6, 0, 8]
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    assert shift_tokens_right(labels, 1, 0, positions)[1].tolist() == [1, 9, 10, 1, 12]
    model = build()
    source, target = tokens(2, 4), tokens(2, 5)
    logits = model(source, decoder_input_ids=model.prepare_decoder_input_ids_from_labels(target)).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(model(source, labels=target).loss, expected, **TOLERANCE)


@pytest.mark.parametrize("options", [{}, {"final_logit_softcapping": 5.0, "logit_scale": 2.0}])
def test_loss_in_chunks_equals_plain(options):
    model = build(chunked_loss="never", **options).train()
    source, target = tokens(2, 4), tokens(2, 5)
    target[0, 3:] = -100
    results = []
    for skip_logits in (False, True):
        model.zero_grad()
        output = model(source, labels=target, skip_logits=skip_logits)
        output.loss.backward()
        assert (output.logits is None) is skip_logits
        results.append([output.loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(results[1], results[0], **TOLERANCE)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_all_caches_generate_the_same(name, num_beams):
    model = build(name)
    source = tokens(2, 7)
    source[0, :3] = 0
    settings = {"max_new_tokens": 10, "do_sample": False, "num_beams": num_beams, "disable_compile": True}
    settings |= {"attention_mask": (source != 0).long(), "eos_token_id": None}
    expected = model.generate(source, use_cache=False, **settings)
    for cache in ("dynamic", "static"):
        assert torch.equal(model.generate(source, cache_implementation=cache, **settings), expected), cache


def test_sliding_window_of_the_target_leaves_the_source_whole():
    options = {"sliding_window": 3, "encoder_layer_types": ["full_attention"] * 2}
    model = build(**options)
    source = tokens(2, 9)
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "disable_compile": True}
    expected = model.generate(source, use_cache=False, **settings)
    for cache in ("dynamic", "static"):
        assert torch.equal(model.generate(source, cache_implementation=cache, **settings), expected), cache


def test_assisted_generation_writes_the_same():
    model = build()
    assistant = build(num_hidden_layers=1)
    source = tokens(1, 7)
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    assert torch.equal(
        model.generate(source, assistant_model=assistant, **settings), model.generate(source, **settings)
    )


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_equals_plain(use_reentrant):
    model = build().train()
    source, target = tokens(2, 7), tokens(2, 5)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model.zero_grad()
        model(source, labels=target).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.0, atol=1e-6)


def test_source_is_seen_from_both_sides_and_target_from_its_past():
    model = build()
    source, target = tokens(1, 6), tokens(1, 6)
    changed = source.clone()
    changed[0, -1] = 3 if source[0, -1] != 3 else 4
    first = [model.model.encoder(ids).last_hidden_state[0, 0] for ids in (source, changed)]
    assert not torch.allclose(*first)
    changed = target.clone()
    changed[0, -1] = 3 if target[0, -1] != 3 else 4
    logits = [model(source, decoder_input_ids=ids).logits[0, :-1] for ids in (target, changed)]
    torch.testing.assert_close(*logits, rtol=0.0, atol=0.0)


def test_attentions_and_hidden_states_of_both_halves():
    model = build(attention="eager", encoder_layers=1)
    output = model(tokens(2, 7), decoder_input_ids=tokens(2, 5), output_attentions=True, output_hidden_states=True)
    shapes = {name: [tuple(part.shape) for part in output[name]] for name in output if name.endswith("attentions")}
    assert shapes == {
        "encoder_attentions": [(2, 4, 7, 7)],
        "decoder_attentions": [(2, 4, 5, 5)] * 2,
        "cross_attentions": [(2, 4, 5, 7)] * 2,
    }
    assert (len(output.encoder_hidden_states), len(output.decoder_hidden_states)) == (2, 3)
    for attention in output.cross_attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4, 5), **TOLERANCE)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("tie", [True, False])
def test_each_way_of_tying_survives_saving_and_resizing(share, tie, tmp_path):
    model = build(share_encoder_decoder_embeddings=share, tie_word_embeddings=tie)
    for position, size in ((tmp_path / "first", 99), (tmp_path / "second", 120)):
        model.resize_token_embeddings(size)
        model.save_pretrained(position)
        loaded = HfGptForConditionalGeneration.from_pretrained(position)
        for candidate in (model, loaded):
            encoder, decoder = (half.embed_tokens for half in (candidate.model.encoder, candidate.model.decoder))
            assert (encoder.weight is decoder.weight) is share
            assert (candidate.lm_head.weight is decoder.weight) is tie
            assert {len(layer.weight) for layer in (encoder, decoder, candidate.lm_head)} == {size}
        torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0.0, atol=0.0)
    output = model(tokens(1, 4), labels=torch.tensor([[119, 118]]))
    assert output.logits.shape == (1, 2, 120)


def decoder_checkpoint(folder, **options):
    torch.manual_seed(1)
    config = HfGptConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        output_projection_init="normal",
        bos_token_id=1,
        **options,
    )
    decoder = HfGptForCausalLM(config).eval()
    decoder.save_pretrained(folder)
    return decoder


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("cross", ["self_attention", "fresh"])
def test_from_decoder_begins_both_halves_with_its_weights(tmp_path, cross, share, tie):
    decoder = decoder_checkpoint(tmp_path, tie_word_embeddings=tie)
    overrides = {"share_encoder_decoder_embeddings": share}
    model = HfGptForConditionalGeneration.from_decoder(tmp_path, cross_attention_init=cross, config_overrides=overrides)
    weights = decoder.model.state_dict()
    for half in (model.model.encoder, model.model.decoder):
        begun = {name: value for name, value in half.state_dict().items() if ".cross_att" not in name}
        torch.testing.assert_close(begun, dict(weights), rtol=0.0, atol=0.0)
    torch.testing.assert_close(model.lm_head.weight, decoder.lm_head.weight, rtol=0.0, atol=0.0)
    layer = model.model.decoder.layers[1]
    assert torch.equal(layer.cross_attn.k_proj.weight, layer.self_attn.k_proj.weight) is (cross == "self_attention")
    assert not model.model.encoder.layers[0].self_attn.is_causal
    # Deaf to the source, the decoder is the one that it began as.
    target = tokens(2, 6)
    for block in model.model.decoder.layers:
        torch.nn.init.zeros_(block.cross_attn.o_proj.weight)
    expected = decoder(target).logits
    torch.testing.assert_close(model(tokens(2, 3), decoder_input_ids=target).logits, expected, **TOLERANCE)


def test_from_decoder_with_fewer_or_too_many_layers(tmp_path):
    decoder_checkpoint(tmp_path)
    short = HfGptForConditionalGeneration.from_decoder(tmp_path, config_overrides={"encoder_layers": 1})
    assert (len(short.model.encoder.layers), len(short.model.decoder.layers)) == (1, 2)
    with pytest.raises(ValueError, match=r"holds no layers\.2\..*not lengthen"):
        HfGptForConditionalGeneration.from_decoder(tmp_path, config_overrides={"encoder_layers": 3})
    with pytest.raises(ValueError, match="must be 'self_attention' or 'fresh'"):
        HfGptForConditionalGeneration.from_decoder(tmp_path, cross_attention_init="zeros")


def test_critic_of_source_and_target():
    config = BY_NAME["seq2seq"].build_config(num_labels=1, classifier_pooling="mean", initializer_range=0.2)
    model = HfGptSeq2SeqForSequenceClassification(config).eval()
    source, target = tokens(2, 6), tokens(2, 5)
    states = model.model(source, decoder_input_ids=target).last_hidden_state
    expected = states.mean(1) @ model.score.weight.T + model.score.bias
    output = model(source, decoder_input_ids=target, labels=torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(output.logits, expected, **TOLERANCE)
    truth = torch.tensor([1.0, 0.0])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(expected[:, 0], truth)
    torch.testing.assert_close(output.loss, loss, **TOLERANCE)
    torch.testing.assert_close(model(source).logits, model(source, decoder_input_ids=source).logits, **TOLERANCE)
    prefixes = model.prefix_logits(source, decoder_input_ids=target)
    for end in range(1, 6):
        expected = model(source, decoder_input_ids=target[:, :end]).logits
        torch.testing.assert_close(prefixes[:, end - 1], expected, **TOLERANCE)
    with pytest.raises(ValueError, match="give the target"):
        model.prefix_logits(source)


def test_lora_finds_its_targets_in_both_halves():
    model = peft.get_peft_model(build(), peft.LoraConfig(task_type="SEQ_2_SEQ_LM"))
    adapted = {name.split(".lora_")[0].split("layers.")[0].split(".")[-2] for name, _ in model.named_parameters()}
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert {name.split(".")[-4] for name in trained} == {"q_proj", "v_proj"}
    assert {"encoder", "decoder"} <= adapted
    assert any(".cross_attn." in name for name in trained)
    model(input_ids=tokens(1, 4), labels=tokens(1, 3)).loss.backward()
    merged = copy.deepcopy(model).merge_and_unload()
    source, target = tokens(1, 4), tokens(1, 3)
    expected = model.eval()(input_ids=source, labels=target).logits
    torch.testing.assert_close(merged.eval()(input_ids=source, labels=target).logits, expected, **TOLERANCE)


def tiny_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<s>", "</s>", *"abcdefgh"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("label_smoothing_factor", [0.0, 0.1])
def test_seq2seq_trainer_learns_to_turn_texts_round(tmp_path, label_smoothing_factor):
    """Stock `Seq2SeqTrainer` and `DataCollatorForSeq2Seq`; with smoothing the loss is Trainer's own."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(64):
        ids = torch.randint(3, 11, (int(torch.randint(2, 4, (), generator=generator)),), generator=generator).tolist()
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [*ids[::-1], 2]})
    torch.manual_seed(0)
    config = HfGptSeq2SeqConfig(
        vocab_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = HfGptForConditionalGeneration(config)
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        max_steps=200,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        predict_with_generate=True,
        generation_max_length=6,
        label_smoothing_factor=label_smoothing_factor,
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows[:16],
        data_collator=DataCollatorForSeq2Seq(tiny_tokenizer(), model=model),
    )
    trainer.train()
    written = trainer.predict(rows[:16]).predictions
    right = sum(
        [token for token in text.tolist()[1:] if token > 0][: len(row["labels"])] == row["labels"]
        for text, row in zip(written, rows[:16], strict=True)
    )
    # Texts of two letters of eight come out right by chance once in 64 times.
    assert right >= 8, f"{right} of 16"
