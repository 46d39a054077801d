"""Checkpoints go to a Hub and come back by the real client: what arrives, what never leaves, what the logits are."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import hf_gpt
from hf_gpt.cli.main import main
from hf_gpt.errors import CheckpointError, HubError
from hf_gpt.hub.loading import load
from hf_gpt.hub.transfer import pull, push
from tests.hub.loopback import TOKEN
from tests.without_plugin import REFUSE_PLUGIN


IDS = torch.arange(24).reshape(2, 12)
NEVER = {"optimizer.pt", "training_args.bin", ".env", "trainer_state.json", "checkpoint-5/config.json"}


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def test_push_and_pull_give_the_same_bits(hub, make_checkpoint, tmp_path, capsys):
    model, folder = make_checkpoint()
    assert main(["push", str(folder), "owner/tiny", "--private"]) == 0
    printed = capsys.readouterr()
    assert "optimizer.pt" in printed.out and ".env" in printed.out
    assert TOKEN not in printed.out + printed.err
    assert hub.repositories["owner/tiny"].private
    files = hub.files("owner/tiny")
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert wanted | {"modeling_hf_gpt.py", "configuration_hf_gpt.py", "layers_hf_gpt.py"} <= set(files)
    assert not NEVER & set(files) and not any(TOKEN.encode() in content for content in files.values())
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()

    assert main(["pull", "owner/tiny", str(tmp_path / "back")]) == 0
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()), logits(model))
    assert {path.name for path in (tmp_path / "back").iterdir()} == set(files) - {".gitattributes"}
    loaded, tokenizer = load("owner/tiny")
    assert torch.equal(logits(loaded), logits(model)) and tokenizer("the fox")["input_ids"]

    before = len(hub.commits)
    assert main(["push", str(folder), "owner/tiny"]) == 0 and len(hub.commits) == before
    assert main(["pull", "owner/tiny", str(tmp_path / "back")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["pull", "owner/tiny", str(tmp_path / "back"), "--overwrite"]) == 0


WITHOUT_PLUGIN = (
    REFUSE_PLUGIN
    + """
import torch, transformers
torch.set_grad_enabled(False)
ids = torch.arange(24).reshape(2, 12)
results = {}
for auto in ["AutoModelForCausalLM", "AutoModel", "AutoModelForSequenceClassification",
             "AutoModelForTokenClassification", "AutoModelForQuestionAnswering"]:
    model = getattr(transformers, auto).from_pretrained("owner/tiny", trust_remote_code=True).eval()
    results[auto] = [type(model).__name__, type(model).__module__.split(".")[0]]
    if auto == "AutoModelForCausalLM":
        torch.save(model(ids).logits, sys.argv[1])
critic = transformers.AutoModelForSequenceClassification.from_pretrained(
    "owner/tiny", subfolder="discriminator", trust_remote_code=True).eval()
torch.save([critic(ids).logits, critic.state_dict()], sys.argv[2])
transformers.AutoTokenizer.from_pretrained("owner/tiny", trust_remote_code=True)
print("RESULTS" + json.dumps(results))
"""
)


def test_all_heads_and_the_discriminator_open_by_remote_code(hub, make_checkpoint, tmp_path):
    model, folder = make_checkpoint()
    discriminator, discriminator_folder = make_checkpoint(
        "HfGptForSequenceClassification", "discriminator", seed=1, num_labels=1
    )
    push(folder, "owner/tiny", discriminator=discriminator_folder)
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "PATH": "",
        "PYTHONSAFEPATH": "1",
        # The order of a sum depends on it.
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    outputs = [str(tmp_path / name) for name in ("model.pt", "critic.pt")]
    command = [sys.executable, "-c", WITHOUT_PLUGIN, *outputs]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    heads = json.loads(result.stdout.split("RESULTS")[1])
    assert heads == {
        auto: [f"HfGpt{auto.removeprefix('Auto') if 'For' not in auto else 'For' + auto.partition('For')[2]}", where]
        for auto, where in dict.fromkeys(heads, "transformers_modules").items()
    }
    first, (second, weights) = (torch.load(path, weights_only=True) for path in outputs)
    assert torch.equal(first, logits(model))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in discriminator.state_dict().items())
    # A product with one output depends on how the weight happens to lie in memory.
    torch.testing.assert_close(second, logits(discriminator), rtol=0, atol=1e-6)
    loaded, _ = load("owner/tiny", subfolder="discriminator")
    assert type(loaded).__name__ == "HfGptForSequenceClassification"
    torch.testing.assert_close(logits(loaded), logits(discriminator), rtol=0, atol=1e-6)
    assert not any(
        name.startswith("discriminator/") and name.split("/")[1] in NEVER for name in hub.files("owner/tiny")
    )
    assert 'subfolder="discriminator"' in hub.files("owner/tiny")["README.md"].decode()


def test_revisions_and_subfolders(hub, make_checkpoint, tmp_path):
    first, folder = make_checkpoint()
    push(folder, "owner/tiny")
    second, other = make_checkpoint(folder="other", seed=5)
    assert not torch.equal(logits(first), logits(second))
    push(other, "owner/tiny", revision="trial")
    push(other, "owner/tiny", subfolder="small/v2")
    assert torch.equal(logits(load("owner/tiny")[0]), logits(first))
    assert torch.equal(logits(load("owner/tiny", revision="trial")[0]), logits(second))
    assert torch.equal(logits(load("owner/tiny", subfolder="small/v2")[0]), logits(second))
    pull("owner/tiny", tmp_path / "pulled", subfolder="small/v2")
    assert (tmp_path / "pulled" / "model.safetensors").is_file() and not (tmp_path / "pulled" / "small").exists()
    assert torch.equal(logits(load(tmp_path / "pulled")[0]), logits(second))
    with pytest.raises(HubError, match="no folder nothing"):
        pull("owner/tiny", tmp_path / "none", subfolder="nothing")
    with pytest.raises(HubError):
        pull("owner/tiny", tmp_path / "none", revision="no-such-branch")
    assert not (tmp_path / "none").exists()
    for name in ("../up", "/abs", "a//b", ".hidden"):
        with pytest.raises(HubError, match="--subfolder"):
            push(folder, "owner/tiny", subfolder=name)


def test_code_alone_is_brought_up_to_date(hub, make_checkpoint, capsys):
    _, folder = make_checkpoint()
    _, discriminator = make_checkpoint("HfGptForSequenceClassification", "discriminator", num_labels=1)
    push(folder, "owner/tiny", discriminator=discriminator)
    repository = hub.repositories["owner/tiny"]
    files = repository.commits[repository.refs["main"]]
    good = files["modeling_hf_gpt.py"].content
    for name in ("modeling_hf_gpt.py", "discriminator/modeling_hf_gpt.py"):
        files[name].content = b"raise RuntimeError('an old mistake')\n"
    hub.commits.clear()
    assert main(["push", "owner/tiny", "--code-only"]) == 0
    assert hub.commits == [
        {"file": ["discriminator/modeling_hf_gpt.py", "modeling_hf_gpt.py"], "lfsFile": [], "deletedFile": []}
    ]
    assert hub.files("owner/tiny")["modeling_hf_gpt.py"] == good
    with pytest.raises(SystemExit):
        main(["push", "owner/tiny"])
    with pytest.raises(SystemExit):
        main(["push", str(folder), "owner/tiny", "--code_only"])


def test_code_comes_from_the_package_and_not_from_the_folder(hub, make_checkpoint):
    _, folder = make_checkpoint()
    good = (folder / "modeling_hf_gpt.py").read_bytes()
    (folder / "modeling_hf_gpt.py").write_text("import os")
    (folder / "extra.py").write_text("import os")
    push(folder, "owner/tiny")
    files = hub.files("owner/tiny")
    assert files["modeling_hf_gpt.py"] == good and "extra.py" not in files


def test_links_out_of_the_checkpoint_are_refused(hub, make_checkpoint, tmp_path):
    _, folder = make_checkpoint()
    secret = tmp_path / "secret.json"
    secret.write_text('{"key": "private"}')
    (folder / "results.json").symlink_to(secret)
    with pytest.raises(HubError, match=r"results\.json is a link to .*secret\.json"):
        push(folder, "owner/tiny")
    (folder / "results.json").unlink()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"private")
    (folder / "plots").symlink_to(tmp_path / "images")
    with pytest.raises(HubError, match="outside of the checkpoint"):
        push(folder, "owner/tiny")
    assert "owner/tiny" not in hub.repositories
    (folder / "plots").unlink()
    # A link to the checkpoint as a whole is a name for it.
    os.symlink(folder, tmp_path / "latest")
    push(tmp_path / "latest", "owner/tiny")


def test_tokens_neither_leave_nor_show(hub, make_checkpoint, capsys, monkeypatch):
    _, folder = make_checkpoint()
    (folder / "README.md").write_text(f"# My model\n\nlogin with {TOKEN}\n")
    assert main(["push", str(folder), "owner/tiny"]) == 2
    printed = capsys.readouterr()
    assert "README.md holds an access token" in printed.err and TOKEN not in printed.err + printed.out
    (folder / "README.md").unlink()
    wrong = "hf_" + "WrongTokenWrongTokenWrongTokenWrong"
    monkeypatch.setenv("HF_TOKEN", wrong)
    assert main(["push", str(folder), f"owner/{wrong}"]) == 2
    printed = capsys.readouterr()
    assert "hf auth login" in printed.err and wrong not in printed.err + printed.out
    assert printed.err.count("\n") == 1


def test_private_is_not_put_into_public(hub, make_checkpoint):
    _, folder = make_checkpoint()
    push(folder, "owner/tiny")
    commits = len(hub.commits)
    with pytest.raises(HubError, match="exists and is public"):
        push(folder, "owner/tiny", private=True)
    assert len(hub.commits) == commits


def test_weights_of_before_do_not_stay_beside_the_new_ones(hub, make_checkpoint):
    model, folder = make_checkpoint()
    push(folder, "owner/tiny")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    push(folder, "owner/tiny")
    weights = {name for name in hub.files("owner/tiny") if "safetensors" in name}
    assert weights == {path.name for path in folder.iterdir() if "safetensors" in path.name} and len(weights) > 2
    assert torch.equal(logits(load("owner/tiny")[0]), logits(model))


def test_what_is_no_checkpoint(hub, tmp_path, capsys, make_checkpoint):
    (tmp_path / "empty").mkdir()
    for folder, message in (("empty", "no checkpoint"), ("nowhere", "there is no folder")):
        assert main(["push", str(tmp_path / folder), "owner/tiny"]) == 2
        assert message in capsys.readouterr().err
    _, folder = make_checkpoint()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert main(["push", str(folder), "owner/tiny"]) == 2
    assert "they can run code" in capsys.readouterr().err
    assert main(["pull", "owner/nothing", str(tmp_path / "x")]) == 2 and not (tmp_path / "x").exists()
    assert main(["push", "owner/nothing", "--code_only"]) == 2
    assert hub.repositories == {}
    with pytest.raises(CheckpointError, match="no model can be loaded"):
        load("owner/nothing")


def test_an_unreachable_hub_is_one_line(hub, make_checkpoint, monkeypatch, capsys):
    from huggingface_hub import constants

    _, folder = make_checkpoint()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    assert main(["push", str(folder), "owner/tiny"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: owner/tiny: ") and "refused" in last


def test_a_peft_adapter(hub, make_checkpoint, tmp_path):
    from peft import LoraConfig, get_peft_model

    model, folder = make_checkpoint()
    push(folder, "owner/base")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(HubError, match=r"--base_model owner/name"):
        push(tmp_path / "adapter", "owner/adapter")
    push(tmp_path / "adapter", "owner/adapter", base_model="owner/base")
    files = hub.files("owner/adapter")
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "owner/base"
    assert str(tmp_path) not in files["adapter_config.json"].decode() + files["README.md"].decode()
    loaded, _ = load("owner/adapter")
    assert torch.equal(logits(loaded), logits(adapted.eval()))
    assert not torch.equal(logits(loaded), logits(model))


def test_an_adapter_with_the_base_that_its_run_saved(hub, make_checkpoint, tmp_path):
    from peft import LoraConfig, get_peft_model

    _, base = make_checkpoint("HfGptForSequenceClassification", num_labels=3)
    run = tmp_path / "run"
    shutil.copytree(base, run / "base")
    adapted = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(run / "base"),
        LoraConfig(task_type="SEQ_CLS", init_lora_weights=False),
    )
    adapted.peft_config["default"].base_model_name_or_path = str((run / "base").resolve())
    adapted.save_pretrained(run / "model")
    push(run, "owner/adapter")
    files = hub.files("owner/adapter")
    assert {"adapter_model.safetensors", "base/model.safetensors", "base/config.json"} <= files.keys()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "owner/adapter"
    assert not any(str(tmp_path).encode() in content for content in files.values())
    shutil.rmtree(run)
    expected = logits(adapted.eval())
    pull("owner/adapter", tmp_path / "pulled")
    for position in ("owner/adapter", tmp_path / "pulled"):
        loaded, _ = load(position)
        assert torch.equal(logits(loaded), expected)


def test_the_card(hub, make_checkpoint):
    _, folder = make_checkpoint()
    (folder / "plots").mkdir()
    (folder / "plots" / "loss.png").write_bytes(b"\x89PNG")
    metric = {"type": "accuracy", "name": "accuracy", "value": 0.91234}
    result = {"task": {"type": "text-generation"}, "dataset": {"name": "toy|data", "type": "toy"}, "metrics": [metric]}
    index = [{"name": "tiny", "results": [result]}]
    push(folder, "owner/tiny", card={"license": "mit", "model-index": index})
    text = hub.files("owner/tiny")["README.md"].decode()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "mit" and front["model-index"] == index
    assert front["pipeline_tag"] == "text-generation" and front["library_name"] == "transformers"
    assert "| text-generation | toy\\|data | accuracy | 0.9123 |" in text and "![loss](plots/loss.png)" in text
    assert "trust_remote_code=True" in text and str(folder) not in text

    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n\nMy own words.\n")
    push(folder, "owner/tiny", card={"datasets": ["toy"]})
    text = hub.files("owner/tiny")["README.md"].decode()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["language"], front["datasets"]) == ("apache-2.0", "en", ["toy"])
    assert text.endswith("---\n\nMy own words.\n")


def test_code_of_others_is_not_run_unasked(hub, make_checkpoint, tmp_path):
    """A model type that nobody knows, whose code would leave a mark."""
    _, folder = make_checkpoint()
    push(folder, "owner/evil")
    repository = hub.repositories["owner/evil"]
    files = repository.commits[repository.refs["main"]]
    config = json.loads(files["config.json"].content)
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    files["config.json"].content = json.dumps(config).encode()
    files["evil.py"] = type(files["config.json"])(f"open({str(tmp_path / 'owned')!r}, 'w')\n".encode(), False)
    with pytest.raises(CheckpointError):
        load("owner/evil")
    pull("owner/evil", tmp_path / "pulled")
    assert not (tmp_path / "owned").exists()


def test_card_shows_what_an_evaluation_of_several_models_found_for_this_one(hub, make_checkpoint, tmp_path):
    _, folder = make_checkpoint()
    row = {"task": "copa", "metric": "accuracy", "low": 0.5, "high": 0.7, "items": 100}
    results = {
        "models": [{"name": "ours", "path": str(folder)}, {"name": "other", "path": "somebody/else"}],
        "tasks": {"copa": {"kind": "multiple_choice", "description": "COPA"}},
        "results": [{**row, "model": "ours", "value": 0.61}, {**row, "model": "other", "value": 0.99}],
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    push(folder, "owner/tiny", results=path)
    card = hub.files("owner/tiny")["README.md"].decode()
    assert "| 0.61 |" in card and "0.99" not in card and "model-index:" in card
    results["models"][0]["path"] = "elsewhere"
    path.write_text(json.dumps(results))
    with pytest.raises(HubError, match="holds no results of"):
        push(folder, "owner/tiny", results=path)
    with pytest.raises(HubError, match="holds no results of"):
        push(folder, "owner/tiny", results=tmp_path / "none.json")


def test_a_residual_model_is_one_repository(hub, make_checkpoint, tokenizer, tmp_path):
    generator, _ = make_checkpoint()
    pair = hf_gpt.ResidualLanguageModel(generator, hf_gpt.make_discriminator("ngram_cnn", generator), tokenizer)
    pair.save_pretrained(tmp_path / "pair")
    pushed = hf_gpt.push(tmp_path / "pair", "ann/pair")
    assert {"residual.json", "custom_generate/generate.py", "discriminator/config.json"} <= set(pushed.files)
    assert "generate.py" not in pushed.files
    back = hf_gpt.ResidualLanguageModel.from_pretrained("ann/pair")
    weights = pair.discriminator.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in back.discriminator.state_dict().items())
    ids = tokenizer("the fox", return_tensors="pt")
    assert back.generate(**ids, max_new_tokens=4, num_candidates=2).shape[1] <= ids["input_ids"].shape[1] + 4


def test_a_checkpoint_in_the_cache_is_evaluated_without_the_hub(hub, make_checkpoint, monkeypatch):
    from huggingface_hub import constants

    from hf_gpt.evaluation.tasks.loading import open_candidate

    _, folder = make_checkpoint()
    push(folder, "ann/plain")
    first = open_candidate("plain", "ann/plain", device="cpu")
    hub.close()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = open_candidate("plain", "ann/plain", device="cpu")
    assert again.discriminator is None
    assert torch.equal(first.model.get_input_embeddings().weight, again.model.get_input_embeddings().weight)
