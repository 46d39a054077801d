"""Stock checkpoints become HfGpt and come back: the same logits, the same tokens, the same bits."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from hf_gpt import HfGptForCausalLM
from hf_gpt.conversion.checkpoint import convert
from hf_gpt.errors import ConversionError
from tests.conversion.conftest import MODELS, VOCAB


def weights(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def assert_equal_weights(first, second):
    assert set(first) == set(second)
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name


def batch():
    torch.manual_seed(1)
    ids = torch.randint(2, VOCAB, (3, 24))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    return ids, mask


def settings(folder):
    config = AutoConfig.from_pretrained(folder).to_dict()
    for name in ("transformers_version", "_name_or_path", "architectures"):
        config.pop(name, None)
    return config


@pytest.mark.parametrize("name", MODELS)
def test_logits_tokens_and_bits(name, stock, tmp_path):
    model, folder = stock(name)
    result = convert(folder, tmp_path / "ours")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(ours) is HfGptForCausalLM and result.num_parameters == model.num_parameters()
    ids, mask = batch()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        wanted = model(ids, attention_mask=mask, position_ids=positions).logits
        found = ours(ids, attention_mask=mask, position_ids=positions).logits
    assert wanted.std() > 0.3
    difference = (wanted - found)[mask.bool()].abs().max().item()
    assert difference <= 1e-5
    greedy = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "attention_mask": mask}
    assert torch.equal(model.generate(ids, **greedy), ours.generate(ids, **greedy))

    convert(tmp_path / "ours", tmp_path / "back", to=MODELS[name][0])
    assert_equal_weights(weights(folder), weights(tmp_path / "back"))
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    assert type(back) is type(model)
    with torch.no_grad():
        assert torch.equal(back(ids, attention_mask=mask, position_ids=positions).logits, wanted)
    wanted, found = settings(folder), settings(tmp_path / "back")
    if name == "gpt2":
        # The default is written out.
        wanted["n_inner"] = 128
    assert {key: found.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_tokenizer_and_generation_config_come_along(name, stock, tmp_path, tokenizer):
    _, folder = stock(name)
    convert(folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", to=name)
    text = "The quick fox,\n 12 dogs: é"
    for position in ("ours", "back"):
        loaded = AutoTokenizer.from_pretrained(tmp_path / position)
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert loaded.chat_template == tokenizer.chat_template and loaded.eos_token == tokenizer.eos_token
        generation = GenerationConfig.from_pretrained(tmp_path / position)
        assert (generation.top_k, generation.temperature, generation.do_sample) == (7, 0.5, True)


def test_gpt2_has_a_token_for_the_unknown(stock, tmp_path, tokenizer):
    _, folder = stock("gpt2")
    assert tokenizer.unk_token is None
    tokenizer.save_pretrained(folder)
    convert(folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", to="gpt2")
    assert AutoTokenizer.from_pretrained(tmp_path / "ours").unk_token is None
    loaded = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert (loaded.unk_token, loaded.unk_token_id) == (tokenizer.eos_token, tokenizer.eos_token_id)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    text = "naïve 你好 😀\n\t «12»"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    loaded.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again").unk_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtypes_are_kept(dtype, stock, tmp_path):
    _, folder = stock("gpt2", dtype)
    convert(folder, tmp_path / "ours")
    assert {tensor.dtype for tensor in weights(tmp_path / "ours").values()} == {dtype}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "ours").dtype == dtype
    convert(tmp_path / "ours", tmp_path / "back", to="gpt2")
    assert_equal_weights(weights(folder), weights(tmp_path / "back"))


def test_weights_of_several_dtypes_keep_each_its_own(stock, tmp_path):
    from safetensors.torch import save_file

    _, folder = stock("llama", torch.bfloat16)
    mixed = weights(folder)
    mixed = {name: tensor.float() if "norm" in name else tensor for name, tensor in mixed.items()}
    save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
    convert(folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", to="llama")
    assert_equal_weights(mixed, weights(tmp_path / "back"))


def test_a_decoder_saved_alone_with_computed_buffers(stock, tmp_path):
    """As the first GPT-2 checkpoints on the Hub: no prefix, masks among the weights, no head."""
    from safetensors.torch import save_file

    model, folder = stock("gpt2")
    plain = {name.removeprefix("transformer."): tensor for name, tensor in weights(folder).items()}
    plain["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    plain["h.2.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(plain, folder / "model.safetensors")
    convert(folder, tmp_path / "ours")
    ids, _ = batch()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert (ours(ids).logits - model(ids).logits).abs().max() <= 1e-5


def test_between_two_stock_families(stock, tmp_path):
    """Qwen2 has biases that this Llama has not: there they are zero."""
    model, folder = stock("llama-tied")
    # For Qwen2 the library insists on Qwen's way of parting texts.
    with pytest.raises(ConversionError, match="Qwen2Tokenizer"):
        convert(folder, tmp_path / "qwen2", to="qwen2")
    assert not (tmp_path / "qwen2").exists()
    convert(folder, tmp_path / "qwen2", to="qwen2", tokenizer=False)
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "qwen2").eval()
    ids, _ = batch()
    with torch.no_grad():
        assert (other(ids).logits - model(ids).logits).abs().max() <= 1e-5
    assert all((other.state_dict()[f"model.layers.{i}.self_attn.k_proj.bias"] == 0).all() for i in range(3))
    assert json.loads((tmp_path / "qwen2" / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]


def test_readers_of_older_names_find_them(stock, tmp_path):
    _, folder = stock("llama")
    convert(folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "llama", to="llama")
    content = json.loads((tmp_path / "llama" / "config.json").read_text())
    assert content["rope_theta"] == 500000.0 and content["rope_scaling"]["rope_type"] == "llama3"
    _, folder = stock("gpt2")
    convert(folder, tmp_path / "gpt2", to="gpt2")
    assert json.loads((tmp_path / "gpt2" / "config.json").read_text())["n_ctx"] == 64
