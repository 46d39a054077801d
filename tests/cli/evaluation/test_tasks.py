import dataclasses
import json

import numpy as np
import pytest
import torch

from hf_gpt.errors import UserError
from hf_gpt.evaluation import compute
from hf_gpt.evaluation.statistics.bootstrap import bootstrap
from hf_gpt.evaluation.tasks.choices import score_continuations
from hf_gpt.evaluation.tasks.generation import write_after
from hf_gpt.evaluation.tasks.loading import open_candidate
from hf_gpt.evaluation.tasks.metrics import metrics_of, sample_metrics
from hf_gpt.evaluation.tasks.registry import KINDS, TaskSpec, built_in_tasks, find_task, read_task
from hf_gpt.evaluation.tasks.rows import read_task_rows
from hf_gpt.evaluation.tasks.runner import real_texts, run_task, sample_count, work_of


def run(spec, candidate, rows, seeds=(0,), batch_size=5):
    done = []
    record = run_task(spec, candidate, rows, seeds, batch_size, done.append)
    assert sum(done) == pytest.approx(work_of(spec, rows, seeds))
    return json.loads(json.dumps(record))


def test_built_in_tasks_are_sound_and_of_every_kind():
    tasks = built_in_tasks()
    assert {spec.kind for spec in tasks.values()} == set(KINDS)
    assert all(spec.description and spec.columns for spec in tasks.values())


@pytest.fixture(scope="module")
def far_sighted(make_folder):
    return open_candidate("far", str(make_folder("far", max_position_embeddings=2048)), device="cpu")


@pytest.mark.parametrize(
    "name",
    ["arc_easy", "blimp", "copa", "dialogsum", "hellaswag", "lambada", "multi30k", "nq_open", "piqa", "squad", "wsc"],
)
def test_built_in_tasks_can_be_done(name, far_sighted, read_data_folder):
    spec = dataclasses.replace(find_task(name), max_new_tokens=4)
    rows = read_task_rows(spec, read_data_folder, limit=2)
    metrics = metrics_of(spec, run(spec, far_sighted, rows))
    assert metrics.count == 2 and all(np.isfinite(value) for value in metrics.value().values())


def test_log_likelihood_of_a_continuation_is_the_sum_over_its_tokens(candidate):
    pairs = [("the man", " sits on"), ("", "red bus"), ("a dog ", "runs"), ("a", " big dog near the table")]
    found = score_continuations(candidate, pairs, batch_size=3)
    for (context, continuation), one in zip(pairs, found, strict=True):
        ids = candidate.encode([context.rstrip(), context + continuation])
        row = torch.tensor([[candidate.begin, *ids[1]]])
        with torch.no_grad():
            logps = candidate.model(input_ids=row).logits[0, :-1].log_softmax(-1)
        tokens = ids[1][len(ids[0]) :]
        each = logps[-len(tokens) :].gather(1, torch.tensor(tokens)[:, None])
        assert one.logp == pytest.approx(float(each.sum()), abs=1e-4) and one.tokens == len(tokens)
        assert one.greedy == (logps[-len(tokens) :].argmax(1).tolist() == tokens)


def test_a_context_that_is_too_long_loses_its_beginning(candidate):
    long = "red dog near the bus " * 60
    whole, cut = score_continuations(candidate, [(long, " sits"), (long[105:], " sits")])
    assert whole.logp == pytest.approx(cut.logp, abs=1e-4)
    with pytest.raises(UserError, match="more than one reads"):
        score_continuations(candidate, [("a", f" {long}")])


def test_multiple_choice_by_hand(candidate, data):
    spec = read_task(data / "choices.yaml")
    rows = read_task_rows(spec, data)
    record = run(spec, candidate, rows)
    pairs = [(row["q"], f" {option}") for row in rows for option in row["options"]]
    logps = np.array([one.logp for one in score_continuations(candidate, pairs)]).reshape(-1, 3)
    gold = np.array([row["gold"] for row in rows])
    lengths = np.array([[len(option) for option in row["options"]] for row in rows])
    metrics = metrics_of(spec, record).value()
    assert metrics["accuracy"] == pytest.approx((logps.argmax(1) == gold).mean())
    assert metrics["accuracy_norm"] == pytest.approx(((logps / lengths).argmax(1) == gold).mean())


def test_contexts_are_compared_by_the_same_continuation(candidate):
    spec = TaskSpec("w", "multiple_choice", contexts="c", choices="{end}", answer="gold")
    rows = [{"c": ["the man near the dog", "the dog"], "end": "runs .", "gold": 1}]
    record = run(spec, candidate, rows)
    pairs = [(context, " runs .") for context in rows[0]["c"]]
    assert record["logps"] == [pytest.approx([one.logp for one in score_continuations(candidate, pairs)], abs=1e-4)]


def test_last_words(candidate, texts):
    spec = TaskSpec("l", "last_word")
    rows = [{"text": text} for text in texts[:7]]
    metrics = metrics_of(spec, run(spec, candidate, rows)).value()
    pairs = [(text[:-2], " .") for text in texts[:7]]
    found = score_continuations(candidate, pairs)
    assert metrics["word_perplexity"] == pytest.approx(np.exp(-np.mean([one.logp for one in found])), rel=1e-4)
    assert metrics["accuracy"] == np.mean([one.greedy for one in found])


def test_perplexity_is_the_metrics_own(candidate, data):
    spec = read_task(data / "lm.yaml")
    rows = read_task_rows(spec, data, limit=20)
    metrics = metrics_of(spec, run(spec, candidate, rows)).value()
    wanted = compute(
        "perplexity", [row["text"] for row in rows], model=candidate.model, processing_class=candidate.tokenizer
    )
    assert metrics["perplexity"] == pytest.approx(wanted["perplexity"], rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(wanted["bits_per_byte"], rel=1e-5)


def test_translation_has_the_metrics_figures_and_those_of_every_draw(candidate, data):
    spec = read_task(data / "pairs.yaml")
    rows = read_task_rows(spec, data)
    record = run(spec, candidate, rows)
    # A model that knows a little, or every figure is zero.
    record["predictions"][0] = [
        row["de"][0] if n % 3 else text
        for n, (row, text) in enumerate(zip(rows, record["predictions"][0], strict=True))
    ]
    metrics = metrics_of(spec, record)
    wanted = compute("sacrebleu", record["predictions"][0], record["references"])
    assert metrics.value() == pytest.approx({name: wanted[name] for name in ("sacrebleu", "chrf")})
    weights = np.random.default_rng(0).multinomial(len(rows), np.full(len(rows), 1 / len(rows)))
    positions = np.repeat(np.arange(len(rows)), weights)
    again = compute(
        "sacrebleu", [record["predictions"][0][n] for n in positions], [record["references"][n] for n in positions]
    )
    assert metrics.of(weights)["sacrebleu"] == pytest.approx(again["sacrebleu"])
    assert metrics.of(weights)["chrf"] == pytest.approx(again["chrf"])


@pytest.mark.parametrize(("kind", "metric"), [("summarization", "rouge"), ("question_answering", "squad")])
def test_figures_of_written_texts_are_the_metrics_own(kind, metric, texts):
    spec = TaskSpec("t", kind, prompt="{a}", target="b")
    record = {"predictions": [texts[:9], texts[1:10]], "references": [[text] for text in texts[1:10]]}
    metrics = metrics_of(spec, record).value()
    runs = [compute(metric, predictions, record["references"]) for predictions in record["predictions"]]
    assert metrics == pytest.approx({name: (runs[0][name] + runs[1][name]) / 2 for name in runs[0]})


def test_classes_by_a_classifier_and_by_a_language_model(make_folder, candidate, data):
    spec = read_task(data / "classes.yaml")
    rows = read_task_rows(spec, data)
    folder = make_folder("classifier", "AutoModelForSequenceClassification", num_labels=2)
    classifier = open_candidate("c", str(folder), device="cpu")
    assert classifier.head == "classifier"
    record = run(spec, classifier, rows)
    with torch.no_grad():
        inputs = [torch.tensor([classifier.tokenizer(row["text"])["input_ids"]]) for row in rows]
        wanted = [int(classifier.model(input_ids=ids).logits.argmax()) for ids in inputs]
    assert record == {"predictions": wanted, "references": [row["label"] for row in rows]}
    metrics = metrics_of(spec, record)
    pair = record["predictions"], record["references"]
    assert metrics.value() == pytest.approx(
        {**compute("accuracy", *pair), **compute("f1", *pair), **compute("mcc", *pair)}
    )
    assert set(bootstrap({"c": metrics}, 5)["c"]) == {"accuracy", "f1", "mcc"}
    said = run(spec, candidate, rows)["predictions"]
    pairs = [(f"{row['text']} :", f" {name}") for row in rows for name in ("red", "blue")]
    logps = np.array([one.logp for one in score_continuations(candidate, pairs)]).reshape(-1, 2)
    assert said == logps.argmax(1).tolist()


@pytest.mark.parametrize("pad_token_id", [None, 2])
def test_a_decoder_of_the_library_classifies_each_text_as_if_alone(make_folder, data, texts, pad_token_id):
    folder = make_folder(
        "gpt2", "AutoModelForSequenceClassification", model_type="gpt2", num_labels=2, pad_token_id=pad_token_id
    )
    classifier = open_candidate("c", str(folder), device="cpu")
    # Another padding token than the model's.
    assert classifier.tokenizer.pad_token_id != pad_token_id
    rows = [{"text": text, "label": 0} for text in texts[:40]]
    with torch.no_grad():
        inputs = [torch.tensor([classifier.tokenizer(row["text"])["input_ids"]]) for row in rows]
        wanted = [int(classifier.model(input_ids=ids).logits.argmax()) for ids in inputs]
    assert set(wanted) == {0, 1}
    assert run(read_task(data / "classes.yaml"), classifier, rows)["predictions"] == wanted


def test_what_is_written_depends_on_the_seed_and_the_place_alone(candidate, texts):
    options = {"max_new_tokens": 8, "temperature": 1.0}
    whole = write_after(candidate, texts[:6], seed=3, batch_size=4, **options)
    assert write_after(candidate, texts[:3], seed=3, batch_size=1, **options) == whole[:3]
    assert write_after(candidate, texts[:6], seed=4, batch_size=4, **options) != whole
    greedy = write_after(candidate, texts[:2], seed=0, max_new_tokens=8, temperature=0.0)
    ids = torch.tensor([[candidate.begin, *candidate.encode([texts[0]])[0]]])
    reference = candidate.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
    assert greedy[0] == candidate.tokenizer.decode(reference[0, ids.shape[1] :], skip_special_tokens=True)


def test_stops_and_long_prompts(candidate):
    free = write_after(candidate, ["a man"], seed=0, max_new_tokens=20, temperature=1.0)[0]
    stop = free[3:5]
    assert (
        write_after(candidate, ["a man"], seed=0, max_new_tokens=20, temperature=1.0, stop=[stop])[0]
        == free[: free.index(stop)]
    )
    assert write_after(candidate, ["a man " * 100], seed=0, max_new_tokens=5, temperature=0.0)
    with pytest.raises(UserError, match="no room for a prompt"):
        write_after(candidate, ["a man"], seed=0, max_new_tokens=96, temperature=0.0)


def test_an_encoder_decoder_writes_and_chooses(make_folder, data):
    folder = make_folder("seq2seq", "AutoModelForSeq2SeqLM", model_type="hf_gpt_seq2seq")
    model = open_candidate("s", str(folder), device="cpu")
    assert model.head == "encoder_decoder"
    spec = read_task(data / "pairs.yaml")
    record = run(spec, model, read_task_rows(spec, data, limit=4))
    assert len(record["predictions"][0]) == 4
    with pytest.raises(UserError, match="s writes at most 96 tokens"):
        run(dataclasses.replace(spec, max_new_tokens=97), model, read_task_rows(spec, data, limit=4))
    spec = read_task(data / "choices.yaml")
    assert len(run(spec, model, read_task_rows(spec, data, limit=4))["logps"]) == 4


def test_answers_are_extracted_from_the_passage(make_folder):
    folder = make_folder("extractive", "AutoModelForQuestionAnswering")
    model = open_candidate("q", str(folder), device="cpu")
    spec = TaskSpec("q", "question_answering", prompt="{question}", target="answers")
    context = "the man sits on the red bus near the table . " * 8
    rows = [{"question": "the dog", "context": context, "answers": {"text": ["the man"], "answer_start": [0]}}] * 3
    record = run(spec, model, rows, batch_size=2)
    assert model.head == "extractive" and record["references"] == [["the man"]] * 3
    assert all(answer in context for answer in record["predictions"][0])


def test_real_texts_are_halved_without_a_text_in_both(data):
    spec = read_task(data / "free.yaml")
    first, second = real_texts(spec, read_task_rows(spec, data))
    assert len(first) == len(second) == 100
    assert not {id(text) for text in first} & {id(text) for text in second}
    rows = [{"text": text} for text in first]
    assert [sample_count(dataclasses.replace(spec, samples=n), rows) for n in (30, 80, None)] == [30, 50, 50]


def test_figures_of_two_metrics_do_not_take_each_others_place(texts):
    spec = TaskSpec("t", "unconditional", metrics={"lm_score": {"epochs": 1}, "reverse_lm_score": {"epochs": 1}})
    strange = [text.replace("man", "woman") for text in texts[:40]]
    found = sample_metrics(spec, strange, texts[40:80])
    assert found["lm_score_unknown_rate"] == found["reverse_lm_score_unknown_rate"] > 0
    assert {"lm_score_epochs", "reverse_lm_score_epochs"} < set(found) and "epochs" not in found


def test_a_limit_draws_the_same_rows_each_time(data):
    spec = read_task(data / "lm.yaml")
    whole, some = read_task_rows(spec, data), read_task_rows(spec, data, limit=9)
    assert some == read_task_rows(spec, data, limit=9) and all(row in whole for row in some) and some != whole[:9]


def test_text_files_of_windows_part_at_the_same_places(tmp_path):
    content = "a dog\nruns\n\na cat\n\n\na man\n"
    for separator in (None, "\n\n", ""):
        spec = TaskSpec("t", "language_modelling", document_separator=separator)
        found = []
        for name, end in (("unix.txt", "\n"), ("windows.txt", "\r\n")):
            (tmp_path / name).write_bytes(content.replace("\n", end).encode())
            found.append([row["text"].replace("\r\n", "\n") for row in read_task_rows(spec, tmp_path / name)])
        assert found[0] == found[1] and len(found[0]) == {None: 4, "\n\n": 3, "": 1}[separator]


def test_data_sets_of_the_hub_are_read_where_there_is_no_file(tmp_path, monkeypatch):
    # The library opens a folder as it does an id.
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_text('{"text": "a dog"}\n{"text": "a cat"}\n')
    spec = TaskSpec("h", "language_modelling", file="nowhere.jsonl", hub=str(tmp_path / "set"))
    assert read_task_rows(spec, tmp_path) == [{"text": "a dog"}, {"text": "a cat"}]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec = TaskSpec("h", "language_modelling", hub="owner/nothing-of-this-name")
    with pytest.raises(UserError, match=r"owner/nothing-of-this-name \(test\) could not be loaded"):
        read_task_rows(spec, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind: multiple_chioce", "did you mean multiple_choice"),
        ("kind: multiple_choice\nchoices: a", "needs 'answer'"),
        ("kind: classification\nlabel: x\nmetrics: {acuracy: }", "did you mean accuracy"),
        ("kind: translation\nprompt: a\ntarget: b\nmax_new_token: 3", "did you mean max_new_tokens"),
        ("kind: language_modelling\nmetrics: [rouge]", "Leave metrics out"),
        ("- a", "must be a table"),
        ("kind: [", "cannot be read"),
        ("kind: translation\nprompt: a\ntarget: b\ntemperature: -1", "temperature"),
    ],
)
def test_wrong_tasks_are_refused(tmp_path, content, message):
    (tmp_path / "task.yaml").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        find_task(str(tmp_path / "task.yaml"))
    assert "\n" not in str(caught.value) and "task.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"q": "a", "optoins": ["b"], "gold": 0}, "no column 'options'; did you mean optoins"),
        ({"q": "a", "options": ["b", "c"], "gold": 2}, "number of the right choice, 0 to 1"),
        ({"q": "a", "options": "b", "gold": 0}, "must be a list of choices"),
    ],
)
def test_wrong_rows_are_refused(candidate, data, row, message):
    (data / "choices.jsonl").write_text(json.dumps(row) + "\n")
    spec = read_task(data / "choices.yaml")
    with pytest.raises(UserError, match=message):
        run(spec, candidate, read_task_rows(spec, data))


def test_min_p_draws_from_what_is_likely_enough():
    from hf_gpt.generation.sampling.distribution import SamplingConfig
    from hf_gpt.generation.sampling.inverse_cdf import sample

    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05]).expand(1000, 4)
    uniforms = torch.linspace(0, 0.999, 1000, dtype=torch.float64)
    tokens = sample(probabilities.log(), uniforms, SamplingConfig(min_p=0.4)).tokens
    samples = tokens.bincount(minlength=4) / 1000
    assert samples.tolist() == pytest.approx([0.625, 0.375, 0, 0], abs=0.002)
