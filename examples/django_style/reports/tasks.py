"""The tasks of this app. They are shared: none of them names the Celery app that runs it."""

from __future__ import annotations

import collections
import re

from celery import shared_task

from billing import BillableTask, usage

WORD = re.compile(r"[^\W\d_]+")
SENTENCE = re.compile(r"[.!?]+")


@shared_task(base=BillableTask, sku="words", quantity=lambda client_id, text: len(text) // 2 + 1)
def report(client_id: str, text: str) -> dict[str, object]:
    """Say what a text is like. At most every other character begins a word: so much is held, the words are charged."""
    words = [word.lower() for word in WORD.findall(text)]
    usage.record(len(words))
    sentences = [part for part in SENTENCE.split(text) if WORD.search(part)]
    counts = collections.Counter(words)
    return {
        "words": len(words),
        "different": len(counts),
        "longest": max(counts, key=lambda word: (len(word), word), default=""),
        "per sentence": len(words) // max(1, len(sentences)),
        "three times or more": sorted(word for word, count in counts.items() if count >= 3),
    }


@shared_task
def ping() -> str:
    """Do what is free."""
    return "pong"
