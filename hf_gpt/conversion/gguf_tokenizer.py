"""A tokenizer in the words of GGUF: a vocabulary, merges, and the name of the pattern that cuts texts.

llama.cpp (https://github.com/ggml-org/llama.cpp, src/llama-vocab.cpp) knows patterns by name alone. So a tokenizer is
written only where one of them gives the same tokens.
"""

import json
import re
import sys
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from hf_gpt.conversion.tokenizers import PROBE
from hf_gpt.data.tokenizer import SPLIT_PATTERN, TWO_DIGIT_PATTERNS, split_by
from hf_gpt.errors import ConversionError


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
# Names of llama.cpp for the same pattern; the first is what is written.
_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "jais")
_SMOLLM = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
_LLAMA_BPE = ("llama-bpe", "llama3", "llama-v3")
_QWEN = ("qwen2", "deepseek-r1-qwen", "stablelm2")
# What a token is for, by llama.cpp's numbers.
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_SPLIT_LIMIT = (
    "runs of more than 64 letters, marks or spaces are cut by this tokenizer, and not by llama.cpp: in texts with such "
    "runs tokens may differ there"
)


@dataclass
class GgufTokenizer:
    """What a GGUF file says about a tokenizer.

    Attributes:
        tokens: Their spelling, by id, as many as the model has.
        types: What each is for, by llama.cpp's numbers.
        merges: Pairs that are joined, the first ones first.
        pattern: llama.cpp's name of the pattern that cuts texts.
        special: Ids of special tokens by the name of their role, such as `eos`.
        adds_bos: Whether a text begins with the bos token.
        adds_eos: Whether a text ends with the eos token.
        chat_template: In Jinja, if there is one.
        notes: Where llama.cpp may part texts otherwise.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pattern: str
    special: dict[str, int]
    adds_bos: bool
    adds_eos: bool
    chat_template: str | None
    notes: list[str] = field(default_factory=list)


def describe_tokenizer(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> GgufTokenizer:
    """A tokenizer as GGUF has it.

    Args:
        tokenizer: A byte-level BPE.
        vocab_size: Tokens of the model.

    Raises:
        ConversionError: llama.cpp has nothing that gives the same tokens; the message says what is in the way.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = {} if backend is None else json.loads(backend.to_str())
    model = content.get("model", {})
    _check_kind(content, model)
    tokens = _by_id(tokenizer, vocab_size)
    pattern, notes = _find_pattern(content["pre_tokenizer"], model, tokens)
    if content["normalizer"] is not None:
        notes.append("llama.cpp does not normalize texts (NFC), as this tokenizer does")
    added = {int(number): token for number, token in tokenizer.added_tokens_decoder.items()}
    _check_added(added)
    types = []
    for number, token in enumerate(tokens):
        if number in added:
            types.append(_CONTROL if added[number].special else _USER_DEFINED)
        else:
            types.append(_NORMAL if token is not None else _UNUSED)
    adds_bos, adds_eos = _added_around(tokenizer)
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")}
    template = tokenizer.chat_template
    return GgufTokenizer(
        [f"[PAD{number}]" if token is None else token for number, token in enumerate(tokens)],
        types,
        [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]],
        pattern,
        {name: number for name, number in special.items() if number is not None},
        adds_bos,
        adds_eos,
        template.get("default") if isinstance(template, dict) else template,
        notes,
    )


def mend_tokenizer(tokenizer: PreTrainedTokenizerBase, model: str, pattern: str | None) -> list[str]:
    """Lets a tokenizer that was read from a GGUF file cut texts by the pattern that the file names; returns notes."""
    if model != "gpt2":
        return []
    backend = tokenizer.backend_tokenizer
    if pattern in _GPT2:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    elif pattern in _SMOLLM:
        digits = pre_tokenizers.Digits(individual_digits=True)
        spelling = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, spelling])
    elif pattern in _LLAMA_BPE:
        backend.pre_tokenizer = split_by(_LLAMA3)
        backend.model.ignore_merges = True
    elif pattern in _QWEN:
        backend.pre_tokenizer = split_by(SPLIT_PATTERN)
        backend.normalizer = None
    else:
        return [f"the file names the pattern {pattern!r} (tokenizer.ggml.pre): texts are cut as Transformers reads it"]
    return []


def _check_kind(content: dict[str, Any], model: dict[str, Any]) -> None:
    decoder = (content.get("decoder") or {}).get("type")
    if model.get("type") != "BPE" or model.get("byte_fallback") or decoder != "ByteLevel":
        raise ConversionError(
            f"this tokenizer ({model.get('type', 'unknown')}) is no byte-level BPE, and only those are written to "
            "GGUF. Write the model without it (--no_tokenizer): ids go in and come out."
        )
    in_the_way = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    normalizer = content["normalizer"]
    if normalizer is not None and normalizer.get("type") != "NFC":
        in_the_way.append(f"a normalizer ({normalizer.get('type')})")
    if in_the_way:
        raise ConversionError(
            f"llama.cpp has no counterpart of {', '.join(in_the_way)} of this tokenizer. Write the model without it "
            "(--no_tokenizer)."
        )


def _by_id(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[str | None]:
    tokens: list[str | None] = [None] * vocab_size
    for token, number in tokenizer.get_vocab().items():
        if number >= vocab_size:
            raise ConversionError(
                f"the tokenizer has the token {token!r} of id {number}, but the model only {vocab_size} tokens. Write "
                "the model without it (--no_tokenizer)."
            )
        tokens[number] = token
    return tokens


def _check_added(added: dict[int, Any]) -> None:
    odd = [token.content for token in added.values() if token.lstrip or token.rstrip or token.single_word]
    if odd:
        raise ConversionError(
            f"the tokens {', '.join(odd[:3])} take white space beside them or stand alone (lstrip, rstrip, "
            "single_word), which llama.cpp cannot say. Write the model without the tokenizer (--no_tokenizer)."
        )


def _added_around(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    plain, full = (tokenizer(PROBE, add_special_tokens=add)["input_ids"] for add in (False, True))
    for adds_bos in (False, True):
        for adds_eos in (False, True):
            before = [tokenizer.bos_token_id] if adds_bos else []
            after = [tokenizer.eos_token_id] if adds_eos else []
            if [*before, *plain, *after] == full:
                return adds_bos, adds_eos
    raise ConversionError(
        "this tokenizer puts other tokens around a text than bos and eos, which llama.cpp cannot say. Write the model "
        "without it (--no_tokenizer)."
    )


def _find_pattern(
    steps: dict[str, Any] | None, model: dict[str, Any], tokens: list[str | None]
) -> tuple[str, list[str]]:
    ignores_merges = bool(model.get("ignore_merges"))
    spelling, expressions = _read_steps(steps)
    if spelling == "gpt2" and expressions == [] and not ignores_merges:
        return _GPT2[0], []
    if spelling == "gpt2" and expressions == ["digits"] and not ignores_merges:
        return _SMOLLM[0], []
    if spelling == "plain" and expressions == [_LLAMA3] and ignores_merges:
        return _LLAMA_BPE[0], []
    if spelling == "plain" and expressions in ([SPLIT_PATTERN], [_QWEN2]) and not ignores_merges:
        return _QWEN[0], []
    if spelling == "plain" and len(expressions) == 1 and expressions[0] in TWO_DIGIT_PATTERNS and not ignores_merges:
        if pairs := _tokens_of_several_digits(tokens):
            raise ConversionError(
                "this tokenizer was trained by an earlier version, which cut numbers by two digits: llama.cpp has no "
                f"pattern for its tokens {', '.join(map(repr, pairs[:3]))}. Train a tokenizer and a model anew, or "
                "write the model without it (--no_tokenizer): ids go in and come out."
            )
        return _QWEN[0], [_SPLIT_LIMIT] if expressions[0] == TWO_DIGIT_PATTERNS[0] else []
    known = ", ".join(names[0] for names in (_GPT2, _SMOLLM, _LLAMA_BPE, _QWEN))
    raise ConversionError(
        f"this tokenizer cuts texts in a way that is none of llama.cpp's {known}. Write the model without it "
        "(--no_tokenizer): ids go in and come out."
    )


def _read_steps(steps: dict[str, Any] | None) -> tuple[str | None, list[str | None]]:
    """How parts are spelled, by GPT-2's pattern or as they are, and by what expressions they are cut before."""
    every = (steps or {}).get("pretokenizers") or ([steps] if steps else [])
    if not every or every[-1]["type"] != "ByteLevel" or every[-1].get("add_prefix_space"):
        return None, []
    expressions: list[str | None] = []
    for step in every[:-1]:
        if step["type"] == "Digits" and step.get("individual_digits"):
            expressions.append("digits")
        elif step["type"] == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            expressions.append(step["pattern"].get("Regex"))
        else:
            return None, []
    return "gpt2" if every[-1].get("use_regex", True) else "plain", expressions


def _tokens_of_several_digits(tokens: list[str | None]) -> list[str]:
    """Tokens that may reach from one number character into another, also where they end within one."""
    spelled = {character: byte for byte, character in bytes_to_unicode().items()}
    numbers = [chr(code).encode() for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "N"]
    ends = {number[cut:] for number in numbers for cut in range(1, len(number))}
    begins = {number[:cut] for number in numbers for cut in range(1, len(number))}
    inside = re.compile(b"|".join(map(re.escape, sorted(numbers, key=len, reverse=True))))
    found = []
    for token in tokens:
        if token is None or not set(token) <= spelled.keys():
            continue
        content = bytes(spelled[character] for character in token)
        whole = len(inside.findall(content))
        first = any(content[:size] in ends for size in (1, 2, 3))
        last = any(content[-size:] in begins for size in (1, 2, 3) if size < len(content))
        if whole + first + last > 1:
            found.append(token)
    return found
