"""A checkpoint of any head opens by every Auto class in a process that has no hf_gpt."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hf_gpt
from tests.without_plugin import REFUSE_PLUGIN


HEADS = {
    "AutoModel": "HfGptModel",
    "AutoModelForCausalLM": "HfGptForCausalLM",
    "AutoModelForSequenceClassification": "HfGptForSequenceClassification",
    "AutoModelForTokenClassification": "HfGptForTokenClassification",
    "AutoModelForQuestionAnswering": "HfGptForQuestionAnswering",
}
OTHER_FORMS = {
    "HfGptSeq2SeqConfig": {
        "AutoModel": "HfGptSeq2SeqModel",
        "AutoModelForSeq2SeqLM": "HfGptForConditionalGeneration",
        "AutoModelForSequenceClassification": "HfGptSeq2SeqForSequenceClassification",
    },
    "HfLstmConfig": {
        "AutoModel": "HfLstmModel",
        "AutoModelForCausalLM": "HfLstmForCausalLM",
        "AutoModelForSequenceClassification": "HfLstmForSequenceClassification",
        "AutoModelForTokenClassification": "HfLstmForTokenClassification",
    },
    "HfNgramCnnConfig": {
        "AutoModel": "HfNgramCnnModel",
        "AutoModelForSequenceClassification": "HfNgramCnnForSequenceClassification",
    },
}

WITHOUT_PLUGIN = (
    REFUSE_PLUGIN
    + """
import torch
import transformers

ids = torch.arange(12).reshape(2, 6)
results = {}
for saved_by in json.loads(sys.argv[2]):
    for auto in json.loads(sys.argv[2]):
        model = getattr(transformers, auto).from_pretrained(f"{sys.argv[1]}/{saved_by}", trust_remote_code=True)
        key = f"{saved_by} {auto}"
        extra = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        total = model(ids, **extra)[0].sum().item()
        results[key] = [type(model).__name__, type(model).__module__.split(".")[0], total]
        if saved_by == auto and model.can_generate():
            model.generate(ids, max_new_tokens=2)
        if auto == saved_by:
            model.save_pretrained(f"{sys.argv[1]}/again/{saved_by}")
            again = getattr(transformers, auto).from_pretrained(
                f"{sys.argv[1]}/again/{saved_by}", trust_remote_code=True
            )
            again.save_pretrained(f"{sys.argv[1]}/third/{saved_by}")
print("RESULTS" + json.dumps(results))
"""
)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def save_and_load(root, config, heads):
    """Sums of the outputs of each head here, and in a process without the package."""
    expected = {}
    for auto, name in heads.items():
        torch.manual_seed(0)
        model = getattr(hf_gpt, name)(config).eval()
        model.save_pretrained(root / auto)
        ids = torch.arange(12).reshape(2, 6)
        extra = {"decoder_input_ids": ids} if config.is_encoder_decoder else {}
        expected[auto] = model(ids, **extra)[0].sum().item()
    command = [sys.executable, "-c", WITHOUT_PLUGIN, str(root), json.dumps(list(heads))]
    environment = {"HF_HOME": str(root / "home"), "HF_HUB_OFFLINE": "1", "PATH": "", "PYTHONSAFEPATH": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert result.returncode == 0, result.stderr
    return root, expected, json.loads(result.stdout.split("RESULTS")[1])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    config = hf_gpt.HfGptConfig.preset("nano", vocab_size=64, output_projection_init="normal", num_labels=1)
    return save_and_load(tmp_path_factory.mktemp("remote"), config, HEADS)


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_other_forms_open_without_the_package(name, tmp_path):
    layers = 1 if name == "HfNgramCnnConfig" else 2
    config = getattr(hf_gpt, name)(
        vocab_size=64, hidden_size=48, num_hidden_layers=layers, num_labels=1, bos_token_id=1
    )
    heads = OTHER_FORMS[name]
    root, expected, results = save_and_load(tmp_path, config, heads)
    for key, (class_name, module, total) in results.items():
        saved_by, auto = key.split()
        assert (class_name, module) == (heads[auto], "transformers_modules")
        if auto == saved_by:
            assert total == pytest.approx(expected[auto], abs=1e-4)
    for auto in heads:
        assert digests(root / "third" / auto) == digests(root / "again" / auto) == digests(root / auto)


@pytest.mark.parametrize("saved_by", HEADS)
@pytest.mark.parametrize("auto", HEADS)
def test_every_auto_class_opens_every_checkpoint(loaded, saved_by, auto):
    _, expected, results = loaded
    name, module, total = results[f"{saved_by} {auto}"]
    assert (name, module) == (HEADS[auto], "transformers_modules")
    if auto == saved_by:
        assert total == pytest.approx(expected[auto], abs=1e-4)


@pytest.mark.parametrize("auto", HEADS)
def test_saving_again_keeps_code_and_weights(loaded, auto):
    root, _, _ = loaded
    first = digests(root / auto)
    assert {"modeling_hf_gpt.py", "configuration_hf_gpt.py", "model.safetensors", "config.json"} <= set(first)
    assert digests(root / "again" / auto) == first
    assert digests(root / "third" / auto) == first


def test_model_files_import_only_torch_transformers_and_siblings():
    """What a checkpoint carries has to work alone; a dotted relative import would not be found when it is loaded."""
    import ast

    folder = Path(hf_gpt.__file__).parent / "models"
    for path in folder.glob("*_hf_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module and "." not in node.module, (path.name, node.lineno)
            elif isinstance(node, ast.ImportFrom | ast.Import):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
                allowed = {"torch", "transformers", "huggingface_hub", "safetensors", *sys.stdlib_module_names}
                assert {name.split(".")[0] for name in modules} <= allowed, (path.name, node.lineno)
