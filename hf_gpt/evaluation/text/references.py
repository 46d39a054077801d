"""Reference texts in the form that sacrebleu takes."""

from collections.abc import Iterable, Sequence

from hf_gpt.evaluation.text.words import bleu_tokenizer, normal_form


def reference_streams(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """From the references of each example to the first reference of every example, the second of every example, ...

    Characters are composed, so that two spellings of the same characters are equal.

    Raises:
        ValueError: examples have different numbers of references, or none.
    """
    counts = {len(wanted) for wanted in references}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            f"every example needs the same number of references, at least 1; found {sorted(counts)}. Give each as "
            "many as the others."
        )
    return [composed(stream) for stream in zip(*references, strict=True)]


def composed(texts: Iterable[str]) -> list[str]:
    """The texts in NFC, as `reference_streams` gives those that they are compared with."""
    return list(map(normal_form, texts))


def chosen_tokenizer(tokenize: str, references: Sequence[Sequence[str]]) -> str:
    """The tokenizer of sacrebleu that is meant: one by name, or for `"auto"` the one for the references' script."""
    return tokenize if tokenize != "auto" else bleu_tokenizer(text for wanted in references for text in wanted)
