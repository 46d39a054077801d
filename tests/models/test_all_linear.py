"""`target_modules="all-linear"` of PEFT in the models that have few linear layers or none."""

import copy
import logging

import peft
import pytest
import torch

import hf_gpt


SMALL = {"vocab_size": 40, "hidden_size": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IDS = torch.tensor([[1, 5, 6, 7, 5, 9], [1, 6, 30, 31, 32, 2]])


def lstm():
    return hf_gpt.HfLstmForCausalLM(hf_gpt.HfLstmConfig(**SMALL))


def lstm_classifier():
    return hf_gpt.HfLstmForSequenceClassification(hf_gpt.HfLstmConfig(**SMALL, num_labels=1))


def ngram_cnn(**fields):
    fields = {**SMALL, "hidden_size": 15, "embedding_size": 8, "num_labels": 1, **fields}
    return hf_gpt.HfNgramCnnForSequenceClassification(hf_gpt.HfNgramCnnConfig(**fields))


def highway():
    return ngram_cnn(num_highway_layers=1)


MODELS = {f.__name__: f for f in (lstm, lstm_classifier, ngram_cnn, highway)}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_all_that_can_be_adapted_is(name, named, tmp_path):
    torch.manual_seed(0)
    base = MODELS[name]().eval()
    kept = copy.deepcopy(base)
    task = ("CAUSAL_LM" if name == "lstm" else "SEQ_CLS") if named else None
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules="all-linear", task_type=task)).eval()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("embed_tokens" in parameter for parameter in trained)
    assert any("filters" in parameter for parameter in trained) == (name in ("ngram_cnn", "highway"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    adapted = model(input_ids=IDS).logits
    adapted.sum().backward()
    assert not torch.allclose(adapted, kept(input_ids=IDS).logits)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(kept, tmp_path)
    torch.testing.assert_close(again.eval()(input_ids=IDS).logits, adapted)


def test_a_user_hears_that_no_lstm_is_adapted(caplog):
    options = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    with caplog.at_level(logging.WARNING, "hf_gpt"):
        peft.get_peft_model(lstm(), peft.LoraConfig(**options))
    assert "modules_to_save=['lstm']" in caplog.text
    caplog.clear()
    model = peft.get_peft_model(lstm(), peft.LoraConfig(**options, modules_to_save=["lstm"]))
    assert not caplog.text
    assert any("lstm" in name for name, parameter in model.named_parameters() if parameter.requires_grad)


@pytest.mark.parametrize("kind", ["IA3Config", "LoHaConfig", "VeraConfig"])
def test_methods_that_adapt_nothing_of_an_lstm_say_so(kind):
    options = {"feedforward_modules": []} if kind == "IA3Config" else {}
    config = getattr(peft, kind)(target_modules="all-linear", task_type="CAUSAL_LM", **options)
    with pytest.raises(ValueError, match=r"no linear layer but its head.*Use LoraConfig"):
        peft.get_peft_model(lstm(), config)


def test_other_models_are_adapted_as_ever():
    model = hf_gpt.HfGptForCausalLM(hf_gpt.HfGptConfig(**SMALL, num_hidden_layers=1, num_attention_heads=2))
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    targets = {name.rpartition(".")[2] for name in model.peft_config["default"].target_modules}
    assert targets == {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
