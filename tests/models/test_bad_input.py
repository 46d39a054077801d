"""Bad tokens and bad files: an error that says what to do, and a good checkpoint is never lost."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import hf_gpt
from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptModel


def small(**options):
    return HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=64, **options))


@pytest.fixture
def checkpoint(tmp_path):
    small().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("bad", [64, -1, 50000])
def test_token_ids_out_of_range(bad):
    ids = torch.tensor([[1, bad, 3]])
    with pytest.raises(ValueError, match=rf"input_ids holds {bad}, outside 0 to 63 .*resize_token_embeddings"):
        small()(ids)


def test_sequence_beyond_learned_positions():
    model = small(position_embedding_type="learned", max_position_embeddings=16)
    model(torch.zeros(1, 16, dtype=torch.long))
    with pytest.raises(ValueError, match=r"position_ids holds 16, outside 0 to 15 .*shorten the input"):
        model(torch.zeros(1, 17, dtype=torch.long))


def test_both_or_neither_input():
    model = HfGptModel(HfGptConfig.preset("nano", vocab_size=64))
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        model(torch.zeros(1, 2, dtype=torch.long), inputs_embeds=torch.zeros(1, 2, 128))


SIZES = {"vocab_size": 40, "hidden_size": 16}
LAYERS = {"num_hidden_layers": 1, "num_attention_heads": 2}


def heads():
    for kind in ("CausalLM", "SequenceClassification", "TokenClassification", "QuestionAnswering"):
        yield getattr(hf_gpt, f"HfGptFor{kind}")(HfGptConfig(**SIZES, **LAYERS))
    yield hf_gpt.HfGptForSequenceClassification(HfGptConfig(**SIZES, **LAYERS, classifier_pooling="attention"))
    for kind in ("CausalLM", "SequenceClassification", "TokenClassification"):
        yield getattr(hf_gpt, f"HfLstmFor{kind}")(hf_gpt.HfLstmConfig(**SIZES))
    yield hf_gpt.HfNgramCnnForSequenceClassification(hf_gpt.HfNgramCnnConfig(vocab_size=40))
    for kind in (hf_gpt.HfGptForConditionalGeneration, hf_gpt.HfGptSeq2SeqForSequenceClassification):
        yield kind(hf_gpt.HfGptSeq2SeqConfig(**SIZES, **LAYERS))


@pytest.mark.parametrize("with_mask", [True, False])
def test_no_token_or_no_row(with_mask):
    for model in heads():
        ids = torch.zeros(1, 0, dtype=torch.long)
        more = {"attention_mask": torch.ones_like(ids)} if with_mask else {}
        if model.config.is_encoder_decoder:
            more["decoder_input_ids"] = torch.ones(1, 2, dtype=torch.long)
        with pytest.raises(ValueError, match=r"input_ids of shape \(1, 0\) hold no token: give a text at least one"):
            model(ids, **more)
        if model.config.model_type in ("hf_lstm", "hf_ngram_cnn"):
            assert len(model.eval()(ids.new_zeros(0, 5)).logits) == 0
        else:
            with pytest.raises(ValueError, match=r"input_ids of shape \(0, 5\) hold no row"):
                model(ids.new_zeros(0, 5), decoder_input_ids=ids.new_zeros(0, 2)) if "decoder_input_ids" in more else (
                    model(ids.new_zeros(0, 5))
                )


@pytest.mark.parametrize("keep", [0, 5, 1000, 100000])
def test_truncated_weights(checkpoint, keep):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(OSError, match=r"damaged or cut off .*Copy or download"):
        AutoModelForCausalLM.from_pretrained(checkpoint)


def test_corrupt_header(checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(b"\xff" * 64 + weights.read_bytes()[64:])
    with pytest.raises(OSError, match=r"damaged or cut off"):
        AutoModelForCausalLM.from_pretrained(checkpoint)


def test_checkpoint_of_another_architecture(tmp_path, checkpoint):
    other = tmp_path / "gpt2"
    GPT2LMHeadModel(
        GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=64, bos_token_id=1, eos_token_id=1)
    ).save_pretrained(other)
    with pytest.raises(ValueError, match=r"model type 'gpt2', not 'hf_gpt'.*Auto"):
        HfGptForCausalLM.from_pretrained(other)
    os.replace(other / "model.safetensors", checkpoint / "model.safetensors")
    with pytest.raises(ValueError, match=r"no weight of HfGptForCausalLM, but others, such as transformer\.h\.0"):
        AutoModelForCausalLM.from_pretrained(checkpoint)


def test_sizes_that_do_not_fit(checkpoint):
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        HfGptForCausalLM.from_pretrained(checkpoint, intermediate_size=100)


def test_loading_info_is_returned_when_asked(checkpoint):
    model, info = HfGptForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert isinstance(model, HfGptForCausalLM)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_failed_save_leaves_the_old_checkpoint(checkpoint, monkeypatch):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}

    def disk_full(tensors, filename, metadata=None):
        with open(filename, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", disk_full)
    with pytest.raises(OSError, match="No space left"):
        small(hidden_act="gelu").save_pretrained(checkpoint)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


def test_shards_of_an_older_save_are_removed(checkpoint):
    model = small()
    model.save_pretrained(checkpoint, max_shard_size="500KB")
    names = {path.name for path in checkpoint.iterdir()}
    assert "model.safetensors" not in names and "model.safetensors.index.json" in names
    HfGptForCausalLM.from_pretrained(checkpoint)
    model.save_pretrained(checkpoint)
    assert [path.name for path in checkpoint.glob("model*.safetensors*")] == ["model.safetensors"]


def test_weights_have_the_permissions_of_other_files(checkpoint):
    assert len({path.stat().st_mode for path in checkpoint.iterdir()}) == 1


SAVE_FOREVER = """
import sys
import torch
import hf_gpt

config = hf_gpt.HfGptConfig.preset("small", vocab_size=64)
model = hf_gpt.HfGptForCausalLM(config)
for value in range(10**6):
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)
    model.save_pretrained(sys.argv[1])
    print(value, flush=True)
"""


@pytest.mark.slow
def test_killed_while_saving_leaves_a_whole_checkpoint(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline().strip() == "0"
    time.sleep(1.234)
    process.send_signal(signal.SIGKILL)
    process.wait()
    model = HfGptForCausalLM.from_pretrained(tmp_path)
    values = {p.min().item() for p in model.parameters()} | {p.max().item() for p in model.parameters()}
    assert len(values) == 1
