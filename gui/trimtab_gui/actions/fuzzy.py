"""Finds what was meant by a few letters."""

from __future__ import annotations

_WORD_START = 8
_RUN = 5
_GAP = 1


def score(query: str, text: str) -> int | None:
    """Return how well `query` fits `text`, higher is better, None when a letter is missing.

    Letters must come in order; those at the start of a word and those in a row count more.
    """
    wanted = query.casefold().replace(" ", "")
    given = text.casefold()
    if not wanted:
        return 0
    best: int | None = None
    for start in (i for i, letter in enumerate(given) if letter == wanted[0]):
        found = _score_from(wanted, given, start)
        if found is not None and (best is None or found > best):
            best = found
    return best


def _score_from(wanted: str, given: str, start: int) -> int | None:
    total, previous, position = 0, start - 1, start
    for letter in wanted:
        position = given.find(letter, position)
        if position < 0:
            return None
        if position == 0 or not given[position - 1].isalnum():
            total += _WORD_START
        if position == previous + 1:
            total += _RUN
        else:
            total -= _GAP * (position - previous - 1)
        previous = position
        position += 1
    return total
