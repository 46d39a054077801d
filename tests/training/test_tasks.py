import json

import numpy as np
import pytest
import torch

from hf_gpt.data.collators import PaddingCollator
from hf_gpt.data.examples import Example, read_examples, sample_file, split_examples
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.tasks import RECIPES_OF_TASKS, TASKS, make_task


def task_of(name, train=None, validation=(), **options):
    task = make_task(TaskArguments(task=name, **options))
    if train is not None:
        task.learn([Example(row) for row in train], [Example(row) for row in validation])
    return task


@pytest.fixture
def new_tokenizer(corpus_text):
    """A tokenizer of its own for a test that adds tokens."""
    return train_tokenizer([corpus_text], 320)


def written(row):
    return [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]


def test_files_of_every_format_give_the_same_rows(tmp_path):
    import gzip

    import datasets

    rows = [{"text": 'one, "two"\nthree', "label": "a"}, {"text": "vier", "label": "b"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    table = datasets.Dataset.from_list(rows)
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.csv", "rows.parquet"):
        assert read_examples([tmp_path / name], {"text_column": "text", "label_column": "label"}) == rows, name
    assert read_examples([tmp_path / "rows.csv"], {"text_column": "text"}, limit=1) == [{"text": rows[0]["text"]}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": \n', "line 2: .*Mend or remove the line"),
        ('{"txt": "a"}\n', "line 1: no column 'text'; did you mean txt.* --text_column among txt"),
        ('{"text": "a"}\n["text"]\n', "line 2: must be an object"),
        ("\n", "no example found"),
    ],
)
def test_bad_rows_are_named(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(CorpusError, match=message):
        read_examples([path], {"text_column": "text"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"text,label\na film, warm,1\n", "row 1: 3 fields instead of 2.*double quotes"),
        ("rows.csv", b"text,label\na film\n", "row 1: 1 fields instead of 2"),
        ("rows.csv", b"txt,label\na,1\n", "no column 'text'; did you mean txt"),
        ("rows.parquet", b"no parquet", "rows.parquet: cannot be read as parquet"),
        ("rows.parquet", b"", "rows.parquet: cannot be read as parquet"),
    ],
)
def test_tables_that_cannot_be_read_are_explained(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read_examples([tmp_path / name], {"text_column": "text"})


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_the_mark_that_other_programs_begin_a_file_with_is_no_part_of_it(tmp_path, name):
    content = "text,label\na,b\n" if name.endswith("csv") else '{"text": "a", "label": "b"}\n'
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read_examples([tmp_path / name], {"text_column": "text"}) == [{"text": "a"}]


def test_fields_of_a_csv_file_are_as_they_are_written(tmp_path):
    text = "long " * 40_000 + "line\r\nend"
    (tmp_path / "rows.csv").write_bytes(f'text\r\n"{text}"\r\n'.encode())
    assert read_examples([tmp_path / "rows.csv"], {"text_column": "text"}) == [{"text": text}]


def test_split_is_the_same_each_time_and_loses_nothing():
    examples = [Example(number=number) for number in range(20)]
    train, validation = split_examples(examples, 0.2, seed=1)
    assert (train, validation) == split_examples(examples, 0.2, seed=1)
    assert len(validation) == 4 and sorted(e["number"] for e in train + validation) == list(range(20))


def test_classes_by_name_and_by_id(tokenizer):
    rows = [{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}]
    task = task_of("classification", rows)
    assert task.config_fields() == {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    encoded = task.encode([Example(row) for row in rows], tokenizer, is_training=True)
    assert encoded["labels"] == [1, 0]
    end = tokenizer.eos_token_id
    assert encoded[0]["input_ids"] == [end, *tokenizer("good")["input_ids"], end]
    numbered = task_of("classification", [{"text": "good", "label": 2}, {"text": "bad", "label": 0}])
    assert numbered.names == ["0", "1", "2"]
    named = task_of("classification", [{"text": "good", "label": 1}], class_names=["bad", "good"])
    assert named.score(["good"], [Example(text="good", label=1)])["accuracy"] == 1
    # As a .csv file has them.
    assert named.id_of(Example(text="good", label="1")) == 1
    stars = task_of("classification", [{"text": "good", "label": "2"}], class_names=["1", "2"])
    with pytest.raises(CorpusError, match="none of the classes"):
        stars.id_of(Example(text="bad", label="0"))


def test_probabilities_of_classes_are_learnt_from(tokenizer):
    rows = [{"text": "good", "label": [0.2, 0.8]}, {"text": "bad", "label": 0}]
    task = task_of("classification", rows)
    examples = [Example(row) for row in rows]
    encoded = task.encode(examples, tokenizer, is_training=True)
    assert task.names == ["0", "1"] and encoded["labels"] == [[0.2, 0.8], [1.0, 0.0]]
    assert PaddingCollator(0)(list(encoded))["labels"].dtype == torch.float32
    assert task.encode(examples, tokenizer, is_training=False)["labels"] == [1, 0]
    assert task_of("classification", [{"text": "a", "label": 0}, {"text": "b", "label": 1}]).loss_function is None
    logits = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
    probabilities = torch.tensor(encoded["labels"])
    expected = -(probabilities * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(task.loss_function({"logits": logits}, probabilities), expected.mean())
    # Trainer counts the numbers in the labels of all micro-batches, here two as large.
    torch.testing.assert_close(task.loss_function({"logits": logits}, probabilities, 8), expected.sum() / 4)
    ids = torch.tensor([1, 0])
    plain = torch.nn.functional.cross_entropy(logits, ids)
    torch.testing.assert_close(task.loss_function({"logits": logits}, ids), plain)


@pytest.mark.parametrize("label", [[0.2, 0.7], [1.0], [-0.5, 1.5], [0.2, 0.3, 0.5]])
def test_what_is_no_probability_of_each_class_is_refused(label):
    with pytest.raises(CorpusError, match=r"none of the classes|not a name or an id"):
        task_of("classification", [{"text": "a", "label": 0}, {"text": "b", "label": label}], class_names=["n", "y"])


def test_a_pair_of_texts_keeps_both_when_one_is_long(tokenizer):
    rows = [{"text": "word " * 50, "text2": "tail", "label": 0}, {"text": "a", "text2": "b", "label": 1}]
    task = task_of("classification", rows, text_pair_column="text2", max_length=20)
    ids = task.encode([Example(row) for row in rows], tokenizer, is_training=True)[0]["input_ids"]
    assert len(ids) <= 20 and tokenizer.decode(ids, skip_special_tokens=True).endswith("tail")


def test_tags_stand_at_the_last_token_of_each_word(tokenizer):
    rows = [{"tokens": ["Elizabeth", "saw", "Rome"], "tags": ["B-PER", "O", "B-LOC"]}]
    task = task_of("token_classification", rows)
    assert task.names == ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
    row = task.encode([Example(rows[0])], tokenizer, is_training=True)[0]
    ends = np.cumsum([len(tokenizer(f" {word}")["input_ids"]) for word in rows[0]["tokens"]])
    assert [row["labels"][position] for position in ends] == [1, 4, 0]
    assert sum(label != -100 for label in row["labels"]) == 3 and len(row["labels"]) == len(row["input_ids"])


def test_predicted_tags_cover_words_that_were_cut_off(tokenizer):
    rows = [{"tokens": ["Rome"] * 9, "tags": ["B-LOC"] * 8 + ["O"]}]
    task = task_of("token_classification", rows, max_length=8)
    examples = [Example(rows[0])]
    encoded = task.encode(examples, tokenizer, is_training=False)
    found = task.predictions(np.zeros((1, 8), int), examples, encoded)
    kept = sum(label != -100 for label in encoded[0]["labels"])
    assert 0 < kept < 9 and found == [["B-LOC"] * kept + ["O"] * (9 - kept)]


CONTEXT = "The mill stands by the river. " * 6 + "It was built by Karl Brandt, a baker. " + "It is old. " * 12
QUESTION = {
    "question": "Who built it?",
    "context": CONTEXT,
    "answers": {"text": ["Karl Brandt"], "answer_start": [CONTEXT.index("Karl")]},
}


def test_windows_cover_the_passage_and_perfect_logits_give_the_answer_back(tokenizer):
    unanswerable = {**QUESTION, "answers": {"text": [], "answer_start": []}}
    examples = [Example(QUESTION), Example(unanswerable)]
    task = task_of("question_answering", examples, max_length=64, doc_stride=16)
    rows = task.encode(examples, tokenizer, is_training=True)
    mine = [row for row in rows if row["example"] == 0]
    assert len(mine) > 2 and all(len(row["input_ids"]) <= 64 for row in rows)
    covered = {tuple(offset) for row in mine for offset in row["offsets"]}
    assert sorted(covered)[0][0] == 0 and sorted(covered)[-1][1] == len(CONTEXT)

    logits = [np.full((len(rows), 64), -10.0) for _ in range(2)]
    for array, name in zip(logits, ("start_positions", "end_positions"), strict=True):
        array[np.arange(len(rows)), rows[name]] = 10
    assert any(row["start_positions"] < len(row["input_ids"]) - 1 for row in mine)
    # A window without the answer says so, but a sure answer in another one must win.
    null = [row["start_positions"] == len(row["input_ids"]) - 1 for row in rows]
    for array in logits:
        array[null] /= 2
    found = task.predictions(tuple(logits), examples, rows)
    assert found == ["Karl Brandt", ""]
    assert task.score(found, examples)["exact_match"] == 100


def test_loss_on_the_target_alone_and_the_prompt_as_in_generation(tokenizer):
    rows = [{"source": "the king and the queen " * 20, "target": "a king"}, {"source": "king", "target": ["x", "y"]}]
    task = task_of("summarization", rows, prompt_template="Read: {source} Say:", max_length=40, max_new_tokens=12)
    examples = [Example(row) for row in rows]
    encoded, prompts = task.encode(examples, tokenizer, is_training=True), task.prompts(examples, tokenizer)
    for row, prompt in zip(encoded, prompts, strict=True):
        assert row["input_ids"][: len(prompt)] == prompt and set(row["labels"][: len(prompt)]) == {-100}
        assert len(row["input_ids"]) <= 40
        assert tokenizer.decode(prompt, skip_special_tokens=True).endswith(" Say:")
    assert written(encoded[0]) == [*tokenizer(" a king")["input_ids"], tokenizer.eos_token_id]
    assert task.score(["a king", "y"], examples)["rougeL"] == 100


def test_loss_on_the_assistant_alone_as_the_chat_template_says(new_tokenizer):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Good day"},
        {"role": "assistant", "content": "Good day to you"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Farewell"},
    ]
    task = task_of("dialogue", [{"messages": messages}], max_length=400)
    task.prepare_tokenizer(new_tokenizer)
    row = task.encode([Example(messages=messages)], new_tokenizer, is_training=True)[0]
    templated = new_tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    assert row["input_ids"] == templated["input_ids"]
    assert [label != -100 for label in row["labels"]] == [bool(m) for m in templated["assistant_masks"]]
    end = new_tokenizer.eos_token
    assert new_tokenizer.decode(written(row)) == f"Good day to you{end}Farewell{end}"
    (prompt,) = task.prompts([Example(messages=messages)], new_tokenizer)
    assert prompt == new_tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
    assert task.score(["Farewell"], [Example(messages=messages)])["rougeL"] == 100


def test_texts_in_turn_and_special_tokens_in_them(new_tokenizer):
    task = task_of("dialogue", max_length=400)
    task.prepare_tokenizer(new_tokenizer)
    example = Example(messages=["say <|assistant|>", "no <|endoftext|>"])
    assert [turn["role"] for turn in task.messages(example)] == ["user", "assistant"]
    ids = task.encode([example], new_tokenizer, is_training=True)[0]["input_ids"]
    assert ids.count(new_tokenizer.convert_tokens_to_ids("<|assistant|>")) == 1
    assert ids.count(new_tokenizer.eos_token_id) == 2


@pytest.mark.parametrize(
    ("task", "row", "options", "error", "message"),
    [
        (
            "classification",
            {"text": "a", "label": None},
            {"class_names": ["x", "y"]},
            CorpusError,
            "none of the classes",
        ),
        ("classification", {"text": "a", "label": 0}, {}, CorpusError, "one class only"),
        ("classification", {"text": "a", "label": 1.5}, {}, CorpusError, "is 1.5, not a name or an id"),
        ("classification", {"text": "a", "label": None}, {}, CorpusError, "is None, not a name or an id"),
        ("token_classification", {"tokens": ["a", "b"], "tags": ["O"]}, {}, CorpusError, "2 words .* and 1 tags"),
        (
            "question_answering",
            {**QUESTION, "answers": {"text": ["Karl"], "answer_start": [3]}},
            {},
            CorpusError,
            "does not stand at character 3",
        ),
        ("question_answering", {**QUESTION, "answers": ["Karl"]}, {}, CorpusError, "answer_start"),
        ("translation", {"source": " ", "target": "b"}, {}, CorpusError, "not blank"),
        ("translation", {"source": "a", "target": 3}, {}, CorpusError, "a text or a list of texts, found 3"),
        (
            "translation",
            {"source": "a", "target": "b"},
            {"prompt_template": "Say:"},
            ConfigError,
            "{source} in it once",
        ),
        ("closed_book_qa", {"question": "a", "answers": []}, {}, CorpusError, "no answer"),
        ("dialogue", {"messages": ["only one"]}, {}, CorpusError, "never answers"),
        ("dialogue", {"messages": [{"role": "bot", "content": "a"}]}, {}, CorpusError, "a role of system, user"),
    ],
)
def test_rows_that_cannot_be_used_are_explained(task, row, options, error, message):
    with pytest.raises(error, match=message):
        task_of(task, [row], **options)


def test_lengths_that_leave_no_room(tokenizer):
    task = task_of("translation", max_length=16, max_new_tokens=16)
    with pytest.raises(ConfigError, match="leaves no token for the source"):
        task.prompts([Example(source="a", target="b")], tokenizer)
    with pytest.raises(ConfigError, match="leaves no room to move on"):
        task_of("question_answering", max_length=32, doc_stride=30).encode(
            [Example(QUESTION)], tokenizer, is_training=True
        )


def test_every_task_has_a_sample_and_a_recipe():
    from hf_gpt.training.settings import RECIPES

    for name in TASKS:
        assert (RECIPES / f"{RECIPES_OF_TASKS.get(name, name)}.yaml").is_file()
        # Images and sounds are made, or come with a library.
        assert sample_file(name).is_file() or len(make_task(TaskArguments(task=name)).built_in_examples()) > 100


def test_left_padding_and_order_of_generation():
    from hf_gpt.data.collators import pad_rows

    ids, mask = pad_rows([[5], [6, 7, 8]], 0, "left")
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]] and mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_an_answer_is_no_longer_than_it_may_be():
    """The likeliest pair is five tokens apart, more than an answer may have: the next likely one is taken."""
    task = task_of("question_answering", max_answer_length=3)
    words = ["one", "two", "three", "four", "five", "six"]
    context = " ".join(words)
    starts = [context.index(word) for word in words]
    offsets = [[start, start + len(word)] for start, word in zip(starts, words, strict=True)]
    rows = [{"example": 0, "prefix": 2, "offsets": offsets}]
    begin, end = np.full((1, 9), -9.0), np.full((1, 9), -9.0)
    begin[0, 2], begin[0, 5] = 5.0, 3.0
    end[0, 7], end[0, 4] = 5.0, 2.0
    example = Example({"context": context, "question": "?", "answers": {"text": [], "answer_start": []}})
    assert task.predictions((begin, end), [example], rows) == ["four five six"]
    longer = task_of("question_answering", max_answer_length=6)
    assert longer.predictions((begin, end), [example], rows) == [context]
    begin[0, 8] = end[0, 8] = 6.0
    assert longer.predictions((begin, end), [example], rows) == [""]
