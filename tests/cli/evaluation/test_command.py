import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

import hf_gpt
from hf_gpt.cli.evaluation import run as evaluation
from hf_gpt.cli.evaluation.harness import harness_record, is_harness_task
from hf_gpt.cli.main import main
from hf_gpt.evaluation.statistics.curves import Plane, Point, hypervolume
from hf_gpt.evaluation.tasks.results import REAL
from hf_gpt.reporting.model_card import model_index


@pytest.fixture
def evaluate(one, two, data, tmp_path, capsys):
    """Runs the command on both models; returns its status, the results and what it printed."""

    def run(*options, tasks=("choices", "pairs"), models=None, folder="out"):
        output = tmp_path / folder
        files = [name if ":" in name else str(data / f"{name}.yaml") for name in tasks]
        argv = [*(models or (str(one), str(two))), "--tasks", *files, "--output_dir", str(output), "--device", "cpu"]
        status = main(["eval", *argv, "--bootstrap", "50", *options])
        path = output / "results.json"
        return status, json.loads(path.read_text()) if path.exists() else None, capsys.readouterr()

    return run


def test_results_in_four_forms_agree(evaluate, tmp_path):
    status, results, printed = evaluate()
    assert status == 0 and printed.err == ""
    rows = {(row["task"], row["model"], row["metric"]): row for row in results["results"]}
    assert len(rows) == len(results["results"]) == 8
    with (tmp_path / "out" / "results.csv").open() as file:
        for row in csv.DictReader(file):
            held = rows[row["task"], row["model"], row["metric"]]
            assert float(row["value"]) == held["value"] and float(row["low"]) == held["low"]
    markdown = (tmp_path / "out" / "results.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    accuracy = rows["choices", "two", "accuracy"]
    shown = f"{accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
    assert shown in markdown and shown in page and markdown in printed.out
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"] and accuracy["items"] == 24
    assert not re.search(r"<script|(?:src|href)=\"(?!#|data:)", page)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "cache",
        "report.html",
        "results.csv",
        "results.json",
        "results.md",
    }


def test_python_gives_what_the_command_writes(evaluate, one, data, tmp_path):
    status, expected, _ = evaluate(tasks=("choices",), models=[str(one)])
    options = {"output_dir": str(tmp_path / "python"), "device": "cpu", "bootstrap": 50}
    results = hf_gpt.evaluate([str(one)], [str(data / "choices.yaml")], **options)
    assert status == 0 and results["results"] == expected["results"]
    assert (tmp_path / "python" / "report.html").is_file()


def test_differences_are_of_the_models_figures(evaluate):
    _, results, _ = evaluate()
    values = {(row["task"], row["model"], row["metric"]): row["value"] for row in results["results"]}
    assert {row["metric"] for row in results["comparisons"]} == {"accuracy", "accuracy_norm", "sacrebleu", "chrf"}
    for row in results["comparisons"]:
        gap = values[row["task"], row["first"], row["metric"]] - values[row["task"], row["second"], row["metric"]]
        assert row["difference"] == pytest.approx(gap)
        assert row["low"] <= gap <= row["high"] and row["p_value"] <= row["p_adjusted"] <= 1


def test_a_model_against_itself_does_not_differ(evaluate, one):
    _, results, _ = evaluate(models=(f"a={one}", f"b={one}"), tasks=("choices",))
    assert [entry["name"] for entry in results["models"]] == ["a", "b"]
    assert all(row["difference"] == 0 and row["p_value"] == 1 for row in results["comparisons"])


def test_texts_from_nothing_have_intervals_over_seeds_and_stand_beside_real_ones(evaluate, tmp_path):
    from scipy.stats import sem, t

    status, results, _ = evaluate("--seeds", "0", "1", "2", tasks=("free",))
    rows = {(row["model"], row["metric"]): row for row in results["results"]}
    assert status == 0 and {model for model, _ in rows} == {"one", "two", REAL}
    (path,) = (tmp_path / "out" / "cache").glob("free--one--*.json")
    values = [metrics["bleu_3"] for metrics in json.loads(path.read_text())["metrics"]]
    row = rows["one", "bleu_3"]
    assert row["interval"] == "seeds" and row["seeds"] == 3 and row["items"] == 40
    wanted = t.interval(0.95, 2, np.mean(values), sem(values))
    assert (row["low"], row["high"]) == pytest.approx(wanted) and row["value"] == pytest.approx(np.mean(values))
    assert rows[REAL, "tfidf_auc"]["interval"] == "metric" and rows[REAL, "n_hyps"]["value"] == 40
    assert {row["method"] for row in results["comparisons"]} == {"seeds (Welch)"}
    assert len(results["samples"]) == 3 and set(results["samples"][0]["texts"]) == {"one", "two", REAL}


def test_an_interrupted_run_goes_on(evaluate, monkeypatch, tmp_path):
    done = []
    run_task = evaluation.run_task

    def stop_at_the_third(spec, candidate, *args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append((candidate.name, spec.name))
        return run_task(spec, candidate, *args)

    monkeypatch.setattr(evaluation, "run_task", stop_at_the_third)
    status, results, printed = evaluate()
    assert status == 130 and results is None and "goes on" in printed.err and "Traceback" not in printed.err
    assert done == [("one", "choices"), ("one", "pairs")] and len(list((tmp_path / "out" / "cache").iterdir())) == 2

    def note(spec, candidate, *args):
        done.append((candidate.name, spec.name))
        return run_task(spec, candidate, *args)

    monkeypatch.setattr(evaluation, "run_task", note)
    status, results, _ = evaluate()
    assert status == 0 and done[2:] == [("two", "choices"), ("two", "pairs")]
    _, fresh, _ = evaluate(folder="fresh")
    assert fresh["results"] == results["results"] and fresh["comparisons"] == results["comparisons"]
    # Nothing is left to do but what depends on the record alone.
    del done[:]
    assert evaluate("--overwrite", "--bootstrap", "20")[0] == 0 and done == []
    # Other data is another record.
    assert evaluate("--overwrite", "--limit", "5")[0] == 0 and len(done) == 4


def test_a_cut_record_is_made_anew(evaluate, tmp_path):
    _, results, _ = evaluate()
    for path in (tmp_path / "out" / "cache").iterdir():
        path.write_text(path.read_text()[:50])
    assert evaluate()[1]["results"] == results["results"]


def test_a_retrained_model_is_evaluated_anew(evaluate, two, tmp_path, make_folder):
    copy = tmp_path / "copy" / "two"
    shutil.copytree(two, copy)
    _, before, _ = evaluate(models=(str(copy),), tasks=("choices",))
    shutil.copytree(make_folder("third", seed=2), copy, dirs_exist_ok=True)
    assert evaluate(models=(str(copy),), tasks=("choices",))[1]["results"] != before["results"]


def test_curves(evaluate, tmp_path):
    options = ("--curve", "--temperatures", "0.5", "1", "--top_ps", "--top_ks", "3", "--min_ps")
    status, results, _ = evaluate(*options, tasks=("free",))
    assert status == 0
    (curve,) = results["curves"]
    points = [Point(**point) for point in curve["points"]]
    assert {(p.model, p.setting) for p in points} == {
        (REAL, ""),
        *((model, s) for model in ("one", "two") for s in ("temperature=0.5", "temperature=1", "top_k=3")),
    }
    plane = Plane("BLEU-4", "self-BLEU-4")
    for model, area in curve["hypervolume"].items():
        own = [point for point in points if point.model == model]
        assert area == pytest.approx(hypervolume(own, tuple(curve["reference"]), plane))
    assert {(best["model"], best["metric"]) for best in curve["best"]} == {("one", "tfidf_auc"), ("two", "tfidf_auc")}
    values = {(row["model"], row["metric"]): row["value"] for row in results["results"]}
    for best in curve["best"]:
        assert best["mean"] == values[f"{best['model']}, {best['setting']}", "tfidf_auc"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 2 and "All samplers in numbers" in page


def test_a_discriminator_colours_the_samples(evaluate, discriminator, tmp_path):
    assert evaluate("--discriminator", str(discriminator), tasks=("free",))[0] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    section = page[page.index('id="heatmap"') :]
    assert section.count("color-mix") > 10 and "logit" in section and 'style="background' in section


def test_model_card(evaluate):
    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard_data import model_index_to_eval_results

    _, results, _ = evaluate()
    index = model_index(results, "two", name="owner/two")
    assert yaml.safe_load(yaml.safe_dump(index)) == index
    name, read = model_index_to_eval_results(index)
    values = {(r["task"], r["metric"]): r["value"] for r in results["results"] if r["model"] == "two"}
    assert name == "owner/two"
    assert {(one.task_name, one.metric_type): one.metric_value for one in read} == values
    assert {one.task_type for one in read} == {"text-generation", "translation"}
    assert ModelCardData(model_name="owner/two", eval_results=read).to_dict()["model-index"]
    with pytest.raises(ValueError, match="one, two"):
        model_index(results, "three")


def test_harness_record_keeps_items_of_means_alone():
    found = {
        "results": {"t": {"acc,none": 0.5, "acc_stderr,none": 0.1, "perplexity,none": 9.0, "alias": "t"}},
        "samples": {"t": [{"acc": 1.0, "perplexity": -1.0}, {"acc": 0.0, "perplexity": -2.0}]},
    }
    assert harness_record(found, "t") == {
        "scores": {"acc": [1.0, 0.0]},
        "aggregates": {"acc": 0.5, "perplexity": 9.0},
        "items": 2,
    }


def test_tasks_of_the_harness_are_told_apart(tmp_path, data):
    (tmp_path / "theirs.yaml").write_text("task: x\noutput_type: multiple_choice\n")
    assert is_harness_task("lm_eval:hellaswag") and is_harness_task(str(tmp_path / "theirs.yaml"))
    assert not is_harness_task("hellaswag") and not is_harness_task(str(data / "choices.yaml"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no model"),
        (["{one}"], "no task"),
        (["{one}", "--tasks", "helaswag"], "did you mean hellaswag?"),
        (["{one}", "--tasks", "copa", "--data", "nowhere"], "no such file or folder"),
        (["{one}", "--tasks", "copa", "--data", "{data}"], "no file zeroshot/multiple_choice/copa.jsonl in"),
        (["{one}", "--tasks", "texts"], "has no data of its own"),
        (["./nowhere", "--tasks", "{data}/choices.yaml"], "there is no folder ./nowhere"),
        (["{one}", "{one}", "{one}", "--tasks", "{data}/choices.yaml"], "Name them apart"),
        (["{one}", "--tasks", "{data}/choices.yaml", "{data}/choices.yaml"], "two tasks are called 'choices'"),
        (["{one}", "--tasks", "{data}/choices.yaml", "--limit", "0"], "--limit must be at least 1"),
        (["{one}", "--tasks", "{data}/choices.yaml", "--seeds", "1", "1"], "different numbers"),
        (["{one}", "--tasks", "a", "b", "--data", "{data}/lines.txt"], "is a file"),
        (["{discriminator}", "--tasks", "{data}/choices.yaml"], "discriminator is a classifier model"),
        (["{discriminator}", "--tasks", "{data}/lm.yaml"], "needs a causal language model"),
        (["{one}", "--tasks", "{data}/choices.yaml", "--curve"], "another kind"),
        (["{one}", "--tasks", "{data}/free.yaml", "--curve", "--top_ps", "2"], "--top_ps must be above 0 and at"),
        (["{one}", "--tasks", "{data}/free.yaml", "--discriminator", "./nowhere"], "there is no folder ./nowhere"),
        (["{one}", "--tasks", "lm_eval:hellaswag"], "[lm-eval]"),
        (["{one}", "--tasks", "{data}/few.yaml"], "task few, metric tfidf_test"),
        (["{one}", "--tasks", "{data}/option.yaml"], "task option, metric sacrebleu"),
    ],
)
def test_slips_are_answered_in_one_line_before_anything_is_written(
    argv, message, one, discriminator, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.chdir(tmp_path)
    free, pairs = (data / f"{name}.yaml" for name in ("free", "pairs"))
    (data / "few.yaml").write_text(free.read_text().replace("samples: 40", "samples: 5"))
    (data / "option.yaml").write_text(f"{pairs.read_text()}metrics: {{sacrebleu: {{tokenise: 13a}}}}\n")
    argv = [word.format(one=one, discriminator=discriminator, data=data) for word in argv]
    assert main(["eval", *argv, "--output_dir", str(tmp_path / "out"), "--device", "cpu"][: None if argv else 1]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "results.json").exists()


def test_results_of_another_evaluation_are_not_replaced(evaluate, one):
    before = evaluate(tasks=("choices",))[1]
    status, after, printed = evaluate(models=(str(one),), tasks=("choices",))
    assert status == 2 and after == before and "--overwrite" in printed.err
    assert evaluate(tasks=("pairs",))[0] == 2
    # More models and tasks take nothing away.
    status, more, _ = evaluate(tasks=("choices", "pairs"))
    assert status == 0 and [row for row in more["results"] if row["task"] == "choices"] == before["results"]
    assert evaluate("--overwrite", models=(str(one),), tasks=("choices",))[0] == 0


def test_list(capsys):
    assert main(["eval", "--list"]) == 0
    assert re.search(r"hellaswag +multiple_choice", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_browser_shows_the_page_without_complaint(evaluate, discriminator, tmp_path, width):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    options = ("--curve", "--temperatures", "0.5", "1", "--top_ps", "--top_ks", "3", "--min_ps")
    assert evaluate(*options, "--discriminator", str(discriminator), tasks=("free",))[0] == 0
    assert evaluate("--discriminator", str(discriminator), tasks=("choices", "pairs", "free"), folder="plain")[0] == 0
    for folder in ("out", "plain"):
        probe = (
            "const d=f.contentDocument.documentElement;document.title=d.scrollWidth>d.clientWidth?'overflows':'fits'"
        )
        style = f"border:0;width:{width}px;height:3000px"
        frame = f'<iframe id="f" src="{folder}/report.html" style="{style}" onload="{probe}"></iframe>'
        (tmp_path / "frame.html").write_text(f'<body style="margin:0">{frame}')
        shot = tmp_path / f"{folder}.png"
        flags = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
        ]
        command = [browser, *flags, f"--window-size={max(width, 500)},3000"]
        address = (tmp_path / "frame.html").as_uri()
        seen = subprocess.run([*command, f"--screenshot={shot}", address], capture_output=True, text=True, timeout=120)
        assert shot.stat().st_size > 10_000 and "CONSOLE" not in seen.stderr
        dom = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120)
        assert "<title>fits</title>" in dom.stdout


def test_a_pretrained_model_judges_samples_and_real_texts(evaluate, two, tmp_path, capsys):
    assert evaluate("--judge", str(two), "--bootstrap", "20", tasks=("free",))[0] == 0
    rows = json.loads(next(tmp_path.rglob("results.json")).read_text())["results"]
    judged = {row["model"]: row for row in rows if row["metric"] == "judge_nats"}
    assert len(judged) == 3 and all(row["low"] <= row["value"] <= row["high"] for row in judged.values())
    from hf_gpt.evaluation.loading import compute

    with pytest.raises(ValueError, match="model is missing"):
        compute("judge_nats", ["a text"])
    with pytest.raises(ValueError, match="no words"):
        compute("judge_nats", [" "], model=str(two))


def test_a_judge_that_is_not_there_is_one_line(evaluate):
    status, _, printed = evaluate("--judge", "./nowhere", tasks=("free",))
    assert status == 2 and "there is no folder ./nowhere" in printed.err
