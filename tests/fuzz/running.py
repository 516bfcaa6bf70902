"""One target under atheris, in this process: `python -m tests.fuzz.running TARGET DIRECTORY SECONDS RUNS`.

libFuzzer ends a process with its first finding, so each target has one of its own. `tests.fuzz` starts them, bounds
them, and reads what they print.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.fuzz.nasty import WORDS
from tests.fuzz.target import load

#: L9: what one input may take. The machine may be busy with other things.
SECONDS_MAX: Final = 25
MEGABYTES_MAX: Final = 2_048


def main(name: str, directory: str, seconds: str, runs: str) -> None:
    """Fuzz a target until its time, or its runs, are over, or a law is broken. Never returns."""
    atheris: Any = importlib.import_module("atheris")
    # Commands and forms are imported when they are first used, within `Fuzz`.
    with atheris.instrument_imports(include=["billing", "receiver", "standardwebhooks"]):
        target = load(name)
        place = Path(directory)
        corpus, words = place / "corpus", place / "words.txt"
        corpus.mkdir(parents=True, exist_ok=True)
        _write_seeds(corpus, target.seeds())
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in (*WORDS, *target.words)), "ascii")
        options = {
            "artifact_prefix": f"{place}/",
            "max_total_time": seconds,
            "runs": runs,
            "max_len": target.length_max,
            "timeout": SECONDS_MAX,
            "rss_limit_mb": MEGABYTES_MAX,
            "dict": words,
            "print_final_stats": 1,
        }
        arguments = [sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)]
        atheris.Setup(arguments, target.check)
        atheris.Fuzz()


def _write_seeds(corpus: Path, seeds: Iterable[bytes]) -> None:
    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(*sys.argv[1:])
