"""Settings that cannot work are refused where they are made, by name and with the remedy."""

import re

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import AutoConfig, AutoModel

from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptSeq2SeqConfig
from hf_gpt.models.configuration_hf_gpt import PRESETS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 100, "num_attention_heads": 3}, "num_attention_heads=3 must divide hidden_size=100"),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5 must divide num_attention_heads=12"),
        ({"head_dim": 7}, "head_dim=7 must be even"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 must be at least 1"),
        ({"hidden_act": "relu3"}, "hidden_act='relu3' must be one of .*relu2"),
        ({"hidden_dropout": 1.0}, "hidden_dropout=1.0 must be at least 0 and below 1"),
        ({"layer_types": ["full_attention"]}, "has 1 entries and must have num_hidden_layers=12"),
        ({"layer_types": ["mamba"] * 12}, "must hold 'full_attention' or 'sliding_attention'"),
        ({"layer_types": ["sliding_attention"] * 12}, "sliding_window=None must be set"),
        ({"sliding_window": 0}, "sliding_window=0 must be above 0"),
        ({"final_logit_softcapping": -1.0}, "final_logit_softcapping=-1.0 must be above 0"),
        ({"rope_parameters": {"rope_type": "ntk", "rope_theta": 1e4}}, "rope_type='ntk' must be one of .*yarn"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 must be 1.0"),
        ({"vocab_size": 100, "eos_token_id": 100}, "eos_token_id=100 must be at least 0 and below vocab_size=100"),
        ({"vocab_size": 100, "eos_token_id": [3, -1]}, "eos_token_id=-1 must be at least 0"),
    ],
)
def test_impossible_combinations_name_field_and_remedy(settings, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        HfGptConfig(**settings)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", "many"),
        ("position_embedding_type", "alibi"),
        ("norm_type", "batchnorm"),
        ("classifier_pooling", "first"),
        ("output_projection_init", "ones"),
        ("use_qk_norm", "yes"),
        ("layer_types", "full_attention"),
    ],
)
def test_wrong_types_and_choices_name_the_field(field, value):
    with pytest.raises(StrictDataclassFieldValidationError, match=field):
        HfGptConfig(**{field: value})
    config = HfGptConfig()
    with pytest.raises(StrictDataclassFieldValidationError, match=field):
        setattr(config, field, value)


def test_misspelt_field_is_pointed_out(caplog):
    HfGptConfig(vocab_sise=5)
    assert "did you mean vocab_size?" in caplog.text


def test_scalings_need_their_keys():
    with pytest.raises(KeyError, match="'rope_type'='llama3'"):
        HfGptConfig(rope_parameters={"rope_type": "llama3", "rope_theta": 1e4})


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0},
        {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ],
)
def test_every_rope_scaling_loads_with_its_frequencies(scaling, tmp_path):
    config = HfGptConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_theta": 1e4, "original_max_position_embeddings": 32, **scaling},
        output_projection_init="normal",
    )
    model = HfGptForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    loaded = HfGptForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    ids = torch.arange(48).unsqueeze(0)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_older_rope_arguments_are_folded_in():
    config = HfGptConfig(rope_theta=5e5, rope_scaling={"rope_type": "linear", "factor": 4.0})
    assert config.rope_parameters == {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}


def test_aliases_of_norm_eps():
    for alias in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"):
        config = HfGptConfig(**{alias: 1e-3})
        assert config.norm_eps == getattr(config, alias) == 1e-3


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_size_of_their_name(name):
    config = HfGptConfig.preset(name)
    with torch.device("meta"):
        model = HfGptForCausalLM(config)
    count = sum(p.numel() for p in model.parameters())
    if name[0].isdigit():
        scale = {"m": 1e6, "b": 1e9}[name[-1]]
        assert count == pytest.approx(float(name[:-1]) * scale, rel=0.04)
    assert HfGptConfig.preset(name, vocab_size=99).vocab_size == 99


def test_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match=r"no preset '2b'.*nano.*7b"):
        HfGptConfig.preset("2b")


def test_round_trip_keeps_every_field(tmp_path):
    config = HfGptConfig.preset("mini", sliding_window=64, num_labels=1, classifier_spectral_norm=True)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is HfGptConfig
    assert loaded.to_diff_dict() == config.to_diff_dict()


def test_code_map_forgets_where_it_was_downloaded_from(tmp_path):
    config = HfGptConfig(auto_map={"AutoModel": "someone/model--modeling_hf_gpt.HfGptModel"})
    assert config.auto_map["AutoModel"] == "modeling_hf_gpt.HfGptModel"
    assert config.auto_map["AutoModelForCausalLM"] == "modeling_hf_gpt.HfGptForCausalLM"


def test_bidirectional_language_model_is_refused():
    with pytest.raises(ValueError, match=r"is_causal=False .* sequence, token or question answering head"):
        HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=64, is_causal=False))


@pytest.mark.parametrize("config_class", [HfGptConfig, HfGptSeq2SeqConfig])
def test_tensor_parallel_plan_names_every_weight_that_works_on_heads_or_inside_an_mlp(config_class):
    """A weight without an entry is whole in every process, and a norm of sharded heads gets a part of its gradient."""
    config = config_class.preset("nano", vocab_size=64, is_gated_act=True, hidden_act="silu", use_qk_norm=True)
    model = AutoModel.from_config(config)
    layers = [name for name, _ in model.named_parameters() if ".self_attn." in name or ".mlp." in name]
    planned = {re.sub(r"\.\d+\.", ".*.", name.rsplit(".", 1)[0]) for name in layers}
    assert planned
    assert planned <= set(config.base_model_tp_plan), planned - set(config.base_model_tp_plan)
    norms = {name: style for name, style in config.base_model_tp_plan.items() if name.endswith(("q_norm", "k_norm"))}
    assert set(norms.values()) == {"replicated_with_grad_allreduce"}
