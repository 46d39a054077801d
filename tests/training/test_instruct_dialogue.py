"""`--task dialogue` on models that have a chat template of their own."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from hf_gpt.cli import finetune
from hf_gpt.data.examples import Example
from hf_gpt.errors import CorpusError
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.tasks import make_task
from tests.training.chat_models import instruct_tokenizer, save_instruct_model


CHAT = [
    {"role": "user", "content": "Good day"},
    {"role": "assistant", "content": "Good day to you"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Farewell"},
]


def rows_of(tokenizer, *examples, **options):
    task = make_task(TaskArguments(task="dialogue", **{"max_length": 400, **options}))
    task.check_processing_class(tokenizer)
    task.learn([], [])
    assert task.prepare_tokenizer(tokenizer) == []
    examples = [example if isinstance(example, Example) else Example(messages=example) for example in examples]
    return task, list(task.encode(examples, tokenizer, is_training=True))


def written(row):
    return [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("chatml", "Good day to you<|im_end|>Farewell<|im_end|>"),
        ("marked", "Good day to you<|im_end|>Farewell<|im_end|>"),
        ("thinking", "Good day to you<|im_end|>Farewell<|im_end|>"),
        ("llama3", "Good day to you<|eot_id|>Farewell<|eot_id|>"),
        ("mistral", " Good day to you<|endoftext|> Farewell<|endoftext|>"),
    ],
)
def test_a_models_own_template_writes_the_row_and_tells_the_answers(tokenizer, kind, answers):
    tokenizer = instruct_tokenizer(tokenizer, kind)
    template, size = tokenizer.chat_template, len(tokenizer)
    _, (row,) = rows_of(tokenizer, CHAT)
    assert row["input_ids"] == tokenizer.apply_chat_template(CHAT)["input_ids"]
    assert tokenizer.decode(written(row)) == answers
    assert (tokenizer.chat_template, len(tokenizer)) == (template, size)


def test_a_template_that_rewrites_history_gives_a_row_for_each_turn(tokenizer):
    tokenizer = instruct_tokenizer(tokenizer, "thinking")
    chat = [dict(message) for message in CHAT]
    chat[1]["content"] = "<think>hm</think>Good day to you"
    task, rows = rows_of(tokenizer, chat)
    assert [tokenizer.decode(written(row)) for row in rows] == [f"{chat[1]['content']}<|im_end|>", "Farewell<|im_end|>"]
    for row, position in zip(rows, (1, 3), strict=True):
        prompt = tokenizer.apply_chat_template(chat[:position], add_generation_prompt=True)["input_ids"]
        assert row["input_ids"][: len(prompt)] == prompt and set(row["labels"][: len(prompt)]) == {-100}
    assert "hm" not in tokenizer.decode(rows[1]["input_ids"])
    assert task.one_row_each is False


@pytest.mark.parametrize("kind", [None, "chatml", "marked", "thinking", "llama3", "mistral"])
def test_the_last_turn_alone_may_be_learnt(tokenizer, kind):
    from copy import deepcopy

    tokenizer = instruct_tokenizer(tokenizer, kind) if kind else deepcopy(tokenizer)
    chat = [*CHAT[:2], *CHAT[:2], {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Fare well"}]
    options = {"task": "dialogue", "max_length": 400}
    rows = {}
    for loss_on in ("all_turns", "last_turn"):
        task = make_task(TaskArguments(**options, loss_on=loss_on))
        task.prepare_tokenizer(tokenizer)
        (rows[loss_on],) = task.encode([Example(messages=chat)], tokenizer, is_training=True)
    assert rows["all_turns"]["input_ids"] == rows["last_turn"]["input_ids"]
    learnt = written(rows["last_turn"])
    assert tokenizer.decode(learnt).strip().startswith("Fare well") and tokenizer.decode(learnt).count("well") == 1
    assert written(rows["all_turns"])[-len(learnt) :] == learnt
    assert tokenizer.decode(written(rows["all_turns"])).count("Good day") == 2
    # No conversation gives more than one row.
    assert task.one_row_each is True


def test_the_last_turn_of_a_template_that_rewrites_history(tokenizer):
    tokenizer = instruct_tokenizer(tokenizer, "thinking")
    chat = [dict(message) for message in CHAT]
    chat[1]["content"] = "<think>hm</think>Good day to you"
    _, (row,) = rows_of(tokenizer, chat, loss_on="last_turn")
    assert tokenizer.decode(written(row)) == "Farewell<|im_end|>"


def test_system_and_tool_messages_reach_the_template(tokenizer):
    tokenizer = instruct_tokenizer(tokenizer, "chatml")
    call = {"function": {"name": "sum", "arguments": {"a": 1, "b": 2}}}
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "name": "sum"},
        {"role": "assistant", "content": "It is 3"},
    ]
    _, (row,) = rows_of(tokenizer, chat)
    assert row["input_ids"] == tokenizer.apply_chat_template(chat)["input_ids"]
    said = tokenizer.decode(written(row))
    assert said.startswith("<tool_call>") and said.endswith("</tool_call><|im_end|>It is 3<|im_end|>")


def test_tools_reach_the_template_from_a_file_that_has_them(tokenizer, tmp_path):
    from hf_gpt.data.examples import read_examples

    tokenizer = instruct_tokenizer(tokenizer, "thinking")
    tools = [{"type": "function", "function": {"name": "sum"}}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": CHAT, "tools": tools}) + "\n" + json.dumps({"messages": CHAT}) + "\n")
    columns = make_task(TaskArguments(task="dialogue")).columns
    _, (with_tools, without) = rows_of(tokenizer, *read_examples([path], columns))
    assert with_tools["input_ids"] == tokenizer.apply_chat_template(CHAT, tools=tools)["input_ids"]
    assert without["input_ids"] == tokenizer.apply_chat_template(CHAT)["input_ids"]
    assert written(with_tools) == written(without)


def test_what_the_template_refuses_is_named(tokenizer, tmp_path):
    tokenizer = instruct_tokenizer(tokenizer, "mistral")
    example = Example(messages=[*CHAT[:2], *CHAT[:2], CHAT[1]])
    example.position = "rows.jsonl, line 7"
    with pytest.raises(CorpusError, match=r"rows.jsonl, line 7: .*roles must alternate"):
        rows_of(tokenizer, example)


@pytest.mark.parametrize("kind", ["chatml", "marked", "llama3"])
def test_special_tokens_in_a_message_stay_text(tokenizer, kind):
    tokenizer = instruct_tokenizer(tokenizer, kind)
    end = "<|eot_id|>" if kind == "llama3" else "<|im_end|>"
    chat = [{"role": "user", "content": f"say {end} now"}, {"role": "assistant", "content": f"no {end} here"}]
    task, (row,) = rows_of(tokenizer, chat)
    assert row["input_ids"].count(tokenizer.convert_tokens_to_ids(end)) == 2
    assert tokenizer.decode(written(row)) == f"no {end} here{end}"
    (prompt,) = task.prompts([Example(messages=chat)], tokenizer)
    assert row["input_ids"][: len(prompt)] == prompt


@pytest.fixture
def chat_file(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps({"messages": CHAT}) + "\n" for _ in range(8)))
    return str(path)


def run(tmp_path, folder, chat_file, *options):
    return finetune.main(
        [
            "--task=dialogue",
            f"--model_name_or_path={folder}",
            f"--train_file={chat_file}",
            f"--validation_file={chat_file}",
            f"--output_dir={tmp_path / 'run'}",
            *["--max_steps=1", "--max_eval_samples=2", "--max_new_tokens=4", "--max_length=128", "--optimizer=adamw"],
            *options,
        ]
    )


def test_the_first_loss_is_the_models_own_and_nothing_of_it_changes(tokenizer, tmp_path, chat_file, capsys):
    folder = tmp_path / "instruct"
    turn_end = 321
    tokenizer = save_instruct_model(folder, tokenizer, "chatml", generation_eos=[tokenizer.eos_token_id, 5])
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == turn_end
    assert run(tmp_path, folder, chat_file, "--learning_rate=0") == 0
    assert "new embeddings" not in capsys.readouterr().out
    found = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert found.chat_template == tokenizer.chat_template and found.get_vocab() == tokenizer.get_vocab()
    before = AutoModelForCausalLM.from_pretrained(folder)
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.state_dict().items())
    # By hand: the answers under the template.
    ids = torch.tensor([tokenizer.apply_chat_template(CHAT)["input_ids"]])
    _, (row,) = rows_of(tokenizer, CHAT)
    expected = before(input_ids=ids, labels=torch.tensor([row["labels"]])).loss.item()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-4)
    # Generation ends where it did, and at the end of a turn.
    ends = GenerationConfig.from_pretrained(tmp_path / "run" / "model").eos_token_id
    assert {tokenizer.eos_token_id, 5, turn_end} == set(ends)


def base_model(folder, tokenizer, model_type="gpt2"):
    from transformers import AutoConfig

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 256}
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(model_type, vocab_size=320, **sizes, **ends)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_without_a_template_gets_ours_which_is_said(tokenizer, tmp_path, chat_file, capsys):
    assert run(tmp_path, base_model(tmp_path / "base", tokenizer), chat_file) == 0
    assert "adds 3 tokens with new embeddings: <|system|>, <|user|>, <|assistant|>" in capsys.readouterr().out


def test_an_adapter_trains_the_rows_of_new_tokens(tokenizer, tmp_path, chat_file):
    from peft import AutoPeftModelForCausalLM

    folder = base_model(tmp_path / "base", tokenizer)
    options = ["--use_peft", "--learning_rate=0.5", "--warmup_steps=0"]
    assert run(tmp_path, folder, chat_file, *options) == 0
    found = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / "model").merge_and_unload()
    rows = found.get_input_embeddings().weight
    start = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "base").get_input_embeddings().weight
    changed = (rows != start).any(1).nonzero().flatten().tolist()
    # No conversation has a system's turn, whose row gets no gradient as an input; tied heads train it as an output.
    assert {321, 322} <= set(changed) <= {320, 321, 322}
    assert run(tmp_path, folder, chat_file, *options, "--peft_method=prefix", "--overwrite_output_dir") == 2


def test_marks_that_a_template_parts_leave_its_own_tokens_whole(tokenizer):
    from hf_gpt.data.chat_tokens import encode, render

    tokenizer = instruct_tokenizer(tokenizer, "chatml")
    tokenizer.chat_template = (
        "{%- for message in messages -%}{{- '<|im_start|>' + message['content'].split('<|im_end|>')[0] -}}"
        "{{- '<|im_end|>' -}}{%- endfor -%}"
    )
    chat = [{"role": "user", "content": "a<|im_end|>b"}, {"role": "user", "content": "c<|im_end|>d"}]
    text, _ = render(tokenizer, chat)
    assert encode(tokenizer, text) == tokenizer("<|im_start|>a<|im_end|><|im_start|>c<|im_end|>")["input_ids"]
