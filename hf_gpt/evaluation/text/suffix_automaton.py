"""All spans of some token sequences in a graph of linear size, to find the longest that another sequence shares."""

from collections.abc import Hashable, Iterable, Sequence


class SuffixAutomaton:
    """The suffix automaton of several sequences (https://doi.org/10.1016/0304-3975(85)90157-4).

    Args:
        sequences: Tokens; no span reaches from one into the next.
    """

    def __init__(self, sequences: Iterable[Sequence[Hashable]]):
        self._next: list[dict[Hashable, int]] = [{}]
        self._link, self._length = [-1], [0]
        for sequence in sequences:
            last = 0
            for token in sequence:
                last = self._extend(last, token)

    def longest_span(self, tokens: Sequence[Hashable]) -> int:
        """Tokens of the longest span that stands in one of the sequences."""
        state = length = longest = 0
        for token in tokens:
            while state and token not in self._next[state]:
                state = self._link[state]
                length = self._length[state]
            if token in self._next[state]:
                state, length = self._next[state][token], length + 1
                longest = max(longest, length)
        return longest

    def _extend(self, last: int, token: Hashable) -> int:
        found = self._next[last].get(token)
        if found is not None:
            # Another sequence has been here.
            return found if self._length[found] == self._length[last] + 1 else self._split(last, token, found)
        state = self._add({}, self._length[last] + 1)
        while last != -1 and token not in self._next[last]:
            self._next[last][token] = state
            last = self._link[last]
        if last == -1:
            self._link[state] = 0
        else:
            found = self._next[last][token]
            is_next = self._length[found] == self._length[last] + 1
            self._link[state] = found if is_next else self._split(last, token, found)
        return state

    def _split(self, last: int, token: Hashable, found: int) -> int:
        state = self._add(dict(self._next[found]), self._length[last] + 1)
        self._link[state], self._link[found] = self._link[found], state
        while last != -1 and self._next[last].get(token) == found:
            self._next[last][token] = state
            last = self._link[last]
        return state

    def _add(self, following: dict[Hashable, int], length: int) -> int:
        self._next.append(following)
        self._link.append(0)
        self._length.append(length)
        return len(self._next) - 1
