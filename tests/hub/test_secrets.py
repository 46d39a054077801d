"""Access tokens are found however a file spells them, and nothing hidden or linked goes along."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from safetensors.numpy import save_file

from hf_gpt.errors import HubError
from hf_gpt.hub.files import checkpoint_files
from hf_gpt.hub.secrets import holds_token, without_tokens
from hf_gpt.hub.transfer import push


# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "hugging face": "hf_" + "aB3" * 12,
    "within a name": "MY_hf_" + "aB3" * 12,
    "openai": "sk-" + "proj-" + "Ab1_" * 8,
    "github": "ghp_" + "Ab1" * 12,
    "github, fine": "github_pat_" + "Ab1_" * 8,
    "gitlab": "glpat-" + "Ab1-" * 6,
    "aws": "AKIA" + "ABCD1234" * 2,
    "google": "AIza" + "Ab1-_" * 7,
    "slack": "xoxb-" + "123-" * 6,
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("form", ["plain", "json", "escaped", "utf-16-le", "utf-16-be", "utf-16"])
def test_a_token_is_found_in_text(tmp_path, name, form):
    secret, path = SECRETS[name], tmp_path / "file.json"
    text = {
        "json": json.dumps({"a": [{"key": f"\n{secret}\t"}]}),
        "escaped": json.dumps({secret: 1}).replace("_", "\\u005f").replace("-", "\\u002d"),
    }.get(form, f"before {secret} after")
    path.write_bytes(text.encode(form if form.startswith("utf") else "utf-8"))
    assert holds_token(path)
    assert secret not in without_tokens(f"it was {secret}")


def test_a_token_is_found_in_what_an_image_says(tmp_path):
    for number, (kind, compressed) in enumerate([("text", False), ("text", True), ("itext", True)]):
        notes = PngImagePlugin.PngInfo()
        add = notes.add_text if kind == "text" else notes.add_itxt
        add("Comment", f"made with {SECRETS['hugging face']} " + "x" * 2000, zip=compressed)
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png", pnginfo=notes)
        assert holds_token(tmp_path / f"{number}.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "clean.png")
    assert not holds_token(tmp_path / "clean.png")


def test_a_token_is_found_in_the_header_of_weights_and_numbers_are_not_read(tmp_path):
    weights = {"a": np.frombuffer(SECRETS["hugging face"].encode().ljust(40), np.uint8)}
    save_file(weights, tmp_path / "clean.safetensors")
    assert not holds_token(tmp_path / "clean.safetensors")
    save_file(weights, tmp_path / "told.safetensors", metadata={"note": SECRETS["aws"]})
    assert holds_token(tmp_path / "told.safetensors")


@pytest.mark.parametrize(
    "text", ["task-manager-of-a-long-name-here", "shf_" + "a" * 40, "hf_gpt_model", "AKIAabc", "{"]
)
def test_words_are_no_tokens(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    assert not holds_token(tmp_path / "file.json")


PNG = b"\x89PNG\r\n\x1a\n"
LONG = struct.pack(">I4s", 2**31, b"zTXt") + zlib.compress(b"a")


@pytest.mark.parametrize("content", [b"", PNG, PNG + LONG, b"\xff" * 9])
def test_damaged_files_are_read_without_an_error(tmp_path, content):
    for name in ("a.png", "a.safetensors", "a.json"):
        (tmp_path / name).write_bytes(content)
        assert not holds_token(tmp_path / name)


def test_hidden_files_stay(make_checkpoint):
    _, folder = make_checkpoint()
    (folder / "plots").mkdir()
    for name in (".secret.png", "plots/.secret.png", "plots/loss.png"):
        (folder / name).write_bytes(b"image")
    found = checkpoint_files(folder)
    assert "plots/loss.png" in found.paths and not any(".secret" in name for name in found.paths)


def test_a_linked_discriminator_stays(hub, make_checkpoint):
    _, folder = make_checkpoint()
    _, other = make_checkpoint("HfGptForSequenceClassification", folder="private", num_labels=1)
    (folder / "discriminator").symlink_to(other)
    with pytest.raises(HubError, match="discriminator is a link"):
        push(folder, "owner/tiny")
    assert "owner/tiny" not in hub.repositories
    # Named, it goes along.
    assert "discriminator/config.json" in push(folder, "owner/tiny", discriminator=other).files
