"""Images and sounds through `hf-gpt finetune`: recipes, groups held out, changed copies, files and report."""

import io
import json
import wave

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoProcessor

from hf_gpt.cli import finetune
from hf_gpt.cli.finetune import main
from hf_gpt.data.examples import Example, hold_out_groups
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.modalities import HfGptAudioFeatureExtractor, HfGptImageFeatureExtractor
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.settings import RECIPES
from hf_gpt.training.tasks import RECIPES_OF_TASKS, make_task
from hf_gpt.training.tasks.modality_examples import Audio, Images, copies, value_vectors


@pytest.fixture
def run(tmp_path):
    """Runs a task's recipe, cut down to seconds; returns the exit status."""

    def call(task, **changes):
        settings = yaml.safe_load((RECIPES / f"{RECIPES_OF_TASKS[task]}.yaml").read_text())
        tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        settings["config_overrides"] = {**settings["config_overrides"], **tiny}
        settings |= {"codebook_size": 8, "augmented_copies": 1, "samples_per_class": 2, "max_steps": 3}
        settings |= {"max_train_samples": 60, "max_eval_samples": 8, "output_dir": str(tmp_path / "run"), **changes}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings))
        return main(["--config", str(path)])

    return call


def test_images_are_classified(run, tmp_path, capsys):
    assert run("image_classification") == 0
    folder = tmp_path / "run"
    assert "8 of 8 predictions are the same" in capsys.readouterr().out
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    # The image itself is left out.
    assert len(lines) == 8 and all(set(line) == {"label", "prediction"} for line in lines)
    processor = AutoProcessor.from_pretrained(folder / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    examples = Images().built_in(TaskArguments())
    (image,) = [e["signal"] for e in examples[:1]]
    with torch.no_grad():
        logits = model(**processor([image], return_tensors="pt")).logits
    assert logits.shape == (1, 10) and model.config.id2label[3] == "3"


def test_images_are_drawn_and_completed(run, tmp_path, capsys):
    from PIL import Image

    assert run("image_generation", patch_size=1, max_length=66, max_new_tokens=65) == 0
    folder = tmp_path / "run"
    assert "8 of 8 predictions are the same" in capsys.readouterr().out
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 <= metrics["eval_recognised"] <= 1 and metrics["eval_judge_on_real"] > 0.3
    # Ten classes of two images of 8 pixels, each six times enlarged, with gaps of 4 pixels.
    assert Image.open(folder / "samples.png").size == (2 * 52 + 4, 10 * 52 + 4)
    whole, given, _ = np.split(np.asarray(Image.open(folder / "completions.png"))[4:], 3)
    # The upper halves that were given are those of the whole images, the lower ones were black.
    assert np.array_equal(given[:24], whole[:24]) and given[24:48, 4:52].max() == 0
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "http" not in page.split("<main>")[1].split("src=")[1][:30]
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert model.generation_config.do_sample and model.generation_config.temperature == 0.7


def test_sounds_of_a_voice_that_was_not_trained_on(run, tmp_path):
    assert run("sound_classification") == 0
    settings = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert settings["held_out_groups"] == ["string"]
    lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["voice"] for line in lines} == {"string"}
    extractor = AutoProcessor.from_pretrained(tmp_path / "run" / "model").feature_extractor
    assert (extractor.loudness_share, extractor.trim_range) == (1.0, 6.0)


def test_a_prediction_can_sum_up_changed_copies(run, tmp_path, capsys):
    assert run("sound_classification", eval_copies=3) == 0
    assert "8 of 8 predictions are the same" in capsys.readouterr().out
    assert len((tmp_path / "run" / "predictions.jsonl").read_text().splitlines()) == 8


def test_copies_that_are_judged_count_alike_and_depend_on_their_signal_alone():
    task = make_task(TaskArguments(task="image_classification", eval_copies=2, class_names=["0", "1"]))
    examples = [Example({"signal": np.eye(8) * 16, "label": 0}), Example({"signal": np.ones((8, 8)), "label": 1})]
    task.learn(examples, examples)
    processor = task.make_processing_class(examples)
    rows = task.encode(examples, processor, is_training=False)
    assert rows["labels"] == [0, 0, 0, 1, 1, 1]
    assert rows["input_ids"][3:] == task.encode(examples[1:], processor, is_training=False)["input_ids"]
    assert len({tuple(ids) for ids in rows["input_ids"][:3]}) == 3
    assert rows["input_ids"][0] == processor([np.eye(8) * 16])["input_ids"][0]
    # Two of three votes are for class 1, but all together are for class 0.
    logits = torch.tensor([[4.0, 0], [0, 1], [0, 1], [0, 4], [1, 0], [1, 0]])
    outputs = task.reduce_logits(logits, None).numpy()
    np.testing.assert_allclose(np.exp(outputs).sum(-1), 1, rtol=1e-6)
    assert task.predictions(outputs, examples, rows) == ["0", "1"]
    generation = make_task(TaskArguments(task="image_generation", eval_copies=2, class_names=["0", "1"]))
    generation.learn(examples, examples)
    assert len(generation.encode(examples, processor, is_training=False)) == 2


def test_a_voice_that_was_not_trained_on_is_taken_away(run, tmp_path, capsys):
    assert run("sound_classification", normalize_by_group=True, max_eval_samples=None) == 0
    assert "32 of 32 predictions are the same" in capsys.readouterr().out
    processor = AutoProcessor.from_pretrained(tmp_path / "run" / "model")
    assert processor.feature_extractor.mean_voice.shape == (16, 16)


def test_sounds_are_normalised_by_their_own_group():
    args = TaskArguments(task="sound_classification", group_column="voice", normalize_by_group=True, num_frames=8)
    args.codebook_size = 8
    task = make_task(args)
    examples = task.built_in_examples()[:36]
    task.learn(examples, examples)
    assert task.columns["group_column"] == "voice" and task.predicts_together
    processor = task.make_processing_class(examples)
    extractor = processor.feature_extractor
    flutes = [task.array(example) for example in examples if example["voice"] == "flute"]
    rows = task.encode(examples, processor, is_training=False)
    wanted = extractor.encode(flutes[0], voice=extractor.voice(flutes))
    assert processor.values_of(rows[0]["input_ids"]) == wanted.tolist()
    for changes in ({"group_column": None}, {"task": "sound_generation"}):
        other = make_task(TaskArguments(**{**vars(args), **changes}))
        other.learn(examples, examples)
        with pytest.raises(ConfigError, match="needs --group_column"):
            other.make_processing_class(examples)
    args.num_frames = None
    with pytest.raises(ConfigError, match="num_frames"):
        task.make_processing_class(examples)


def test_sounds_are_written_as_files(run, tmp_path):
    assert run("sound_generation", max_eval_samples=4) == 0
    names = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert "up-6.wav" in names and "completed-0.wav" in names and len(names) == 4 * 2 + 3 * 4
    with wave.open(io.BytesIO((tmp_path / "run" / "samples" / "whole-0.wav").read_bytes())) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        assert 0.05 < file.getnframes() / 8000 < 0.4
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:audio/wav;base64," in page and "media-src data:" in page


def test_a_token_a_sample(run, tmp_path):
    options = {"audio_encoding": "mu_law", "num_frames": None, "max_length": 40, "max_new_tokens": 30}
    assert run("sound_generation", max_eval_samples=2, **options) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    # 256 levels, four classes, the end and the padding, rounded up.
    assert model.config.vocab_size == 320
    with wave.open(str(tmp_path / "run" / "samples" / "whole-0.wav")) as file:
        assert file.getnframes() == 38


def test_a_generator_becomes_a_classifier(run, tmp_path, capsys):
    first = str(tmp_path / "first")
    assert run("image_generation", output_dir=first) == 0
    changed = {"is_causal": False, "classifier_pooling": "mean"}
    assert run("image_classification", model_name_or_path=f"{first}/model", config_overrides=changed) == 0
    one, other = (AutoProcessor.from_pretrained(path) for path in (f"{first}/model", tmp_path / "run" / "model"))
    assert np.array_equal(one.feature_extractor.codebooks, other.feature_extractor.codebooks)
    capsys.readouterr()
    text_model = tmp_path / "text"
    from hf_gpt import HfGptConfig, HfGptForCausalLM
    from hf_gpt.data.tokenizer import train_tokenizer

    HfGptForCausalLM(
        HfGptConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(text_model)
    train_tokenizer(["text"], 300).save_pretrained(text_model)
    assert run("image_classification", model_name_or_path=str(text_model), overwrite_output_dir=True) == 2
    assert "needs a processor of signals" in capsys.readouterr().err


def test_groups_are_held_out_whole():
    examples = [Example({"speaker": name, "n": n}) for n, name in enumerate(["a", "b", "c", "a"])]
    train, held_out = hold_out_groups(examples, "speaker", ["a", "c"])
    assert [e["n"] for e in train] == [1] and [e["n"] for e in held_out] == [0, 2, 3]
    for groups, column, message in (
        (["a", "b", "c"], "speaker", "every group"),
        (["d"], "speaker", "no example is of 'd'"),
        (["a"], None, "needs --group_column"),
    ):
        with pytest.raises(CorpusError, match=message):
            hold_out_groups(examples, column, groups)


@pytest.mark.parametrize("signal", ["text", [[1, 2], [3]], [], None])
def test_what_is_no_signal_is_named(signal):
    example = Example({"signal": signal, "label": 1})
    example.position = "rows.jsonl, line 7"
    with pytest.raises(CorpusError, match="line 7"):
        make_task(TaskArguments(task="image_classification")).array(example)


def test_settings_that_do_not_suit_are_errors():
    task = make_task(TaskArguments(task="image_classification", patch_size=3))
    examples = [Example({"signal": np.eye(8).tolist(), "label": n % 2}) for n in range(4)]
    task.learn(examples, examples)
    with pytest.raises(ConfigError, match="must divide"):
        task.make_processing_class(examples)
    other = make_task(TaskArguments(task="image_classification"))
    other.learn(examples, examples)
    processor = other.make_processing_class(examples)
    odd = [Example({"signal": np.eye(7).tolist(), "label": 1})]
    with pytest.raises(ConfigError, match="Resize it"):
        other.encode(odd, processor, is_training=False)


def test_changed_copies_differ_a_little_and_are_the_same_each_time():
    images = [np.asarray(example["signal"]) for example in Images().built_in(TaskArguments())[:20]]
    extractor = HfGptImageFeatureExtractor()
    rows = copies(Images(), extractor, images, 3, seed=1)
    again = copies(Images(), extractor, images, 3, seed=1)
    assert all(
        np.array_equal(a, b) for one, other in zip(rows, again, strict=True) for a, b in zip(one, other, strict=True)
    )
    own = np.mean([np.abs(row[0] - copy).mean() for row in rows for copy in row[1:]])
    others = np.mean([np.abs(row[0] - other[0]).mean() for row in rows for other in rows if other is not row])
    assert 0 < own < others
    slight = copies(Images(), extractor, images, 3, seed=1, strength=0.2)
    assert 0 < np.mean([np.abs(row[0] - copy).mean() for row in slight for copy in row[1:]]) < own / 2
    still = copies(Images(), extractor, images, 1, seed=1, strength=0.0)
    assert all(np.array_equal(*row) for row in still)

    sounds = [np.asarray(example["signal"]) for example in Audio().built_in(TaskArguments())[::20]]
    for options in ({}, {"num_frames": 8}, {"num_frames": 8, "loudness_share": 1.0}):
        extractor = HfGptAudioFeatureExtractor(num_groups=4, **options).fit(sounds, 8)
        for row in copies(Audio(), extractor, sounds, 4, seed=0):
            assert all(len(values) % 4 == 0 and values.max() < 32 for values in row)
            assert len({len(values) for values in row}) == 1 or not options


def test_values_begin_as_what_they_stand_for():
    vectors = value_vectors(HfGptImageFeatureExtractor())
    distances = np.linalg.norm(vectors[0] - vectors, axis=1)
    assert np.all(np.diff(distances[:10]) > 0)
    rng = np.random.default_rng(0)
    sounds = [rng.normal(size=2000) * 0.1 for _ in range(4)]
    extractor = HfGptAudioFeatureExtractor(num_mel_bins=8, num_groups=2).fit(sounds, 5)
    vectors = value_vectors(extractor)
    assert vectors.shape == (10, 10)
    # Groups share no column, so what one says is never taken for what the other says.
    assert np.abs(vectors[:5, 5:]).max() == 0 and np.abs(vectors[5:, :5]).max() == 0

    task = make_task(TaskArguments(task="sound_classification"))
    task.names = ["a", "b"]
    from hf_gpt import HfGptConfig, HfGptForSequenceClassification, HfGptModalityProcessor

    processor = HfGptModalityProcessor.create(extractor, task.names)
    model = HfGptForSequenceClassification(
        HfGptConfig(vocab_size=14, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, pad_token_id=1)
    )
    before = model.model.embed_tokens.weight.detach().clone()
    task.prepare_model(model, processor)
    after = model.model.embed_tokens.weight.detach()
    assert torch.equal(after[:4], before[:4])
    # A random projection keeps angles about as they were.
    found = torch.nn.functional.cosine_similarity(after[4:, None], after[None, 4:], dim=-1).numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.corrcoef(found.reshape(-1), (unit @ unit.T).reshape(-1))[0, 1] > 0.9


def test_finetune_knows_no_task_without_a_recipe():
    assert set(RECIPES_OF_TASKS) <= set(finetune.TASKS)
    assert all((RECIPES / f"{recipe}.yaml").is_file() for recipe in RECIPES_OF_TASKS.values())
