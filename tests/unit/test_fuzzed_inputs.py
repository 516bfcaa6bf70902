"""Every target of the fuzzers, with Hypothesis: good inputs, good inputs with something nasty in them, and any bytes.

What `make fuzz` once found stands in FOUND and is tried each time.
"""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.nasty import NASTY, SECRETS
from tests.fuzz.target import TARGETS, Target, load

#: Inputs of one target in a run of all tests. Those of the command line take ten times as long as others.
EXAMPLES = 60
SLOW = {"command_line": 15, "recordings": 30, "receipts": 20, "stripe_calls": 40, "stripe_control": 40}

#: Target → inputs that broke its law once.
FOUND: dict[str, tuple[bytes, ...]] = {
    "task_headers": (
        b'{"id": "\\ud800", "headers": {}}',
        b'{"root_id": "\\ud800", "headers": {}}',
        b'{"headers": {"billing_nonce": "\\ud800"}}',
        b'{"headers": {"billing_at": ' + b"9" * 4_300 + b"}}",
    ),
    "wait_headers": (
        b'{"billing_waits": 3, "billing_exhausted_waits": 1}',
        b'{"billing_waits": 9223372036854775807}',
        b'{"x-death": ["theirs"]}',
    ),
    "trail_notes": (b"[" * 60_000, b'{"kind":"refused","at":9999999999999999,"task_id":"task"}'),
    "stored_results": (b'{"status": "SUCCESS", "result": 5, "date_done": "0001-01-01T00:00:00+14:00"}',),
    "told_calls": (b"i1-0a#1\ninf", b"\xff\n5", b"\0\n5"),
    "usage_messages": (b'{"body": 5, "headers": ["no", "table"]}', b'{"body": "", "headers": {"billing_entry": "x"}}'),
    "csv_rows": (b"\xff\xff\xff\xff\xff" + "client\u2028u,quantity,time\nacme".encode(),),
    "settings": (
        b"\x26\xffhttp://127.0.0.1:12111\xff5\xffshar\xff5\xffshads",
        b"\x00\xffx\xff5\xffshards\nshards: 5",
    ),
    "files": (b"[" * 60_000,),
    "redis_records": (b"[" * 60_000,),
    "stripe_control": (b"{}\xff{}\xff" + b"[" * 60_000,),
    "addresses": (
        b"user:hunter2hunter2@h",
        b"redis://rredis//user:hunter2hunter2@h",
        b"https://user:hunter2hunter2 x@h/",
    ),
    "stripe_answers": (
        b'\0{"object":"list",\x05":data":[]}\xff\x0b{}\xff\0<html>',
        b'\0{"object":"list","data":[{"id":"sub_1","object":"subscription"}],"has_more":false}',
        b'\0{"object":"list","data":[{"id":"mtr_1","object":"billing.meter"}],"has_more":false}',
    ),
    "logs": (b"NaN", b"1e400"),
}


@functools.cache
def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Return the inputs of a target: from a good one, a piece is taken out and something put in its place."""
    target = load(name)
    good = st.sampled_from([seed for seed in target.seeds() if len(seed) < 20_000])
    nasty = st.sampled_from([word for word in (*NASTY, *SECRETS, *target.words) if len(word) <= target.length_max])
    return st.one_of(
        good, nasty, st.binary(max_size=200), st.builds(spliced, good, nasty, st.floats(0, 1), st.floats(0, 1))
    )


def spliced(good: bytes, nasty: bytes, first: float, second: float) -> bytes:
    """Return an input with a piece of another in it."""
    start, end = sorted((round(first * len(good)), round(second * len(good))))
    # Most pieces are short: what is behind them is then still read.
    return good[:start] + nasty + good[end if end - start < 20 else start + 1 :]


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_and_what_broke_them_keep_the_law(name: str) -> None:
    """Given every seed, every nasty thing alone, and what was found, then the law holds."""
    target: Target = load(name)
    seeds = list(target.seeds())
    assert seeds
    for data in (*seeds, *NASTY, *FOUND.get(name, ())):
        target.check(data)


@pytest.mark.parametrize("name", TARGETS)
def test_spoiled_inputs_keep_the_law(name: str) -> None:
    """Given good inputs with something nasty in them, or any bytes, then the law holds."""
    target = load(name)

    @settings(max_examples=SLOW.get(name, EXAMPLES))
    @given(inputs(name))
    def law(data: bytes) -> None:
        target.check(data)

    law()
