"""The data of `hf-gpt pretrain`: corpus, tokenizer, packed rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_gpt.data.arguments import DataArguments
from hf_gpt.training.arguments.model import ModelArguments


if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

    from hf_gpt.data.streaming import DocumentStream, RowStream
    from hf_gpt.data.truncation import Cuts
    from hf_gpt.training.training_arguments import HfGptTrainingArguments


@dataclass(frozen=True)
class PretrainingData:
    """What is trained and validated on.

    Attributes:
        train_rows: Packed rows, a whole number of batches of them, or an endless stream of them.
        validation_rows: The same for validation.
        validation_texts: The validation documents.
        train_bytes: UTF-8 bytes of the training documents; of a stream the size of its files, None if not known.
        validation_bytes: The same for validation.
        num_documents: Documents of the corpus, before a part is held out; None for a stream, which is not counted.
        num_blocks: Blocks that documents too few to hold one out were split into; None where they were not.
        tokenizer: What turned the text into tokens.
        cuts: What was parted or left out of the training and of the validation text.
    """

    train_rows: "datasets.Dataset | RowStream"
    validation_rows: "datasets.Dataset"
    validation_texts: list[str]
    train_bytes: int | None
    validation_bytes: int
    num_documents: int | None
    num_blocks: int | None
    tokenizer: "PreTrainedTokenizerBase"
    cuts: "dict[str, Cuts]"


@dataclass
class _Corpus:
    """The text before it is packed; of `texts` and `stream` one is None."""

    texts: "datasets.Dataset | None"
    stream: "DocumentStream | None"
    validation_texts: "datasets.Dataset"
    num_documents: int | None
    num_blocks: int | None


def prepare_data(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: "HfGptTrainingArguments",
    checkpoint: Path | None,
) -> PretrainingData:
    """Reads and splits the corpus, trains or loads the tokenizer, and packs.

    Args:
        model_args: Where a tokenizer may come from.
        data_args: The corpus.
        training_args: Batch sizes and seed.
        checkpoint: The checkpoint that is resumed from, whose tokenizer is used.
    """
    from hf_gpt.data.corpus import count_bytes
    from hf_gpt.data.packed_dataset import complete_batches, count_parted, filler_token_id, keep_fitting
    from hf_gpt.data.truncation import Cuts, check_usable

    corpus = _read(data_args, training_args)
    tokenizer = _make_tokenizer(checkpoint, corpus, model_args, data_args)
    unit = "documents" if corpus.num_blocks is None else "blocks"
    max_length = data_args.max_length
    cuts = {name: Cuts(unit, "max_length", max_length) for name in ("training", "validation")}
    if corpus.stream is None:
        train_rows, train_bytes = _pack_training_text(corpus.texts, tokenizer, data_args, training_args, cuts)
    else:
        train_rows, train_bytes = _stream_rows(corpus.stream, tokenizer, data_args, training_args.seed)
        cuts["training"] = train_rows.cuts
    validation_texts = keep_fitting(
        corpus.validation_texts, tokenizer, max_length, data_args.overlong, cuts["validation"]
    )
    check_usable(len(validation_texts), cuts["validation"], "to validate on")
    validation_rows = _pack(validation_texts, tokenizer, data_args, "packing the validation text")
    count_parted(validation_rows, tokenizer, cuts["validation"])
    rows_of_a_batch = training_args.eval_batch_size * training_args.data_parallel_size
    return PretrainingData(
        train_rows=train_rows,
        validation_rows=complete_batches(validation_rows, rows_of_a_batch, filler_token_id(tokenizer)),
        validation_texts=list(validation_texts["text"]),
        train_bytes=train_bytes,
        validation_bytes=count_bytes(validation_texts),
        num_documents=corpus.num_documents,
        num_blocks=corpus.num_blocks,
        tokenizer=tokenizer,
        cuts=cuts,
    )


def _read(data_args: DataArguments, training_args: "HfGptTrainingArguments") -> _Corpus:
    from hf_gpt.data.corpus import is_split_by_blocks, read_corpus, split_corpus
    from hf_gpt.data.streaming import check_streaming, open_documents
    from hf_gpt.errors import ConfigError

    form = {"text_column": data_args.text_column, "document_separator": data_args.document_separator}
    texts = stream = num_documents = num_blocks = None
    if data_args.streaming:
        check_streaming(data_args, training_args)
        stream = open_documents(data_args)
    elif data_args.train_file_weights:
        raise ConfigError("--train_file_weights needs --streaming.")
    else:
        texts = read_corpus(data_args.train_file, **form)
        num_documents = len(texts)
    if data_args.validation_file:
        validation_texts = read_corpus(data_args.validation_file, **form)
    else:
        parts_documents = is_split_by_blocks(texts, data_args.validation_fraction)
        texts, validation_texts = split_corpus(texts, data_args.validation_fraction, training_args.seed)
        num_blocks = len(texts) + len(validation_texts) if parts_documents else None
    return _Corpus(texts, stream, validation_texts, num_documents, num_blocks)


def _make_tokenizer(
    checkpoint: Path | None, corpus: _Corpus, model_args: ModelArguments, data_args: DataArguments
) -> "PreTrainedTokenizerBase":
    from hf_gpt.data.streaming import TOKENIZER_CHARACTERS, one_pass
    from hf_gpt.data.tokenizer import train_tokenizer
    from hf_gpt.training.model import load_tokenizer

    source = checkpoint or data_args.tokenizer_name or model_args.model_name_or_path
    if source is not None:
        return load_tokenizer(str(source), model_args)
    stream = corpus.stream
    texts = (text for text in corpus.texts["text"]) if stream is None else one_pass(stream, TOKENIZER_CHARACTERS)
    return train_tokenizer(texts, data_args.tokenizer_vocab_size, model_max_length=data_args.max_length)


def _pack(texts, tokenizer, data_args: DataArguments, desc: str) -> "datasets.Dataset":
    from hf_gpt.data.packed_dataset import tokenize_and_pack

    options = {"max_length": data_args.max_length, "strategy": data_args.packing_strategy}
    return tokenize_and_pack(texts, tokenizer, desc=desc, **options)


def _pack_training_text(
    texts, tokenizer, data_args: DataArguments, training_args: "HfGptTrainingArguments", cuts: "dict[str, Cuts]"
) -> "tuple[datasets.Dataset, int]":
    from hf_gpt.data.corpus import count_bytes
    from hf_gpt.data.packed_dataset import complete_batches, count_parted, filler_token_id, keep_fitting
    from hf_gpt.data.truncation import check_usable

    texts = keep_fitting(texts, tokenizer, data_args.max_length, data_args.overlong, cuts["training"])
    check_usable(len(texts), cuts["training"], "to train on")
    rows = _pack(texts, tokenizer, data_args, "packing the training text")
    count_parted(rows, tokenizer, cuts["training"])
    # Whole steps: a run that goes on with other batches, of as many rows in a step, has the same rows in its epoch.
    rows_of_a_step = training_args.train_batch_size * training_args.gradient_accumulation_steps
    rows_of_a_step *= training_args.data_parallel_size
    return complete_batches(rows, rows_of_a_step, filler_token_id(tokenizer)), count_bytes(texts)


def _stream_rows(
    stream: "DocumentStream", tokenizer, data_args: DataArguments, seed: int
) -> "tuple[RowStream, int | None]":
    from hf_gpt.data.streaming import RowStream

    options = {"max_length": data_args.max_length, "strategy": data_args.packing_strategy}
    rows = RowStream(stream, tokenizer, shuffle_seed=seed, overlong=data_args.overlong, **options)
    sizes = [source.num_bytes for source in stream.sources]
    return rows, None if None in sizes else sum(sizes)
