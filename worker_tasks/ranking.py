"""Ranks short documents by BM25 (Robertson and Zaragoza, 2009): rare words weigh more, long documents less.

Pure and in memory: an index is built once from the documents' words and does not change.
"""

from __future__ import annotations

import heapq
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Final

#: The usual values: how soon a repeated word stops to count, and how much a document's length does.
_SATURATION: Final = 1.2
_LENGTH_WEIGHT: Final = 0.75
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def words(text: str) -> list[str]:
    """Split text and identifiers (`snake_case`, `CamelCase`) into lower-case words."""
    return [word.lower() for word in _WORD.findall(text)]


class Index:
    """Documents, known by their position, findable by their words."""

    def __init__(self, documents: Iterable[Iterable[str]]) -> None:
        """Index each document's words. A word's postings are pairs: document, how often it is there."""
        self._postings: dict[str, array[int]] = {}
        self._lengths = array("I")
        for document, document_words in enumerate(documents):
            counts = Counter(document_words)
            self._lengths.append(counts.total())
            for word, count in counts.items():
                self._postings.setdefault(word, array("I")).extend((document, count))
        self._length_mean = sum(self._lengths) / len(self._lengths) if self._lengths else 1.0

    def __len__(self) -> int:
        return len(self._lengths)

    def best(self, query: Iterable[str], count: int) -> list[tuple[int, float]]:
        """Return the `count` best documents and their scores, best first; equal scores in the documents' order."""
        scores: dict[int, float] = {}
        for word in dict.fromkeys(query):
            postings = self._postings.get(word)
            if postings is None:
                continue
            containing = len(postings) // 2
            weight = math.log(1 + (len(self) - containing + 0.5) / (containing + 0.5))
            for document, times in zip(postings[::2], postings[1::2], strict=True):
                length = self._lengths[document] / self._length_mean
                damped = times + _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * length)
                scores[document] = scores.get(document, 0.0) + weight * times * (_SATURATION + 1) / damped
        return heapq.nsmallest(count, scores.items(), key=lambda item: (-item[1], item[0]))
