"""Options: the task, and its examples. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass, field
from typing import Literal

from hf_gpt.data.arguments import MAX_ANSWER_LENGTH


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
    media_column: str = field(
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
    audio_encoding: Literal["log_mel", "mu_law"] = field(
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
    max_answer_length: int = field(
        default=MAX_ANSWER_LENGTH, metadata={"help": "question_answering: most tokens of an answer."}
    )
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
