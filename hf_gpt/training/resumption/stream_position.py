"""Where a run stands in the stream that it is trained on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gpt import compat
from hf_gpt.data.fingerprint import stream_fingerprint
from hf_gpt.data.streaming import WindowStream
from hf_gpt.errors import ConfigError
from hf_gpt.files.checkpoint_parts import STREAM_POSITION_NAME, read_json


if TYPE_CHECKING:
    from hf_gpt.training.trainer import HfGptTrainer


class StreamPosition:
    """Counts the batches taken from a stream, and saves and loads the position; refuses worker processes."""

    def __init__(self, stream: WindowStream, trainer: "HfGptTrainer"):
        if trainer.args.dataloader_num_workers:
            raise ConfigError("--dataloader_num_workers must be 0 with --streaming: workers know no common position.")
        # The position says where to go on; Trainer would read and drop all batches up to there.
        trainer.args.ignore_data_skip = True
        self.stream = stream
        self.trainer = trainer
        self.batches_taken = 0
        self._random_state_from: str | None = None

    def rewind(self) -> None:
        """Goes back to the start."""
        self.batches_taken = 0
        self.stream.rewind()

    def count(self, batches: int) -> None:
        """Counts batches that the trainer has taken."""
        self.batches_taken += batches
        if self._random_state_from is not None:
            # The loader took a random number when it began. In the straight run that came before the checkpoint.
            self.trainer.load_random_state(self._random_state_from)
            self._random_state_from = None

    def state(self) -> dict[str, Any]:
        """The position in plain types."""
        rows_of_a_batch = compat.train_batch_size(self.trainer) * self.trainer.args.data_parallel_size
        return self.stream.state_dict(self.batches_taken * rows_of_a_batch)

    def save(self, folder: Path) -> None:
        """Writes the position into a checkpoint."""
        (folder / STREAM_POSITION_NAME).write_text(json.dumps(self.state()), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Goes on from the position of a checkpoint."""
        self.stream.load_state_dict(read_json(folder / STREAM_POSITION_NAME))
        self._random_state_from = str(folder)

    def fingerprint(self, checkpoint: Path | None) -> str:
        """The fingerprint of the documents up to the present position, or to that of a checkpoint."""
        position = self.state() if checkpoint is None else read_json(checkpoint / STREAM_POSITION_NAME)
        self.stream.check_position(position)
        return stream_fingerprint(self.stream.documents, position["documents"])
