"""The mutations: faults of one line or two that some test has to see."""

from dataclasses import dataclass
from pathlib import Path

import yaml


ROOT = Path(__file__).parents[2]
CATALOGUE = Path(__file__).with_name("catalogue.yaml")


@dataclass(frozen=True)
class Mutation:
    """A fault that is put into a copy of the source.

    Attributes:
        name: What is wrong with the mutated code, in a few words.
        file: The file, relative to the root of the repository.
        before: Text that occurs in it exactly once.
        after: What stands there instead.
        tests: Arguments of pytest that select tests of which one has to fail.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> str:
        """Mutates the file below `root` and returns its former text.

        Raises:
            ValueError: `before` does not occur in the file exactly once.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.before)) != 1:
            raise ValueError(
                f"{self.name}: the text to replace occurs {count} times in {self.file}, and must occur once."
            )
        path.write_text(text.replace(self.before, self.after), encoding="utf-8")
        return text


def read_catalogue() -> list[Mutation]:
    """All mutations of `catalogue.yaml`, in its order."""
    entries = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    return [Mutation(**{**entry, "tests": tuple(entry["tests"].split())}) for entry in entries]
