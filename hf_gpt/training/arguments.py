"""The model, data and sampling options of the training commands. Imports nothing heavy: `--help` reads these classes.

`HfGptTrainingArguments`, which needs PyTorch, lives in `training_arguments.py`.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class ModelArguments:
    """Which model is trained: a new one of a given shape, or one that exists already."""

    _argument_group_name = "model"

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Go on from these weights: a checkpoint folder or a Hub id. Left out: a new model."},
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of a Hub id."})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run model code that comes with the checkpoint. Only for code you trust."}
    )
    model_type: str = field(
        default="hf_gpt",
        metadata={
            "help": "Architecture of a new model: hf_gpt, hf_gpt_seq2seq, hf_lstm, llama, gpt2, t5, ... (any type that "
            "AutoConfig knows)."
        },
    )
    preset: str | None = field(
        default=None,
        metadata={
            "help": "Named size of a new hf_gpt or hf_gpt_seq2seq model: nano, micro, mini, small, 124m, 350m, ..."
        },
    )
    config_overrides: str | None = field(
        default=None,
        metadata={
            "help": "Config fields of a new model, with pretrain and finetune of a loaded one too, as "
            "hidden_size=256,num_hidden_layers=6 or as JSON; a mapping in a recipe. The command line replaces single "
            "entries of the recipe's."
        },
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention: eager, sdpa, flash_attention_2, flex_attention or a Hub kernel."}
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = field(
        default="float32", metadata={"help": "Type of the weights. --bf16 computes in bfloat16 over float32 weights."}
    )
    pad_vocab_to_multiple_of: int = field(
        default=64, metadata={"help": "Round a new model's vocabulary up to a multiple of this, which GPUs like."}
    )

    @property
    def overrides(self) -> dict[str, Any]:
        """`config_overrides` as a mapping.

        Raises:
            ConfigError: it is neither JSON nor `key=value` pairs.
        """
        return parse_mapping(self.config_overrides, "config_overrides")


@dataclass
class DataArguments:
    """Which text is trained on, and how it becomes rows of tokens."""

    _argument_group_name = "data"

    corpus: list[str] = field(
        default_factory=lambda: ["tinyshakespeare"],
        metadata={"help": "Text: .txt, .jsonl, .csv or .parquet files, or the built-in tinyshakespeare."},
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read while training, in constant memory: needs --max_steps and --validation_file. Takes Hub ids "
            "(owner/name) too. Rows are shuffled within windows of about 4096 documents."
        },
    )
    corpus_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "With --streaming, share of each corpus in the text that is trained on; one that ends begins anew. "
            "Left out: one after the other."
        },
    )
    malformed_rows: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "With --streaming, what is done about a row that cannot be read; skipped ones are counted."},
    )
    text_column: str = field(
        default="text", metadata={"help": "Column of a .jsonl, .csv or .parquet file that is read."}
    )
    document_separator: str | None = field(
        default=None,
        metadata={
            "help": r"Where a .txt file parts into documents, e.g. '\n\n', whichever line ends the file has. Left out: "
            "one file, one document."
        },
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "Files to validate on. Left out: validation_fraction of the corpus."}
    )
    validation_fraction: float = field(
        default=0.1,
        metadata={
            "help": "Share of the documents held out, sampled by seed; of a single document, blocks from all over it."
        },
    )
    max_length: int = field(default=512, metadata={"help": "Tokens in a row; also the model's context length."})
    overlong: Literal["truncate", "drop", "error"] = field(
        default="truncate",
        metadata={
            "help": "What is done about a document longer than a row: truncate parts it into rows, "
            "drop leaves it out, error stops."
        },
    )
    packing_strategy: Literal["best_fit", "sequential"] = field(
        default="best_fit",
        metadata={"help": "best_fit keeps documents whole where they fit; sequential keeps their order, without gaps."},
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Tokenizer to use: a folder or Hub id. Left out: the model's, or a new one."}
    )
    tokenizer_vocab_size: int = field(
        default=4096,
        metadata={
            "help": "Tokens of a new tokenizer, special ones included (byte-level BPE). None has more than 64 letters."
        },
    )


TASK_NAMES = Literal[
    "classification",
    "token_classification",
    "question_answering",
    "summarization",
    "translation",
    "closed_book_qa",
    "dialogue",
    "image_classification",
    "image_generation",
    "sound_classification",
    "sound_generation",
]


@dataclass
class TaskArguments:
    """Which task is trained, on which examples, and how they become tokens."""

    _argument_group_name = "task"

    task: TASK_NAMES = field(default="classification", metadata={"help": "What the model is to learn."})
    architecture: Literal["auto", "decoder", "encoder_decoder"] = field(
        default="auto",
        metadata={
            "help": "summarization, translation, closed_book_qa, dialogue: a decoder reads and writes in one sequence, "
            "an encoder_decoder reads in one and writes in another; a decoder's checkpoint becomes both halves of it. "
            "auto: as --model_name_or_path or --model_type is."
        },
    )
    train_file: list[str] | None = field(
        default=None,
        metadata={"help": "Examples: .jsonl, .json, .csv or .parquet, also .gz. Left out: the task's built-in sample."},
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "Examples to validate on. Left out: validation_fraction of the others."}
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "In place of files, a data set of the Hub, or a folder of that form."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration, if it has several."})
    train_split: str = field(default="train", metadata={"help": "Its split to train on; train[:1000] is a part."})
    validation_split: str | None = field(
        default=None,
        metadata={"help": "Its split to validate on. Left out: its validation split, else validation_fraction."},
    )
    validation_fraction: float = field(default=0.1, metadata={"help": "Share of the examples held out, drawn by seed."})
    group_column: str | None = field(
        default=None, metadata={"help": "Column of the group of an example: its speaker, source or the like."}
    )
    held_out_groups: list[str] | None = field(
        default=None, metadata={"help": "Validate on all examples of these groups and train on those of the others."}
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read examples while training, in constant memory: needs --validation_file, or --dataset_name with "
            "a validation split. Without --max_steps files are read once before, to count examples; the same where "
            "classes are not named."
        },
    )
    shuffle_buffer_size: int = field(
        default=4096,
        metadata={
            "help": "With --streaming, examples that are in memory and shuffled among themselves, by seed; 0 keeps "
            "their order."
        },
    )
    malformed_rows: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "With --streaming, what is done about a row that cannot be used; skipped ones are counted."},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first this many examples."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Validate on the first this many examples."})
    text_column: str = field(default="text", metadata={"help": "classification: column of the text."})
    text_pair_column: str | None = field(
        default=None, metadata={"help": "classification: column of a second text, as in entailment."}
    )
    label_column: str = field(
        default="label",
        metadata={
            "help": "classification, image, sound: column of the class, a name or id. To learn classes of texts from, "
            "also the probability of each class in a list."
        },
    )
    class_names: list[str] | None = field(
        default=None,
        metadata={"help": "Names of the classes, or tags, in the order of their ids. Left out: from the data."},
    )
    start_from_counts: bool = field(
        default=False,
        metadata={
            "help": "classification: let the embeddings of a new model begin with what naive Bayes makes of the "
            "training texts: the log-count ratios of each token's classes."
        },
    )
    tokens_column: str = field(default="tokens", metadata={"help": "token_classification: column of the words."})
    tags_column: str = field(default="tags", metadata={"help": "token_classification: column of a tag for each word."})
    context_column: str = field(default="context", metadata={"help": "question_answering: column of the passage."})
    question_column: str = field(default="question", metadata={"help": "Column of the question."})
    answers_column: str = field(
        default="answers",
        metadata={"help": "Column of the answers: SQuAD's text and answer_start, or for closed_book_qa texts."},
    )
    source_column: str = field(
        default="source", metadata={"help": "summarization, translation: column of the text that is read."}
    )
    target_column: str = field(
        default="target", metadata={"help": "summarization, translation: column of the text that is to be written."}
    )
    messages_column: str = field(
        default="messages",
        metadata={"help": "dialogue: column of the turns, texts in turn or objects with role and content."},
    )
    tools_column: str = field(
        default="tools",
        metadata={
            "help": "dialogue: column of the tools that the model's own chat template describes; rows may lack it."
        },
    )
    signal_column: str = field(
        default="signal", metadata={"help": "image, sound: column of the array; rows of pixels, or samples."}
    )
    num_levels: int | None = field(
        default=None, metadata={"help": "image, sound: grey levels of a pixel (17), levels of a mu-law sample (256)."}
    )
    patch_size: int = field(
        default=1, metadata={"help": "image: side of the square of pixels that is one token; 1: a token a pixel."}
    )
    codebook_size: int = field(
        default=64, metadata={"help": "image, sound: codewords of a patch, or of a group of mel bands (k-means)."}
    )
    sound_encoding: Literal["log_mel", "mu_law"] = field(
        default="log_mel", metadata={"help": "sound: tokens of log-mel frames, or a token a sample."}
    )
    sampling_rate: int = field(default=8000, metadata={"help": "sound: samples in a second."})
    hop_length: int = field(default=160, metadata={"help": "sound: samples from a log-mel frame to the next."})
    num_mel_bins: int = field(default=16, metadata={"help": "sound: mel bands of a frame."})
    num_groups: int = field(default=4, metadata={"help": "sound: groups of bands, each a token; 1: one token a frame."})
    num_frames: int | None = field(
        default=None,
        metadata={"help": "sound: stretch every sound to this many log-mel frames. Left out: frames a hop apart."},
    )
    trim_range: float = field(
        default=4.0,
        metadata={"help": "sound: frames at the ends are cut that are this far below the loudest, in nats of power."},
    )
    loudness_share: float = field(
        default=0.0,
        metadata={"help": "sound: stretch to num_frames by loudness instead of time, in part or (1) wholly."},
    )
    normalize_by_group: bool = field(
        default=False,
        metadata={
            "help": "sound_classification: take away from the frames of a sound what all sounds of its group_column, "
            "such as its speaker, have in common, labels unseen; also when it is evaluated. Needs num_frames."
        },
    )
    augmented_copies: int = field(
        default=0, metadata={"help": "image, sound: changed copies of each example that are trained on too."}
    )
    augmentation_strength: float = field(
        default=1.0,
        metadata={
            "help": "image, sound: how far copies are changed; below 1 for signals that are drawn like the real."
        },
    )
    eval_copies: int = field(
        default=0,
        metadata={
            "help": "image_classification, sound_classification: a prediction sums up that for a signal and those for "
            "this many changed copies of it."
        },
    )
    temperature: float = field(default=1.0, metadata={"help": "image, sound: temperature of what is drawn."})
    top_p: float = field(default=1.0, metadata={"help": "image, sound: draw from the likeliest tokens of this mass."})
    samples_per_class: int = field(
        default=10, metadata={"help": "image, sound: how many of each class are drawn for the report."}
    )
    prompt_template: str = field(
        default="{source}\n=>",
        metadata={"help": "What the model reads before it writes; {source} is the text or question."},
    )
    max_length: int = field(default=256, metadata={"help": "Most tokens of an example; a new model's context length."})
    overlong: Literal["truncate", "drop", "error"] = field(
        default="truncate",
        metadata={
            "help": "What is done about an example that is too long: truncate cuts it, drop leaves it out, "
            "error stops. It is counted."
        },
    )
    doc_stride: int = field(
        default=64, metadata={"help": "question_answering: tokens that neighbouring windows of a long passage share."}
    )
    max_answer_length: int = field(default=30, metadata={"help": "question_answering: most tokens of an answer."})
    predict_with_generate: bool = field(
        default=True, metadata={"help": "Evaluate what the model writes too; without it the loss alone."}
    )
    max_new_tokens: int = field(default=64, metadata={"help": "Most tokens that the model writes."})
    num_beams: int = field(default=1, metadata={"help": "Beams of the search; 1 takes the likeliest token each time."})
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Tokenizer to use: a folder or Hub id. Left out: the model's, or a new one."}
    )
    tokenizer_vocab_size: int = field(
        default=4096,
        metadata={
            "help": "Tokens of a new tokenizer, trained on the task's text (byte-level BPE, up to 64 letters a token)."
        },
    )


@dataclass
class TextArguments:
    """Real texts that a generator is to write like: whole texts, or completions of prompts."""

    _argument_group_name = "texts"

    corpus: list[str] = field(
        default_factory=lambda: ["tinyshakespeare"],
        metadata={"help": "Files with real texts (.txt, .jsonl, .csv, .parquet), or names of built-in ones."},
    )
    text_column: str = field(default="text", metadata={"help": "Column of a table that holds a text."})
    document_separator: str | None = field(
        default=r"\n\n", metadata={"help": "Where a .txt file parts into texts; by default at blank lines."}
    )
    prompt_column: str | None = field(
        default=None, metadata={"help": "Column of a table that holds a prompt. Left out: texts without prompts."}
    )
    completion_column: str = field(
        default="completion", metadata={"help": "Column of the real completion, with --prompt_column."}
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "Held-out texts of the same form. Left out: validation_fraction of the others."}
    )
    validation_fraction: float = field(default=0.1, metadata={"help": "Share of the texts held out, drawn by seed."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first this many texts."})
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Tokenizer to use: a folder or Hub id. Left out: the model's, or a new one."}
    )
    tokenizer_vocab_size: int = field(
        default=1024,
        metadata={
            "help": "Tokens of a new tokenizer, special ones included (byte-level BPE). None has more than 64 letters."
        },
    )


@dataclass
class DiscriminatorArguments:
    """Who tells real from generated texts."""

    _argument_group_name = "discriminator"

    discriminator: str = field(
        default="from_generator",
        metadata={
            "help": "from_generator: the generator's trunk with a new head, or all of it for a loss of language "
            "models. ngram_cnn: a new convolutional critic. language_model: a new GPT. Else a checkpoint folder or Hub "
            "id with one label. none: self-play."
        },
    )
    discriminator_preset: str = field(
        default="nano", metadata={"help": "Size of --discriminator language_model, as --preset."}
    )
    discriminator_overrides: str | None = field(
        default=None,
        metadata={"help": "Config fields of a new discriminator, as classifier_dropout=0.1 or as JSON."},
    )
    discriminator_trunk: Literal["own", "frozen", "detached", "joint"] = field(
        default="own",
        metadata={
            "help": "Of --discriminator from_generator. own: a copy that is trained. frozen: a copy that is not. "
            "detached: the generator's as it changes. joint: the same, trained by both."
        },
    )
    discriminator_lora_r: int = field(
        default=0, metadata={"help": "Train an adapter of this rank on the discriminator; 0: its own weights."}
    )

    @property
    def overrides(self) -> dict[str, Any]:
        """`discriminator_overrides` as a mapping.

        Raises:
            ConfigError: it is neither JSON nor `key=value` pairs.
        """
        return parse_mapping(self.discriminator_overrides, "discriminator_overrides")


@dataclass
class PeftArguments:
    """Whether an adapter is trained instead of the model's own weights."""

    _argument_group_name = "adapter"

    use_peft: bool = field(default=False, metadata={"help": "Train an adapter; the model's own weights stay."})
    peft_method: Literal["lora", "dora", "prefix", "prompt"] = field(
        default="lora",
        metadata={"help": "lora, dora: a low-rank change of weights. prefix, prompt: learned states before the text."},
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the change."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the change, in multiples of 1 / rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on what the change reads."})
    lora_target_modules: list[str] | None = field(
        default_factory=lambda: ["all-linear"],
        metadata={"help": "Modules that are changed, by the end of their names; all-linear: all but the head."},
    )
    num_virtual_tokens: int = field(default=16, metadata={"help": "prefix, prompt: length of what is learned."})
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "Keep the model's own weights in 4 bits while the adapter is trained (QLoRA, bitsandbytes)."},
    )
    merge_adapter: bool = field(
        default=False, metadata={"help": "Save the model with the change added in, instead of the adapter."}
    )


@dataclass
class SamplingArguments:
    """What is drawn from the model at the end of the run, for the report."""

    _argument_group_name = "samples"

    sample_prompts: list[str] = field(
        default_factory=lambda: [""],
        metadata={"help": "Prompts continued at the end of the run; an empty one starts from the beginning of a text."},
    )
    sample_max_new_tokens: int = field(default=200, metadata={"help": "Most tokens that are added to a prompt."})
    sample_temperature: float = field(default=0.8, metadata={"help": "Temperature; 0 takes the likeliest token."})
    sample_top_p: float = field(default=0.95, metadata={"help": "Draw from the likeliest tokens of this total mass."})
    sample_batch_size: int = field(default=8, metadata={"help": "Prompts continued at once."})


def check_at_least(arguments: Any, **least: int) -> None:
    """Raises `ConfigError` for the first option below its least value; one that is left out is none."""
    from hf_gpt.errors import ConfigError

    for name, value in least.items():
        given = getattr(arguments, name)
        if given is not None and given < value:
            raise ConfigError(f"--{name} must be at least {value}, got {given}.")


def parse_mapping(text: "str | dict[str, Any] | None", option: str) -> dict[str, Any]:
    """Reads `a=1,b=2` or a JSON object.

    Args:
        text: What was given; None is an empty mapping, a mapping is returned as a copy.
        option: Name of the option, for the error.

    Raises:
        ConfigError: the text is neither.
    """
    import yaml

    from hf_gpt.errors import ConfigError

    if text is None or isinstance(text, dict):
        return dict(text or {})
    stripped = text.strip()
    try:
        if stripped.startswith("{"):
            return {key: _number_or(value) for key, value in json.loads(stripped).items()}
        pairs = [pair.split("=", 1) for pair in stripped.split(",") if pair.strip()]
        return {key.strip(): _number_or(yaml.safe_load(value)) for key, value in pairs}
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"--{option}: cannot read {text!r}. Write name=value,name=value or a JSON object such as "
            "'{\"hidden_size\": 256}'."
        ) from error


def _number_or(value: Any) -> Any:
    # YAML 1.1 takes 1e-3 for a text: its floats need a dot.
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value) else value
