import io
import subprocess
import sys

import pytest
import torch

from hf_gpt.cli import chat
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.tasks import make_task


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, corpus_text):
    """A dialogue model as fine-tuning leaves it, of wide random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("dialogue")
    tokenizer = train_tokenizer([corpus_text], 320)
    make_task(TaskArguments(task="dialogue")).prepare_tokenizer(tokenizer)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "hf_gpt",
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def talk(model_folder, monkeypatch, capsys):
    """Runs the command on lines of standard input; returns its status, the printed answers and what went to stderr."""

    def talk(lines, *options):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        status = chat.main([model_folder, "--temperature", "0", *(options or ["--max_new_tokens", "6"])])
        output = capsys.readouterr()
        return status, output.out.splitlines(), output.err

    return talk


def expected_answer(folder, messages, max_new_tokens=6):
    """The same by hand: tokens as the dialogue task builds them, the likeliest token each time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    task = make_task(TaskArguments(task="dialogue"))
    task.check_processing_class(tokenizer)
    tokens, _ = task._tokens(messages)
    ids = [*tokens, tokenizer.convert_tokens_to_ids("<|assistant|>")]
    written = []
    for _ in range(max_new_tokens):
        written.append(int(model(torch.tensor([[*ids, *written]])).logits[0, -1].argmax()))
        if written[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(written, skip_special_tokens=True).strip()


def test_answers_follow_the_whole_conversation(model_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)
    conversation = chat.Conversation(model, tokenizer, "Be brief.", {"max_new_tokens": 6, "do_sample": False})
    said = [{"role": "system", "content": "Be brief."}]
    for message in ("king", "why"):
        said.append({"role": "user", "content": message})
        said.append({"role": "assistant", "content": expected_answer(model_folder, said)})
        assert conversation.answer(message) == said[-1]["content"]
    assert conversation.messages == said
    conversation.reset()
    assert conversation.messages == said[:1]


def test_lines_are_answered_one_by_one_until_exit(talk):
    status, first, _ = talk("king\n")
    assert status == 0 and len(first) >= 1
    _, again, _ = talk("king\n\n/reset\nking\n/exit\nking\n")
    assert again == first + first
    _, _, errors = talk("/rest\n")
    assert "There is no command /rest" in errors


def test_the_oldest_messages_go_when_it_gets_long(model_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)
    conversation = chat.Conversation(model, tokenizer, "Be brief.", {"max_new_tokens": 6, "do_sample": False})
    for number in range(8):
        conversation.answer(f"question {number}")
    contents = [message["content"] for message in conversation.messages]
    assert contents[0] == "Be brief." and "question 0" not in contents and "question 7" in contents
    with pytest.raises(ValueError, match="more than the 64"):
        conversation.answer("many words " * 60)
    assert [message["content"] for message in conversation.messages] == contents


def test_a_message_too_long_is_said_so_and_the_conversation_goes_on(talk):
    status, answers, errors = talk("many words " * 60 + "\nking\n")
    assert status == 0 and "more than the 64" in errors and answers == talk("king\n")[1]


def test_what_is_left_out_of_a_long_conversation_is_said(talk):
    _, _, errors = talk("".join(f"question {number}\n" for number in range(8)))
    assert "earlier messages are left out, to fit 64 tokens" in errors
    assert "left out" not in talk("king\n")[2]


def test_a_template_of_the_models_own_may_refuse_a_system_message(make_model, tokenizer):
    from tests.training.chat_models import instruct_tokenizer

    tokenizer = instruct_tokenizer(tokenizer, "mistral")
    tokenizer.chat_template = "{{- raise_exception('no system') if messages[0]['role'] == 'system' else 'a' -}}"
    conversation = chat.Conversation(make_model(), tokenizer, "Be brief.", {"max_new_tokens": 2})
    with pytest.raises(ValueError, match="chat template refuses the conversation: no system"):
        conversation.answer("king")
    assert conversation.messages == [{"role": "system", "content": "Be brief."}]


def test_a_model_without_a_template_is_refused(make_model, tokenizer, tmp_path, capsys):
    make_model().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert chat.main([str(tmp_path)]) == 2
    assert "no chat template" in capsys.readouterr().err


def test_help_needs_no_pytorch():
    code = "import sys; sys.modules['torch'] = None; from hf_gpt.cli.main import main; main(['chat', '--help'])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0 and "--system" in process.stdout
