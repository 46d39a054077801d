"""What is cut or left out is counted and said before training; nothing left to learn is an error."""

import json
import re

import pytest

from hf_gpt.cli import finetune, pretrain
from hf_gpt.data.examples import Example
from hf_gpt.data.truncation import check_usable
from hf_gpt.errors import CorpusError
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.tasks import make_task


WORD = "king "


def encode(task_name, rows, tokenizer, is_training=True, **options):
    task = make_task(TaskArguments(task=task_name, **options))
    examples = [Example(row) for row in rows]
    for number, example in enumerate(examples, 1):
        example.position = f"rows.jsonl, line {number}"
    task.learn(examples, [])
    task.prepare_tokenizer(tokenizer)
    encoded = task.encode(examples, tokenizer, is_training=is_training)
    return task, list(encoded), task.cuts["training" if is_training else "validation"]


def chat(before, answer, after):
    turns = [("user", before), ("assistant", answer), ("user", after)]
    return {"messages": [{"role": role, "content": WORD * words} for role, words in turns if words]}


@pytest.fixture
def chat_tokenizer(corpus_text):
    from hf_gpt.data.tokenizer import train_tokenizer

    return train_tokenizer([corpus_text], 320)


def num_labels(row):
    return sum(label != -100 for label in row["labels"][1:])


def test_what_follows_the_last_answer_goes_first(chat_tokenizer):
    _, rows, cuts = encode("dialogue", [chat(8, 8, 200)] * 3, chat_tokenizer, max_length=64)
    _, (whole,), none = encode("dialogue", [chat(8, 8, 0)], chat_tokenizer, max_length=999)
    assert not none and none.describe() == ""
    assert [num_labels(row) for row in rows] == [num_labels(whole)] * 3
    assert all(len(row["input_ids"]) == 64 for row in rows)
    assert cuts.counts["rows_cut"] == 3 and "labels_cut" not in cuts.counts
    assert cuts.describe().startswith("3 of 3 rows cut to --max_length 64; ")


def test_labels_that_are_cut_and_answers_without_their_question_are_counted(chat_tokenizer):
    _, (short, long), cuts = encode("dialogue", [chat(60, 20, 0), chat(8, 100, 0)], chat_tokenizer, max_length=32)
    full = num_labels(encode("dialogue", [chat(8, 100, 0)], chat_tokenizer, max_length=999)[1][0])
    first = num_labels(encode("dialogue", [chat(60, 20, 0)], chat_tokenizer, max_length=999)[1][0])
    lost = full + first - num_labels(short) - num_labels(long)
    assert cuts.counts["labels_cut"] == lost > 0
    assert cuts.counts["answers_alone"] == sum(row["labels"][0] != -100 for row in (short, long)) >= 1


def test_prompts_that_are_cut_to_leave_room_for_an_answer_are_counted(chat_tokenizer):
    rows = [chat(20, 2, 0), chat(1, 1, 0)]
    _, _, cuts = encode("dialogue", rows, chat_tokenizer, is_training=False, max_length=120, max_new_tokens=100)
    assert cuts.counts == {"prompts_cut": 1}
    assert cuts.describe() == "1 of 2 prompts cut to --max_length minus --max_new_tokens 20"
    _, _, cuts = encode("dialogue", rows, chat_tokenizer, max_length=120, max_new_tokens=100)
    assert not cuts


def test_answers_that_an_encoder_decoder_loses_are_counted_in_tokens(chat_tokenizer):
    options = {"architecture": "encoder_decoder", "max_length": 999}
    _, (whole,), _ = encode("dialogue", [chat(1, 50, 0)], chat_tokenizer, max_new_tokens=999, **options)
    _, (row,), cuts = encode("dialogue", [chat(1, 50, 0)], chat_tokenizer, max_new_tokens=8, **options)
    assert row["labels"] == whole["labels"][:8]
    assert cuts.counts == {"targets_cut": 1, "tokens_cut": len(whole["labels"]) - 8}


CASES = {
    "classification": ([{"text": WORD * 50, "label": "a"}, {"text": WORD, "label": "b"}], {"rows_cut": 1}),
    "token_classification": (
        [{"tokens": ["king"] * 50, "tags": ["O"] * 50}, {"tokens": ["king"], "tags": ["O"]}],
        {"rows_cut": 1},
    ),
    "summarization": (
        [{"source": "a", "target": WORD * 50}, {"source": WORD * 60, "target": "b"}, {"source": "a", "target": "b"}],
        {"rows_cut": 1, "targets_cut": 1},
    ),
    "closed_book_qa": (
        [{"question": "a", "answers": [WORD * 50]}, {"question": "a", "answers": "b"}],
        {"targets_cut": 1},
    ),
    "dialogue": ([chat(50, 2, 0), chat(1, 1, 0)], {"rows_cut": 1}),
}


@pytest.mark.parametrize("task_name", CASES)
def test_every_task_counts_and_drops_and_refuses(task_name, chat_tokenizer):
    rows, expected = CASES[task_name]
    options = {"max_length": 40, "max_new_tokens": 8}
    _, encoded, cuts = encode(task_name, rows, chat_tokenizer, **options)
    assert expected.items() <= cuts.counts.items() and cuts.total == len(rows) == len(encoded)
    overlong = sum(expected.values())
    task, encoded, cuts = encode(task_name, rows, chat_tokenizer, is_training=False, overlong="drop", **options)
    assert cuts.counts == {"dropped": overlong} and len(encoded) == len(rows) - overlong
    assert task.kept == list(range(overlong, len(rows)))
    with pytest.raises(CorpusError, match=r"rows.jsonl, line 1: .* tokens are more than --max_.* --overlong truncate"):
        encode(task_name, rows, chat_tokenizer, overlong="error", **options)


def test_each_limit_is_named_with_its_own_number(chat_tokenizer):
    rows = [{"source": "a", "target": WORD * 50}] * 2 + [{"source": WORD * 60, "target": "b"}]
    options = {"max_length": 40, "max_new_tokens": 8, "overlong": "drop"}
    _, _, cuts = encode("summarization", [*rows, {"source": "a", "target": "b"}], chat_tokenizer, **options)
    assert cuts.describe() == (
        "2 of 4 rows longer than --max_new_tokens 8 left out (--overlong drop); "
        "1 row longer than --max_length minus --max_new_tokens 32 left out (--overlong drop)"
    )
    _, _, cuts = encode("summarization", rows, chat_tokenizer, **options)
    with pytest.raises(CorpusError, match="Raise --max_new_tokens and --max_length or give"):
        check_usable(0, cuts, "to train on")


def test_words_without_a_label_are_left_out_of_training_alone(chat_tokenizer):
    rows = [{"tokens": ["extraordinarily" * 9], "tags": ["O"]}, {"tokens": ["king"], "tags": ["O"]}]
    _, encoded, cuts = encode("token_classification", rows, chat_tokenizer, max_length=16)
    assert len(encoded) == 1 and cuts.counts["unlabelled"] == cuts.counts["labels_cut"] == 1
    _, encoded, cuts = encode("token_classification", rows, chat_tokenizer, is_training=False, max_length=16)
    assert len(encoded) == 2 and "unlabelled" not in cuts.counts


def test_answers_in_no_window_teach_no_absence(chat_tokenizer):
    context = "one two three " + WORD * 40
    rows = [
        {"question": "a", "context": context, "answers": {"text": [WORD * 30], "answer_start": [14]}},
        {"question": "a", "context": context, "answers": {"text": ["two"], "answer_start": [4]}},
    ]
    options = {"max_length": 24, "doc_stride": 4}
    _, encoded, cuts = encode("question_answering", rows, chat_tokenizer, **options)
    assert cuts.counts == {"answers_outside": 1, "unlabelled": 1} and {row["example"] for row in encoded} == {0}
    _, encoded, _ = encode("question_answering", rows, chat_tokenizer, is_training=False, **options)
    assert {row["example"] for row in encoded} == {0, 1}
    _, _, cuts = encode("question_answering", [{**rows[1], "question": WORD * 30}], chat_tokenizer, **options)
    assert cuts.counts["questions_cut"] == 1 and cuts.counts["tokens_cut"] > 0


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(tmp_path, rows, *options, task="dialogue"):
    path = write(tmp_path / "rows.jsonl", rows)
    small = "hidden_size=16,intermediate_size=32,num_hidden_layers=1,num_attention_heads=2"
    settings = f"--max_steps=2 --max_new_tokens=4 --tokenizer_vocab_size=300 --config_overrides={small}".split()
    files = [f"--train_file={path}", f"--validation_file={path}", f"--output_dir={tmp_path / 'run'}"]
    return finetune.main([f"--task={task}", *files, *settings, "--overwrite_output_dir", *options])


def test_the_command_says_saves_and_reports_what_is_cut(tmp_path, capsys):
    rows = [*[chat(8, 8, 200)] * 3, chat(2, 2, 0)]
    assert run(tmp_path, rows, "--max_length=64") == 0
    output = capsys.readouterr().out
    assert "cut            training: 3 of 4 rows cut to --max_length 64" in output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["cut"]["training"]["rows"] == 4 and metrics["cut"]["validation"]["rows_cut"] == 3
    assert 0 < metrics["eval_loss"] < 100
    assert "Cut or left out" in (tmp_path / "run" / "report.html").read_text()
    assert run(tmp_path, rows[3:] * 2, "--max_length=64") == 0
    output = capsys.readouterr().out
    assert "\ncut " not in output and "Cut or left out" not in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_nothing_left_to_learn_is_an_error_before_training(tmp_path, capsys, streaming):
    rows = [chat(80, 3, 0)] * 12
    assert run(tmp_path, rows, "--max_length=64", "--overlong=drop", *streaming) == 2
    error = capsys.readouterr().err
    assert "no row is left" in error and "12 of 12 rows longer than --max_length 64 left out" in error
    assert "Raise --max_length" in error and not (tmp_path / "run").exists()


def test_a_stream_is_given_up_when_nothing_of_it_can_be_used(tmp_path, capsys, monkeypatch):
    long, short = write(tmp_path / "long.jsonl", [chat(80, 3, 0)] * 12), write(tmp_path / "a.jsonl", [chat(2, 2, 0)])
    options = ["--max_length=64", "--overlong=drop", "--streaming", f"--train_file={long}"]
    assert run(tmp_path, [], *options, f"--validation_file={short}") == 2
    assert "read one after the other" in capsys.readouterr().err


def test_a_stream_counts_as_it_comes(tmp_path, capsys):
    rows = [*[chat(8, 8, 200)] * 3, chat(2, 2, 0)]
    assert run(tmp_path, rows, "--max_length=64", "--streaming", "--logging_steps=1") == 0
    output = capsys.readouterr()
    assert "rows cut to --max_length 64" in output.out.split("\n-> ")[-1] and "rows cut, 0 left out" in output.err


PRETRAIN = "--max_steps=1 --max_length=32 --preset=nano --tokenizer_vocab_size=300 --sample_max_new_tokens=2"
TINY = "--config_overrides=hidden_size=16,intermediate_size=32,num_hidden_layers=1,num_attention_heads=2"


def pretrain_on(tmp_path, texts, *options):
    path = write(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    files = [f"--train_file={path}", f"--validation_file={path}", f"--output_dir={tmp_path / 'run'}"]
    return pretrain.main([*files, *PRETRAIN.split(), TINY, "--overwrite_output_dir", *options])


def test_pretraining_counts_documents_longer_than_a_row(tmp_path, capsys):
    texts = [WORD * 200, WORD * 90, "to be", "or not"]
    assert pretrain_on(tmp_path, texts) == 0
    said = "training: 2 of 4 documents longer than --max_length 32 parted into rows, none of it lost"
    assert said in capsys.readouterr().out
    assert pretrain_on(tmp_path, texts, "--overlong=drop") == 0
    assert "training: 2 of 4 documents longer than --max_length 32 left out" in capsys.readouterr().out
    assert pretrain_on(tmp_path, texts, "--overlong=error") == 2
    assert "document 1 of the text has" in capsys.readouterr().err
    assert pretrain_on(tmp_path, texts[:2], "--overlong=drop") == 2
    assert "no row is left to train on" in capsys.readouterr().err


def test_one_document_and_its_blocks_are_told_apart(tmp_path, capsys):
    (tmp_path / "book.txt").write_text("\n\n".join(WORD * (3 + number % 40) for number in range(60)))
    options = [f"--train_file={tmp_path / 'book.txt'}", f"--output_dir={tmp_path / 'run'}", *PRETRAIN.split(), TINY]
    assert pretrain.main(options) == 0
    said = capsys.readouterr().out
    num_blocks = re.search(r": 1 document \(one a file\) in (\d+) blocks, ", said)[1]
    cut = [int(of) for of in re.findall(r" of (\d+) blocks longer than --max_length 32 parted into rows", said)]
    assert sum(cut) <= int(num_blocks) and " documents" not in said
    assert pretrain.main([*options, "--overwrite_output_dir", "--overlong=error"]) == 2
    assert re.search(r"block \d+ of the text has \d+ tokens", capsys.readouterr().err)


def test_the_real_texts_of_the_game_are_counted(tokenizer):
    from hf_gpt.adversarial.data.dataset import SpecialTokens, TextRows

    tokens = SpecialTokens(bos=1, eos=tokenizer.eos_token_id, pad=0)
    pairs = [(WORD * 9, "a"), ("a", WORD * 30), ("a", "b")]
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    found = TextRows(rows, tokens, tokenizer, 8, max_prompt_length=4)
    assert len(found) == 3 and found.cuts.counts["prompts_cut"] == found.cuts.counts["targets_cut"] == 1
    assert found.cuts.describe().startswith("1 of 3 prompts cut to --max_prompt_length 4; 1 target without its end; ")
    assert len(TextRows(rows, tokens, tokenizer, 8, max_prompt_length=4, overlong="drop")) == 1
    with pytest.raises(CorpusError, match=r"row 0 of the dataset: .*--max_prompt_length allows"):
        TextRows(rows, tokens, tokenizer, 8, max_prompt_length=4, overlong="error")
