"""Fields that follow from others go on following when those are set later; what was given stays, or is refused."""

import copy
import json

import pytest
from transformers import AutoConfig

from hf_gpt import (
    HfGptConfig,
    HfGptForCausalLM,
    HfGptForConditionalGeneration,
    HfGptSeq2SeqConfig,
    HfLstmConfig,
    HfLstmForCausalLM,
    HfNgramCnnConfig,
    HfNgramCnnForSequenceClassification,
)


IDIOM = "hidden_size=128,num_attention_heads=4"


def plain(config):
    return {name: value for name, value in config.to_dict().items() if name not in ("dtype", "_name_or_path")}


@pytest.mark.parametrize("kind", [HfGptConfig, HfGptSeq2SeqConfig])
def test_sizes_set_from_a_string(kind):
    config = kind(vocab_size=64)
    config.update_from_string(f"{IDIOM},num_hidden_layers=3")
    assert plain(config) == plain(kind(vocab_size=64, hidden_size=128, num_attention_heads=4, num_hidden_layers=3))
    assert (config.intermediate_size, config.head_dim, config.num_key_value_heads) == (512, 32, 4)
    assert config.layer_types == ["full_attention"] * 3
    model = HfGptForCausalLM if kind is HfGptConfig else HfGptForConditionalGeneration
    model(config)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"num_hidden_layers": 14}, "layer_types", ["full_attention"] * 14),
        ({"sliding_window": 8}, "layer_types", ["sliding_attention"] * 12),
        ({"is_gated_act": True}, "intermediate_size", 2048),
        ({"attention_bias": True}, "attention_out_bias", True),
        ({"num_attention_heads": 6}, "head_dim", 128),
    ],
)
def test_each_field_follows(changes, field, value):
    made = HfGptConfig(**changes)
    for config in (HfGptConfig(), copy.deepcopy(HfGptConfig()), copy.copy(HfGptConfig())):
        config.update(changes)
        assert getattr(config, field) == value
        assert plain(config) == plain(made) and config.base_model_tp_plan == made.base_model_tp_plan


@pytest.mark.parametrize("given", [{"intermediate_size": 100}, {"intermediate_size": 3072}, {"head_dim": 64}])
def test_what_was_given_stays(given):
    config = HfGptConfig(**given)
    config.hidden_size = 384
    assert {name: getattr(config, name) for name in given} == given
    assert "_given_fields" not in json.loads(config.to_json_string(use_diff=False))
    assert "_given_fields" not in config.to_diff_dict()


def test_the_lstm_and_the_encoder_follow():
    config = HfLstmConfig(vocab_size=64)
    config.update_from_string("hidden_size=32,num_layers=3")
    assert (config.intermediate_size, config.num_hidden_layers) == (32, 3)
    HfLstmForCausalLM(config)
    config = HfGptSeq2SeqConfig(decoder_layers=2, encoder_layers=3)
    config.decoder_layers = 4
    assert (config.encoder_layers, len(config.encoder_layer_types), len(config.layer_types)) == (3, 3, 4)
    config.encoder_layers = 1
    config.eos_token_id = 7
    assert len(config.encoder_layer_types) == 1 and config.decoder_start_token_id == 7


def test_a_saved_config_loads_as_it_was_and_with_changes(tmp_path):
    config = HfGptConfig.preset("nano", vocab_size=64, intermediate_size=100)
    config.save_pretrained(tmp_path)
    assert plain(AutoConfig.from_pretrained(tmp_path)) == plain(config)
    deeper = AutoConfig.from_pretrained(tmp_path, num_hidden_layers=6, num_attention_heads=2)
    assert (len(deeper.layer_types), deeper.head_dim, deeper.num_key_value_heads) == (6, 64, 2)
    assert deeper.intermediate_size == 100
    loaded = AutoConfig.from_pretrained(tmp_path)
    loaded.update_from_string("num_hidden_layers=5,hidden_size=64")
    assert (len(loaded.layer_types), loaded.head_dim, loaded.intermediate_size) == (5, 16, 100)
    HfGptForCausalLM(deeper)


def test_what_cannot_follow_is_refused_where_the_model_is_made():
    config = HfGptConfig(vocab_size=64, layer_types=["full_attention", "sliding_attention"] * 6, sliding_window=8)
    config.num_hidden_layers = 14
    with pytest.raises(ValueError, match="has 12 entries and must have num_hidden_layers=14"):
        HfGptForCausalLM(config)
    config = HfNgramCnnConfig(vocab_size=64)
    config.kernel_sizes = [1, 2]
    with pytest.raises(ValueError, match="must have an entry for each of kernel_sizes"):
        HfNgramCnnForSequenceClassification(config)
