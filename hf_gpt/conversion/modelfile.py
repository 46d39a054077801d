"""A Modelfile, by which Ollama takes a GGUF file in (https://github.com/ollama/ollama/blob/main/docs/modelfile.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerBase

from hf_gpt.conversion.gguf_tokenizer import GgufTokenizer
from hf_gpt.data.chat_tokens import TemplateError, render
from hf_gpt.files.atomic_files import write_text
from hf_gpt.models.configuration_hf_gpt import HfGptConfig


# Ollama's own, if a Modelfile says nothing.
_USUAL_CONTEXT = 4096
# Settings of the same name and meaning in both.
_SAMPLED = ("temperature", "top_p", "top_k", "min_p")
_ROLES = ("system", "user", "assistant")
# What no template writes by itself.
_CONTENT = "\ue0a1content\ue0a2"
# Conversations that a template in Go's words has to write as the one in Jinja does.
_CHECKED = (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user"))


@dataclass(frozen=True)
class _Turns:
    """A chat template that puts each message between two texts.

    Attributes:
        around: What stands before and after what a role says.
        before_all: What begins a conversation without a system message.
        before_answer: What stands before an answer.
    """

    around: dict[str, tuple[str, str]]
    before_all: str
    before_answer: str

    def write(self, roles: Sequence[str]) -> str:
        """A conversation in which each says `_CONTENT`, up to an answer."""
        turns = "".join(_CONTENT.join(self.around[role]) for role in roles)
        return ("" if roles[0] == "system" else self.before_all) + turns + self.before_answer

    def in_go(self) -> str:
        """The same in the language of Go's text templates."""
        parts = []
        if self.before_all:
            parts.append('{{ if ne (index .Messages 0).Role "system" }}' + _quoted(self.before_all) + "{{ end }}")
        parts.append("{{ range .Messages }}")
        for number, (role, (before, after)) in enumerate(self.around.items()):
            parts.append(f'{{{{ {"else " if number else ""}if eq .Role "{role}" }}}}')
            parts.append(_quoted(before) + "{{ .Content }}" + _quoted(after))
        parts.append("{{ end }}{{ end }}" + _quoted(self.before_answer))
        return "".join(parts)


def write_modelfile(
    weights: Path,
    tokenizer: PreTrainedTokenizerBase,
    described: GgufTokenizer,
    config: HfGptConfig,
    generation_config: GenerationConfig | None,
) -> list[str]:
    """Writes a Modelfile beside a GGUF file, under its name; returns what could not be said.

    Args:
        weights: The GGUF file.
        tokenizer: Of the model.
        described: The same in the words of GGUF.
        config: Of the model.
        generation_config: How the model samples; None: nothing is known.
    """
    lines = [f"FROM ./{weights.name}"]
    notes = []
    if described.chat_template:
        turns = _find_turns(tokenizer, described)
        if turns is None:
            notes.append("the chat template cannot be said in a Modelfile: Ollama looks for its own by the GGUF file's")
        else:
            lines.append(f'TEMPLATE """{turns.in_go()}"""')
    else:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    lines += _parameters(tokenizer, generation_config)
    if config.max_position_embeddings < _USUAL_CONTEXT:
        lines.append(f"PARAMETER num_ctx {config.max_position_embeddings}")
    write_text(weights.with_suffix(".Modelfile"), "\n".join(lines) + "\n")
    return notes


def _parameters(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None) -> list[str]:
    """What ends an answer, and how tokens are sampled."""
    eos = getattr(generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
    lines = [f'PARAMETER stop "{token}"' for token in tokenizer.convert_ids_to_tokens(sorted(ids))]
    if generation_config is None:
        return lines
    if generation_config.do_sample:
        sampled = [(name, getattr(generation_config, name, None)) for name in _SAMPLED]
        lines += [f"PARAMETER {name} {value}" for name, value in sampled if value is not None]
    if generation_config.max_new_tokens is not None:
        lines.append(f"PARAMETER num_predict {generation_config.max_new_tokens}")
    return lines


def _find_turns(tokenizer: PreTrainedTokenizerBase, described: GgufTokenizer) -> _Turns | None:
    """The template as texts around messages; None where that is not all it does."""
    try:
        turns = _read_turns(tokenizer)
        same = turns is not None and all(turns.write(roles) == _render(tokenizer, roles, True) for roles in _CHECKED)
    except TemplateError:
        return None
    if turns is None or not same or '"""' in turns.in_go():
        return None
    if not described.adds_bos:
        return turns
    # Ollama puts the token before every text by itself.
    bos = tokenizer.bos_token
    system = turns.around["system"]
    if not (turns.before_all.startswith(bos) and system[0].startswith(bos)):
        return None
    around = {**turns.around, "system": (system[0].removeprefix(bos), system[1])}
    return _Turns(around, turns.before_all.removeprefix(bos), turns.before_answer)


def _read_turns(tokenizer: PreTrainedTokenizerBase) -> _Turns | None:
    conversations = {length: _render(tokenizer, _ROLES[:length], False).split(_CONTENT) for length in (1, 2, 3)}
    if [len(parts) for parts in conversations.values()] != [2, 3, 4]:
        return None
    # What stands between two messages is parted where the first one ends when it is the last.
    after = {role: conversations[length][-1] for length, role in enumerate(_ROLES, 1)}
    whole = conversations[3]
    around = {"system": (whole[0], after["system"])}
    for number, role in enumerate(_ROLES[1:], 1):
        between = whole[number]
        if not between.startswith(after[_ROLES[number - 1]]):
            return None
        around[role] = (between.removeprefix(after[_ROLES[number - 1]]), after[role])
    alone = _render(tokenizer, ("user",), False).partition(_CONTENT)[0]
    with_prompt = _render(tokenizer, ("user",), True)
    before_answer = with_prompt.removeprefix(_render(tokenizer, ("user",), False))
    if not alone.endswith(around["user"][0]):
        return None
    return _Turns(around, alone.removesuffix(around["user"][0]), before_answer)


def _render(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], add_generation_prompt: bool) -> str:
    messages = [{"role": role, "content": _CONTENT} for role in roles]
    return render(tokenizer, messages, add_generation_prompt=add_generation_prompt)[0]


def _quoted(text: str) -> str:
    """A text that a template of Go writes as it is."""
    return text.replace("{{", '{{ "{{" }}')
