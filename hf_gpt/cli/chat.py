"""`hf-gpt chat`: a conversation with a model that has a chat template, whose answers are printed as they come."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_gpt.cli.command import command, option
from hf_gpt.cli.generate import WritingOptions, generation_options, load


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


HELP = "/reset begins anew, /exit or Ctrl-D ends."

# Most tokens of an answer where neither the command line nor the model's generation config says.
MAX_NEW_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class ChatOptions(WritingOptions):
    """The options of the command."""

    system: str | None = option(None, "what the model is told before the conversation")


def chat(args: ChatOptions) -> int:
    """Loads the model and answers standard input; returns the exit status."""
    model, tokenizer = load(args)
    conversation = Conversation(model, tokenizer, args.system, generation_options(args))
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        print(HELP, file=sys.stderr)
    return talk(conversation, read_lines(is_terminal), is_terminal)


def read_lines(is_terminal: bool) -> Iterable[str]:
    """The lines of standard input, with a prompt and line editing at a terminal."""
    if not is_terminal:
        yield from sys.stdin
        return
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


def talk(conversation: "Conversation", lines: Iterable[str], is_terminal: bool) -> int:
    """Answers one line after the other; returns the exit status."""
    for line in lines:
        message = line.strip()
        if message == "/exit":
            break
        if message == "/reset":
            conversation.reset()
        elif message.startswith("/"):
            print(f"There is no command {message.split()[0]}. {HELP}", file=sys.stderr)
        elif message:
            try:
                conversation.answer(message)
            except ValueError as error:
                print(f"error: {error}", file=sys.stderr)
            except KeyboardInterrupt:
                # The answer is stopped and forgotten; the conversation goes on where there is somebody to go on with.
                if not is_terminal:
                    raise
                print()
    return 0


class Conversation:
    """What was said, and a model that answers.

    The tokenizer's own chat template writes it. Once it is longer than the model can read, the oldest messages after
    the system's are left out, which is said.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, with a chat template.
        system: What the model is told first, if anything.
        options: Arguments of `generate`.

    Attributes:
        messages: The turns so far, objects with `role` and `content`.

    Raises:
        ValueError: the tokenizer has no chat template.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        system: str | None = None,
        options: dict[str, object] | None = None,
    ):
        if tokenizer.chat_template is None:
            raise ValueError(
                f"{model.name_or_path} has no chat template. Train it on dialogues (hf-gpt finetune --task dialogue), "
                "or continue texts with hf-gpt generate."
            )
        self.model, self.tokenizer, self.options = model, tokenizer, dict(options or {})
        self.options.setdefault("max_new_tokens", model.generation_config.max_new_tokens or MAX_NEW_TOKENS)
        self.system = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[dict[str, str]] = []
        self.reset()

    def reset(self) -> None:
        """Forgets all but what the system said."""
        self.messages = list(self.system)

    def answer(self, message: str) -> str:
        """Adds a message, prints the answer as it comes, and adds it too.

        Raises:
            ValueError: the message is longer than the model can read, or the template refuses it; it is not added.
        """
        from transformers import TextStreamer

        former = len(self.messages)
        messages, ids = self._fitting([*self.messages, {"role": "user", "content": message}])
        if forgotten := former + 1 - len(messages):
            limit = self.model.config.get_text_config().max_position_embeddings
            print(f"note: {forgotten} earlier messages are left out, to fit {limit:,} tokens.", file=sys.stderr)
        output = self.model.generate(
            **{name: tensor.to(self.model.device) for name, tensor in ids.items()},
            streamer=TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True),
            pad_token_id=self._pad_token_id(),
            **self.options,
        )
        text = self.tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        self.messages = [*messages, {"role": "assistant", "content": text}]
        return text

    def _fitting(self, messages: list[dict[str, str]]):
        """As many of the last messages as the model can read with room for an answer, and their tokens."""
        import torch

        from hf_gpt.data.chat_tokens import TemplateError, encode, render

        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        first = len(self.system)
        while True:
            try:
                ids = encode(self.tokenizer, render(self.tokenizer, messages, add_generation_prompt=True)[0])
            except TemplateError as error:
                raise ValueError(f"the model's chat template refuses the conversation: {error}") from error
            length = len(ids)
            if limit is None or length + self.options["max_new_tokens"] <= limit:
                tokens = torch.tensor([ids])
                return messages, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            if len(messages) == first + 1:
                raise ValueError(
                    f"the message takes {length} tokens; with {self.options['max_new_tokens']} for an answer that is "
                    f"more than the {limit} that the model can read. Shorten it, or lower --max_new_tokens."
                )
            # A question goes with its answer.
            messages = [*messages[:first], *messages[first + 2 :]]

    def _pad_token_id(self) -> int | None:
        given = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if given is None else given


make_parser, main = command(
    "hf-gpt chat",
    "A conversation with any causal language model that has a chat template. Each line of standard input is a message, "
    f"so lines can be piped in as well. {HELP}",
    ChatOptions,
    chat,
    examples=["runs/dialogue", "runs/dialogue --system 'Answer in one sentence.' --temperature 0.7"],
    common="system max_new_tokens temperature top_k top_p repetition_penalty seed device",
    expected=(OSError, ValueError),
    stopped="",
    paths=("model",),
)
