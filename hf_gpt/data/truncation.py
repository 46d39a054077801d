"""What of the data is cut or left out before training, counted by cause."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from hf_gpt.errors import CorpusError


if TYPE_CHECKING:
    import datasets


Overlong = Literal["truncate", "drop", "error"]

# Every cause: singular and plural of what is counted, empty for the rows or documents themselves, and what happened.
CAUSES: Mapping[str, tuple[str, str, str]] = {
    "rows_cut": ("row", "rows", "cut to --{option} {limit}"),
    "prompts_cut": ("prompt", "prompts", "cut to --{option} {limit}"),
    "targets_cut": ("target", "targets", "without their end"),
    "labels_cut": ("label", "labels", "cut off"),
    "answers_alone": ("answer", "answers", "whose question is cut off"),
    "questions_cut": ("question", "questions", "cut to half of --{option} {limit}"),
    "answers_outside": ("answer", "answers", "that no window holds whole (raise --doc_stride)"),
    "answers_too_long": ("answer", "answers", "longer than --max_answer_length, which cannot be predicted"),
    "turns_without_end": ("turn", "turns", "that the chat template ends with no special token, so no end is learnt"),
    "parts_unread": ("message", "messages", "with tools or other parts that our own chat template does not write"),
    "rows_unread": ("", "", "of each epoch left out, which fill no batch (--dataloader_drop_last)"),
    "tokens_cut": ("token", "tokens", "cut off"),
    "unlabelled": ("", "", "without a label left out"),
    "dropped": ("", "", "longer than --{option} {limit} left out (--overlong drop)"),
    "documents_parted": ("", "", "longer than --{option} {limit} parted into rows, none of it lost"),
}


class Cuts:
    """Counts of what is cut or left out.

    Args:
        unit: What is counted in all, in the plural, such as `"rows"`.
        option: Name of the option that limits lengths.
        limit: Its value, in tokens.

    Attributes:
        total: How many rows were looked at.
        counts: How many were cut or left out, by cause, one of `CAUSES`.
    """

    def __init__(self, unit: str = "rows", option: str = "max_length", limit: int | None = None):
        self.unit, self.option, self.limit = unit, option, limit
        self.total = 0
        self.counts: dict[str, int] = {}
        # Of each cause, how many another option and value than the usual ones are the reason of.
        self._options: dict[str, dict[tuple[str, int | None], int]] = {}

    def add(self, cause: str, number: int = 1, *, option: str | None = None, limit: int | None = None) -> None:
        """Counts; `option` and its value are named where another than the usual one is the cause."""
        if number:
            self.counts[cause] = self.counts.get(cause, 0) + int(number)
        if number and option is not None:
            named = self._options.setdefault(cause, {})
            named[option, limit] = named.get((option, limit), 0) + int(number)

    def __bool__(self) -> bool:
        return bool(self.counts)

    @property
    def rows_cut(self) -> int:
        """Rows that were cut."""
        return self.counts.get("rows_cut", 0)

    @property
    def left_out(self) -> int:
        """Rows that are not trained on at all."""
        return sum(self.counts.get(name, 0) for name in ("unlabelled", "dropped"))

    def to_log(self) -> dict[str, int]:
        """The counts of a log entry; empty if nothing was cut."""
        return {"rows_cut": self.rows_cut, "rows_left_out": self.left_out} if self.counts else {}

    def describe(self) -> str:
        """What was cut, in a line; an empty text if nothing was."""
        parts: list[str] = []
        for cause, (one, many, what) in CAUSES.items():
            for (option, limit), number in self._by_option(cause):
                of = f" of {self.total:,}" if not parts and cause != "tokens_cut" else ""
                words = what.replace("their", "its") if number == 1 and not of else what
                unit = (many or self.unit) if of or number != 1 else (one or self.unit.removesuffix("s"))
                parts.append(f"{number:,}{of} {unit} {words.format(option=option, limit=limit)}")
        return "; ".join(parts)

    def _by_option(self, cause: str) -> list[tuple[tuple[str, int | None], int]]:
        """How often something happened, by the option and value that are the reason; the usual ones first."""
        named = self._options.get(cause, {})
        usual = self.counts.get(cause, 0) - sum(named.values())
        return [*([((self.option, self.limit), usual)] if usual > 0 else []), *named.items()]

    def to_dict(self) -> dict[str, int]:
        """The counts in plain types, with the number of rows in all; empty if nothing was cut."""
        return {self.unit: self.total, **self.counts} if self.counts else {}

    def keeps(
        self, overlong: Overlong, position: str, length: int, *, option: str | None = None, limit: int | None = None
    ) -> bool:
        """Whether something too long stays, to be cut.

        Args:
            overlong: What is done about it. `"drop"` is counted here; what a cut takes away is the caller's to count.
            position: Where it was read, for the error.
            length: Its length in tokens.
            option, limit: The option that limits it; left out: that of these counts.

        Raises:
            CorpusError: it is an error.
        """
        named = option or self.option
        most = self.limit if limit is None else limit
        if overlong == "error":
            raise CorpusError(
                f"{position}: {length:,} tokens are more than --{named} allows ({most:,}). Shorten it, raise "
                f"--{named.partition(' ')[0]}, or choose --overlong truncate or drop."
            )
        if overlong == "drop":
            usual = (named, most) == (self.option, self.limit)
            self.add("dropped", option=None if usual else named, limit=most)
        return overlong == "truncate"


def count_unread(cuts: Cuts, num_rows: int, rows_of_a_batch: int) -> None:
    """Counts the rows that an epoch leaves out since they fill no batch (`--dataloader_drop_last`)."""
    cuts.add("rows_unread", num_rows % rows_of_a_batch)


def count_labelled(rows: "datasets.Dataset") -> int:
    """How many rows have a label."""
    from hf_gpt.data.packing import IGNORE_INDEX

    if not len(rows) or "labels" not in rows.column_names or not isinstance(rows[0]["labels"], list):
        return len(rows)
    return sum(any(label != IGNORE_INDEX for label in labels) for labels in rows["labels"])


def check_usable(usable: int, cuts: Cuts, what: str) -> None:
    """Raises `CorpusError` where nothing is left to learn from or to validate on."""
    if usable:
        return
    why = f": {cuts.describe()}" if cuts else ""
    options = dict.fromkeys(option for named in cuts._options.values() for option, _ in named)
    advice = " and ".join(f"--{option.partition(' ')[0]}" for option in options or (cuts.option,))
    raise CorpusError(f"no row is left {what}{why}. Raise {advice} or give shorter texts.")


def cut_lines(parts: Mapping[str, Cuts]) -> list[tuple[str, str]]:
    """Lines for the console, a pair of a name and a text for each part that something was cut from."""
    return [("cut", f"{name}: {cuts.describe()}") for name, cuts in parts.items() if cuts]


def cuts_to_dict(parts: Mapping[str, Cuts]) -> dict[str, dict[str, int]]:
    """The counts of all parts in plain types; empty if nothing was cut."""
    return {name: cuts.to_dict() for name, cuts in parts.items() if cuts}
