"""Options: the task, and its examples. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass
from typing import Literal

from hf_gpt.data.arguments import MAX_ANSWER_LENGTH
from hf_gpt.option_values import option
from hf_gpt.training.tasks import TASKS


@dataclass
class TaskArguments:
    """Which task is trained, on which examples, and how they become tokens."""

    _argument_group_name = "task"

    task: Literal[tuple(TASKS)] = option("classification", "What the model is to learn.")
    architecture: Literal["auto", "decoder", "encoder_decoder"] = option(
        "auto",
        "For tasks that write text. decoder: one sequence for prompt and answer. encoder_decoder: one for "
        "each; a decoder's checkpoint becomes both halves. auto: as --model_name_or_path or --model_type is.",
    )
    train_file: list[str] | None = option(
        None, "Examples: .jsonl, .json, .csv or .parquet, also .gz. Left out: the task's built-in sample."
    )
    validation_file: list[str] | None = option(
        None, "Examples to validate on. Left out: validation_fraction of the others."
    )
    dataset_name: str | None = option(None, "A data set of the Hub, or a folder of that form, in place of files.")
    dataset_config_name: str | None = option(None, "Its configuration, if it has several.")
    train_split: str = option("train", "Its split to train on; train[:1000] is a part.")
    validation_split: str | None = option(
        None, "Its split to validate on. Left out: its validation split, else validation_fraction."
    )
    validation_fraction: float = option(0.1, "Share of the examples held out, chosen by seed.")
    group_column: str | None = option(None, "Column of the group of an example: its speaker, source or the like.")
    held_out_groups: list[str] | None = option(
        None, "Validate on all examples of these groups and train on those of the others."
    )
    streaming: bool = option(
        False,
        "Read examples while training, in constant memory. Needs --validation_file, or --dataset_name with "
        "a validation split. Files are read once before if --max_steps or the names of the classes are missing.",
    )
    shuffle_buffer_size: int = option(
        4096, "With --streaming, number of examples that are shuffled at a time; 0 keeps their order."
    )
    malformed_rows: Literal["stop", "skip"] = option(
        "stop", "With --streaming, what to do about an unusable row. Skipped rows are counted."
    )
    max_train_samples: int | None = option(None, "Train on the first this many examples.")
    max_eval_samples: int | None = option(None, "Validate on the first this many examples.")
    text_column: str = option("text", "classification: column of the text.")
    text_pair_column: str | None = option(None, "classification: column of a second text, as in entailment.")
    label_column: str = option(
        "label",
        "classification, image, sound: column of the class, a name or id. classification also learns "
        "from a list with the probability of each class.",
    )
    class_names: list[str] | None = option(
        None, "Names of the classes, or tags, in the order of their ids. Left out: from the data."
    )
    start_from_counts: bool = option(
        False,
        "classification: start the embeddings of a new model from naive Bayes: the log-count ratio of each "
        "token between the classes.",
    )
    tokens_column: str = option("tokens", "token_classification: column of the words.")
    tags_column: str = option("tags", "token_classification: column of a tag for each word.")
    context_column: str = option("context", "question_answering: column of the passage.")
    question_column: str = option("question", "Column of the question.")
    answers_column: str = option(
        "answers", "Column of the answers: SQuAD's text and answer_start, or for closed_book_qa texts."
    )
    source_column: str = option("source", "summarization, translation: column of the text that is read.")
    target_column: str = option("target", "summarization, translation: column of the text that is to be written.")
    messages_column: str = option(
        "messages", "dialogue: column of the turns, texts in turn or objects with role and content."
    )
    tools_column: str = option(
        "tools", "dialogue: column of the tools for the model's chat template; rows may lack it."
    )
    loss_on: Literal["all_turns", "last_turn"] = option(
        "all_turns", "dialogue: learn each of the assistant's turns, or the last of a conversation alone."
    )
    media_column: str = option("signal", "image, sound: column of the array; rows of pixels, or samples.")
    num_levels: int | None = option(None, "image, sound: grey levels of a pixel (17), levels of a mu-law sample (256).")
    patch_size: int = option(1, "image: side of the square of pixels that is one token; 1: a token a pixel.")
    codebook_size: int = option(64, "image, sound: codewords of a patch, or of a group of mel bands (k-means).")
    audio_encoding: Literal["log_mel", "mu_law"] = option(
        "log_mel", "sound: tokens of log-mel frames, or a token a sample."
    )
    sampling_rate: int = option(8000, "sound: samples in a second.")
    hop_length: int = option(160, "sound: samples from a log-mel frame to the next.")
    num_mel_bins: int = option(16, "sound: mel bands of a frame.")
    num_groups: int = option(4, "sound: groups of bands, each a token; 1: one token a frame.")
    num_frames: int | None = option(
        None, "sound: stretch every sound to this many log-mel frames. Left out: frames a hop apart."
    )
    trim_range: float = option(4.0, "sound: cut frames at both ends whose power is this many nats below the loudest.")
    loudness_share: float = option(0.0, "sound: stretch to num_frames by time (0), by loudness (1) or by both.")
    normalize_by_group: bool = option(
        False,
        "sound_classification: subtract from the frames of a sound the mean of its group_column, such as "
        "its speaker. No labels are used. Evaluation does the same. Needs num_frames.",
    )
    augmented_copies: int = option(0, "image, sound: changed copies of each example to train on.")
    augmentation_strength: float = option(
        1.0, "image, sound: how far copies are changed; try below 1 where generated signals should look real."
    )
    eval_copies: int = option(
        0,
        "image_classification, sound_classification: average the prediction for a signal with those for "
        "this many changed copies of it.",
    )
    temperature: float = option(1.0, "image, sound: sampling temperature.")
    top_p: float = option(1.0, "image, sound: sample from the likeliest tokens of this mass.")
    samples_per_class: int = option(10, "image, sound: samples of each class in the report.")
    prompt_template: str = option(
        "{source}\n=>", "What the model reads before it writes; {source} is the text or question."
    )
    max_length: int = option(256, "Most tokens of an example; a new model's context length.")
    overlong: Literal["truncate", "drop", "error"] = option(
        "truncate",
        "What to do about an example that is too long. truncate: cut it. drop: leave it out. error: stop. "
        "Such examples are counted.",
    )
    doc_stride: int = option(64, "question_answering: tokens that neighbouring windows of a long passage share.")
    max_answer_length: int = option(MAX_ANSWER_LENGTH, "question_answering: most tokens of an answer.")
    predict_with_generate: bool = option(True, "Evaluate generated answers too, not only the loss.")
    max_new_tokens: int = option(64, "Most tokens that the model writes.")
    num_beams: int = option(1, "Beams of the search; 1 takes the likeliest token each time.")
    tokenizer_name: str | None = option(
        None, "Tokenizer to use: a folder or Hub id. Left out: the model's, or a new one."
    )
    tokenizer_vocab_size: int = option(
        4096, "Tokens of a new tokenizer, trained on the task's text (byte-level BPE, up to 64 letters a token)."
    )
