"""Windows of long documents, as prompts and their real completions."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_gpt.data.packed_dataset import tokenize_documents
from hf_gpt.errors import CorpusError


# With fewer documents than this, texts are windows of them.
_FEW_DOCUMENTS = 200
_WINDOW_PROMPT = 16


def window_prompt(num_documents: int) -> int:
    """Tokens of a window's prompt where documents are too few to be texts themselves; otherwise 0, for whole texts."""
    return _WINDOW_PROMPT if num_documents < _FEW_DOCUMENTS else 0


def describe_windows(prompt_tokens: int, max_new_tokens: int) -> str:
    """What the windows are, for the line that a command prints."""
    return f"windows of {prompt_tokens} + {max_new_tokens} tokens"


def text_windows(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt_tokens: int, max_new_tokens: int
) -> list[dict[str, list[int]]]:
    """Consecutive windows of documents, as prompts of `prompt_tokens` and completions of `max_new_tokens` tokens.

    A document's first window begins with the begin token. Its last one may be shorter and ends with the end token.

    Raises:
        CorpusError: no document is longer than a prompt.
    """
    rows = []
    for ids in map(np.ndarray.tolist, tokenize_documents(list(documents), tokenizer)):
        for start in range(0, len(ids) - prompt_tokens, prompt_tokens + max_new_tokens):
            middle = start + prompt_tokens
            rows.append({"prompt_ids": ids[start:middle], "completion_ids": ids[middle : middle + max_new_tokens]})
    if not rows:
        raise CorpusError(
            f"no document is longer than a prompt of {prompt_tokens} tokens. Fewer than {_FEW_DOCUMENTS} documents are "
            "parted into windows: --prompt_tokens 0 takes them whole, or lower it."
        )
    return rows
