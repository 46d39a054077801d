"""`import hf_gpt` is cheap and makes the Auto classes and PEFT know the models, whatever is imported first."""

import subprocess
import sys

import pytest


CONFIG = "hf_gpt.HfGptConfig.preset('nano', vocab_size=64)"
FROM_CONFIG = f"print(type(AutoModelForCausalLM.from_config({CONFIG})).__name__)"


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_loads_nothing_heavy():
    heavy = ["torch", "transformers", "datasets", "evaluate", "peft", "accelerate", "numpy"]
    assert run(f"import hf_gpt, sys; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_models_load_no_optional_package():
    optional = ["datasets", "evaluate", "peft", "matplotlib"]
    code = f"import hf_gpt, sys; hf_gpt.HfGptForCausalLM; print([name for name in {optional} if name in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize(
    "code",
    [
        f"import hf_gpt; from transformers import AutoModelForCausalLM; {FROM_CONFIG}",
        f"from transformers import AutoModelForCausalLM; import hf_gpt; {FROM_CONFIG}",
        f"import hf_gpt.models.modeling_hf_gpt, hf_gpt; from transformers import AutoModelForCausalLM; {FROM_CONFIG}",
        f"from hf_gpt import HfGptConfig; import hf_gpt; from transformers import AutoModelForCausalLM; {FROM_CONFIG}",
        "import importlib, hf_gpt; importlib.reload(hf_gpt); from transformers import AutoModelForCausalLM; "
        + FROM_CONFIG,
    ],
)
def test_order_of_imports_does_not_matter(code):
    assert run(code) == "HfGptForCausalLM"


def test_config_alone_does_not_load_the_models():
    code = (
        "import hf_gpt, sys; from transformers import AutoConfig; print(type(AutoConfig.for_model('hf_gpt')).__name__, "
        "'hf_gpt.models.modeling_hf_gpt' in sys.modules)"
    )
    assert run(code) == "HfGptConfig False"


@pytest.mark.parametrize(
    "statement",
    [
        "from transformers import LlamaForCausalLM",
        "from transformers import Trainer",
        "from transformers import pipeline",
        "import transformers.modeling_layers",
        "import transformers.models.bert.modeling_bert",
        "import peft",
    ],
)
def test_modules_that_load_the_auto_classes_midway(statement):
    """Some modules import the Auto classes while half loaded themselves, and our models import those modules."""
    assert run(f"import hf_gpt; {statement}; from transformers import AutoModelForCausalLM; {FROM_CONFIG}") == (
        "HfGptForCausalLM"
    )


@pytest.mark.parametrize(
    ("model_type", "auto", "name"),
    [
        ("hf_gpt_seq2seq", "AutoModelForSeq2SeqLM", "HfGptForConditionalGeneration"),
        ("hf_gpt_seq2seq", "AutoModelForSequenceClassification", "HfGptSeq2SeqForSequenceClassification"),
        ("hf_lstm", "AutoModelForCausalLM", "HfLstmForCausalLM"),
        ("hf_lstm", "AutoModelForTokenClassification", "HfLstmForTokenClassification"),
    ],
)
def test_other_forms_are_known_by_configuration_and_by_name(model_type, auto, name):
    import transformers
    from transformers.models.auto import modeling_auto

    import hf_gpt

    config = transformers.AutoConfig.for_model(model_type, vocab_size=64, hidden_size=24, num_hidden_layers=2)
    assert type(getattr(transformers, auto).from_config(config)) is getattr(hf_gpt, name)
    mappings = [names for key, names in vars(modeling_auto).items() if key.endswith("_MAPPING_NAMES")]
    assert any(names.get(model_type) == name for names in mappings)


@pytest.mark.parametrize("order", ["hf_gpt, peft", "peft, hf_gpt"])
def test_lora_finds_its_targets(order):
    code = (
        f"import {order}; model = peft.get_peft_model(hf_gpt.HfGptForCausalLM({CONFIG}), peft.LoraConfig()); "
        "print(sorted({name.split('.')[-4] for name, p in model.named_parameters() if p.requires_grad}))"
    )
    assert run(code) == "['q_proj', 'v_proj']"


def test_unknown_attribute_is_named():
    import hf_gpt

    with pytest.raises(AttributeError, match="no attribute 'HfGptForEverything'"):
        _ = hf_gpt.HfGptForEverything
    assert set(hf_gpt.__all__) <= set(dir(hf_gpt))
