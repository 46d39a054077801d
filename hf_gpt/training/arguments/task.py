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
            "help": "For tasks that write text. decoder: one sequence for prompt and answer. encoder_decoder: one for "
            "each; a decoder's checkpoint becomes both halves. auto: as --model_name_or_path or --model_type is."
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
        default=None, metadata={"help": "A data set of the Hub, or a folder of that form, in place of files."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration, if it has several."})
    train_split: str = field(default="train", metadata={"help": "Its split to train on; train[:1000] is a part."})
    validation_split: str | None = field(
        default=None,
        metadata={"help": "Its split to validate on. Left out: its validation split, else validation_fraction."},
    )
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Share of the examples held out, chosen by seed."}
    )
    group_column: str | None = field(
        default=None, metadata={"help": "Column of the group of an example: its speaker, source or the like."}
    )
    held_out_groups: list[str] | None = field(
        default=None, metadata={"help": "Validate on all examples of these groups and train on those of the others."}
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read examples while training, in constant memory. Needs --validation_file, or --dataset_name with "
            "a validation split. Files are read once before if --max_steps or the names of the classes are missing."
        },
    )
    shuffle_buffer_size: int = field(
        default=4096,
        metadata={"help": "With --streaming, number of examples that are shuffled at a time; 0 keeps their order."},
    )
    malformed_rows: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "With --streaming, what to do about an unusable row. Skipped rows are counted."},
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
            "help": "classification, image, sound: column of the class, a name or id. classification also learns "
            "from a list with the probability of each class."
        },
    )
    class_names: list[str] | None = field(
        default=None,
        metadata={"help": "Names of the classes, or tags, in the order of their ids. Left out: from the data."},
    )
    start_from_counts: bool = field(
        default=False,
        metadata={
            "help": "classification: start the embeddings of a new model from naive Bayes: the log-count ratio of each "
            "token between the classes."
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
        metadata={"help": "dialogue: column of the tools for the model's chat template; rows may lack it."},
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
        metadata={"help": "sound: cut frames at both ends whose power is this many nats below the loudest."},
    )
    loudness_share: float = field(
        default=0.0,
        metadata={"help": "sound: stretch to num_frames by time (0), by loudness (1) or by both."},
    )
    normalize_by_group: bool = field(
        default=False,
        metadata={
            "help": "sound_classification: subtract from the frames of a sound the mean of its group_column, such as "
            "its speaker. No labels are used. Evaluation does the same. Needs num_frames."
        },
    )
    augmented_copies: int = field(
        default=0, metadata={"help": "image, sound: changed copies of each example to train on."}
    )
    augmentation_strength: float = field(
        default=1.0,
        metadata={
            "help": "image, sound: how far copies are changed; try below 1 where generated signals should look real."
        },
    )
    eval_copies: int = field(
        default=0,
        metadata={
            "help": "image_classification, sound_classification: average the prediction for a signal with those for "
            "this many changed copies of it."
        },
    )
    temperature: float = field(default=1.0, metadata={"help": "image, sound: sampling temperature."})
    top_p: float = field(default=1.0, metadata={"help": "image, sound: sample from the likeliest tokens of this mass."})
    samples_per_class: int = field(default=10, metadata={"help": "image, sound: samples of each class in the report."})
    prompt_template: str = field(
        default="{source}\n=>",
        metadata={"help": "What the model reads before it writes; {source} is the text or question."},
    )
    max_length: int = field(default=256, metadata={"help": "Most tokens of an example; a new model's context length."})
    overlong: Literal["truncate", "drop", "error"] = field(
        default="truncate",
        metadata={
            "help": "What to do about an example that is too long. truncate: cut it. drop: leave it out. error: stop. "
            "Such examples are counted."
        },
    )
    doc_stride: int = field(
        default=64, metadata={"help": "question_answering: tokens that neighbouring windows of a long passage share."}
    )
    max_answer_length: int = field(
        default=MAX_ANSWER_LENGTH, metadata={"help": "question_answering: most tokens of an answer."}
    )
    predict_with_generate: bool = field(
        default=True, metadata={"help": "Evaluate generated answers too, not only the loss."}
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
