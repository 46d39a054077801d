"""Training of a byte-level BPE tokenizer."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hf_gpt.errors import ConfigError


END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"

# Longest run of letters, marks or white space that merges may join. Learning takes time that grows with the square of
# a word's length, and text without spaces, such as DNA or Chinese, would be one word. No word of a language that parts
# words is longer.
LONGEST_WORD = 64

# How text is cut before merges: contractions, words with the space or mark before them, digits one by one, runs of
# marks together with the line ends after them, line ends, and spaces. It is what llama.cpp knows as `qwen2`
# (https://github.com/ggml-org/llama.cpp, src/unicode.cpp, MIT), letter by letter, so that engines which know patterns
# by name give the same tokens. It is saved with the tokenizer, so texts are cut as they were when it was trained.
SPLIT_PATTERN = (
    r"'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The same with runs of at most `LONGEST_WORD`: for learning alone.
_LEARNING_PATTERN = (
    r"'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}{1,64}|\p{N}"
    r"| ?[^\s\p{L}\p{N}]{1,64}[\r\n]{0,64}|\s{0,64}[\r\n]|\s{1,64}(?!\S)|\s{1,64}"
).replace("64", str(LONGEST_WORD))
# Those of tokenizers which earlier versions trained: numbers of up to two digits, and first without bounds. After
# tiktoken's cl100k_base (https://github.com/openai/tiktoken, MIT).
TWO_DIGIT_PATTERNS = (
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}{1,64}|\p{N}{1,2}| ?[^\s\p{L}\p{N}]{1,64}[\r\n]{0,64}"
        r"|\s{0,64}[\r\n]|\s{1,64}(?!\S)|\s{1,64}"
    ),
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
)
_SMALLEST_VOCABULARY = 2 + 256


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, model_max_length: int | None = None, show_progress: bool = False
) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer.

    Every text without lone surrogates round-trips exactly, whatever it holds: all 256 bytes are tokens, and nothing is
    normalised. The same texts give the same tokenizer. `<|endoftext|>` begins and ends a text; `<|pad|>` is separate
    from it, so that masking the padding never masks an end of text. No special token is added when a text is encoded.
    No token joins more than `LONGEST_WORD` letters, marks or blanks, so that text without spaces takes no longer.

    Args:
        texts: What to learn the merges from.
        vocab_size: Most tokens, the two special ones and the 256 bytes included. A small text may give fewer.
        model_max_length: Longest input in tokens that the tokenizer's users should build, kept in its settings.
        show_progress: Whether to show a progress bar.

    Raises:
        ConfigError: `vocab_size` is below 258.
    """
    if vocab_size < _SMALLEST_VOCABULARY:
        raise ConfigError(
            f"tokenizer_vocab_size={vocab_size} is too small: 256 bytes and 2 special tokens need "
            f"{_SMALLEST_VOCABULARY}. Use 512 or more."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split_by(_LEARNING_PATTERN)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = split_by(SPLIT_PATTERN)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        # Generation continues a prompt at its right end.
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **({} if model_max_length is None else {"model_max_length": model_max_length}),
    )


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    """What cuts text by a regular expression and spells the parts as bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
