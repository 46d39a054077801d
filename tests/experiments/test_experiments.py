import gzip
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from eval.experiments.common.data import read_lines
from eval.experiments.common.reports import markdown_table
from eval.experiments.detection import seqxgpt_detection, texygen_samples
from eval.experiments.pretraining import equal_time


def test_every_script_can_be_imported():
    root = Path(__file__).parents[2]
    names = [
        path.relative_to(root).with_suffix("") for part in ("eval", "training") for path in (root / part).rglob("*.py")
    ]
    assert len(names) > 40
    for name in names:
        importlib.import_module(".".join(name.parts).removesuffix(".__init__"))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A small made-up copy of the data folder."""
    generator = np.random.default_rng(0)
    words = [f"word{n}" for n in range(30)]
    for path in texygen_samples.SOURCES.values():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [" ".join(generator.choice(words, generator.integers(4, 9))) for _ in range(130)]
        file.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    monkeypatch.setenv("HF_GPT_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_texygen_page_has_every_sample_and_metric(data, tmp_path, capsys):
    pytest.importorskip("mauve")
    folder = tmp_path / "out"
    arguments = ["--output_dir", str(folder), "--size", "40", "--references", "50", "--epochs", "1"]
    assert texygen_samples.main(arguments) == 0
    result = json.loads((folder / "texygen_samples.json").read_text())
    assert [row["sample"] for row in result["rows"]] == list(texygen_samples.SOURCES)
    for row in result["rows"]:
        assert all(row[column.partition(":")[0]] is not None for column in texygen_samples.COLUMNS.values())
    assert "| SeqGAN | " in (folder / "texygen_samples.md").read_text()


def test_real_sample_and_references_share_no_line(data):
    samples, references, training = texygen_samples.read_samples(40, 60, 0)
    every = read_lines("lm/coco_captions/image_coco.txt")
    assert sorted([*samples["real"], *training]) == sorted(every)
    assert references == training[:60] and len(samples["MLE"]) == 40


def test_machine_texts_begin_after_the_human_prefix(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_GPT_DATA", str(tmp_path))
    folder = tmp_path / "detection" / "seqxgpt"
    folder.mkdir(parents=True)
    rows = [
        {"text": "one two three four five six", "label": 0, "generator": "human", "human_prefix_chars": 27},
        {"text": "human part machine wrote all this", "label": 1, "generator": "gpt2", "human_prefix_chars": 10},
        {"text": "human part short", "label": 1, "generator": "gpt2", "human_prefix_chars": 10},
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "continuation.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    found = seqxgpt_detection.read_texts("continuation", 3, 0)
    # The human text is entered at the tenth character too, in the middle of "three".
    assert found["human"] == ["four five six"]
    assert found["gpt2"] == ["machine wrote all"]
    assert seqxgpt_detection.normalised(["A cat, B."]) == ["a cat , b ."]


def test_tables_and_missing_files(tmp_path, monkeypatch):
    table = markdown_table([{"a": 1.23456, "b": None}, {"b": 2}], {"first": "a:.2f", "second": "b:d"})
    assert table == "| first | second |\n|---|---|\n| 1.23 |  |\n|  | 2 |"
    monkeypatch.setenv("HF_GPT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Set HF_GPT_DATA"):
        read_lines("nothing.txt")


def test_articles_begin_at_headings_of_one_equals_sign():
    text = " \n = A = \n \n text \n = = Part = = \n more \n = B = \n end \n"
    assert [part.strip() for part in equal_time.ARTICLE.split(text)] == [
        "",
        "= A = \n \n text \n = = Part = = \n more",
        "= B = \n end",
    ]
    assert equal_time.ARTICLE.split(" = A = \n = B = \n") == [" = A = \n", " = B = \n"]


def test_the_lstm_of_a_comparison_has_as_many_parameters():
    for corpus in equal_time.CORPORA.values():
        gpt, lstm = (equal_time.build(name, 0, corpus, None).num_parameters() for name in ("hf_gpt", "lstm"))
        assert lstm == pytest.approx(gpt, rel=0.015)


def test_a_model_that_joins_a_comparison_is_timed_beside_the_first(tmp_path, monkeypatch):
    seconds = {"hf_gpt": 2.0, "lstm": 3.0}
    clock = [0.0]

    class Trainer:
        def __init__(self, name):
            self.name = name

        def train(self):
            clock[0] += seconds[self.name] * equal_time.TIMED_STEPS

    monkeypatch.setattr(equal_time, "make_trainer", lambda name, *_: Trainer(name))
    monkeypatch.setattr(equal_time.time, "process_time", lambda: clock[0])
    path = tmp_path / "step_seconds.json"
    assert equal_time.plan_steps(path, ["hf_gpt"], 60, None, {}) == {"hf_gpt": 30}
    # The machine has become half as fast.
    seconds |= {"hf_gpt": 4.0, "lstm": 6.0}
    assert equal_time.plan_steps(path, ["hf_gpt", "lstm"], 60, None, {}) == {"hf_gpt": 30, "lstm": 20}
    assert json.loads(path.read_text()) == {"hf_gpt": 2.0, "lstm": 3.0}


def test_the_table_of_a_comparison_takes_the_best_rates():
    def run(perplexity):
        found = {"validation_perplexity": perplexity, "steps": 5, "cpu_seconds": 1.0, "parameters": 10}
        return {**found, "test_perplexity": perplexity, "test_bits_per_byte": 2.0}

    runs = {("hf_gpt", 4e-3): [run(100), run(50)], ("gpt2", 5e-4): [run(400)], ("gpt2", 1.5e-3): [run(200), run(75)]}
    found = equal_time.table(runs, {"hf_gpt": 4e-3, "gpt2": 1.5e-3})
    assert "| 0.0015 (best) | 2 | 137.5 (75.0 to 200.0) |" in found and "| 0.0005 | 1 |" in found
    assert found.endswith("seed by seed: 2.000, 1.500")


def test_a_comparison_with_less_time_for_the_first_model(tmp_path, monkeypatch, capsys):
    given = []

    def train(name, learning_rate, seed, steps, corpus, data):
        given.append((name, learning_rate, seed, steps, corpus.sizes["hidden_size"]))
        perplexities = {"validation_perplexity": 100 * learning_rate, "test_perplexity": 100 * learning_rate}
        return {**perplexities, "test_bits_per_byte": 2.0, "steps": steps, "cpu_seconds": 1.0, "parameters": 10}

    monkeypatch.setattr(equal_time, "train", train)
    monkeypatch.setattr(equal_time, "prepare", lambda corpus: {})
    monkeypatch.setattr(equal_time, "plan_steps", lambda path, names, *_: dict.fromkeys(names, 30))
    command = ["wikitext-2", "--models", "hf_gpt", "gpt2", "--size", "10m", "--first_share", "0.333"]
    command += ["--rates", "hf_gpt=1", "gpt2=3,2", "--seeds", "0", "5", "--output_dir", str(tmp_path)]
    assert equal_time.main(command) == 0
    first = [("hf_gpt", 1, 0, 10, 320), ("gpt2", 3, 0, 30, 320), ("gpt2", 2, 0, 30, 320)]
    assert given == [*first, ("hf_gpt", 1, 5, 10, 320), ("gpt2", 2, 5, 30, 320)]
    assert "seed by seed: 2.000, 2.000" in capsys.readouterr().out
    assert (tmp_path / "wikitext-2-10m" / "hf_gpt-1-0.333-0.json").exists()
    with pytest.raises(SystemExit):
        equal_time.main(["wikitext-2", "--rates", "gpt3=1"])
    assert "MODEL=RATE,RATE" in capsys.readouterr().err


@pytest.mark.slow
def test_real_text(tmp_path, monkeypatch):
    from eval.experiments.real_text import __main__ as real_text

    lines = [
        f"{who} {what} a {thing} ." for who in ("he", "she", "it") for what in ("has", "sees") for thing in "abcdefgh"
    ]
    folder = tmp_path / "data" / "lm" / "coco_captions"
    folder.mkdir(parents=True)
    (folder / "image_coco.txt").write_text("\n".join(lines * 5), encoding="utf-8")
    monkeypatch.setenv("HF_GPT_DATA", str(tmp_path / "data"))
    command = ["coco", "--seeds", "0", "--num_samples", "40", "--epochs", "2", "--steps", "3"]
    command += ["--generator", "16", "1", "--discriminator", "32", "1", "--output_dir", str(tmp_path / "run")]
    assert real_text.main(command) == 0
    report = (tmp_path / "run" / "results.md").read_text(encoding="utf-8")
    assert report.count(real_text.report.OURS) >= len(real_text.TEMPERATURES) + len(real_text.TOP_P)
    assert (tmp_path / "run" / "coco.png").is_file()
    found = {
        name: json.loads((tmp_path / "run" / "coco-0" / f"{name}.json").read_text())
        for name in ("likelihood", "discriminator", "distilled", "adversarial")
    }
    spent = {name: record["cpu_seconds"] for name, record in found.items()}
    # Likelihood training ends where it is saturated, too.
    rivals = spent["discriminator"] + spent["distilled"] + spent["adversarial"]
    assert found["likelihood"]["saturated"] or spent["likelihood"] >= rivals
