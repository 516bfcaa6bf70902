"""Makes docs/claims.md of docs/claims.toml, and refuses data that says more than it knows. Pure.

A result has its date, commit, machine and counts; a proof without one was not run yet, and the page says just that.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
DATA: Final = ROOT / "docs" / "claims.toml"
PAGE: Final = ROOT / "docs" / "claims.md"
_LAST: Final[Mapping[str, type]] = {
    "date": dt.date,
    "commit": str,
    "machine": str,
    "held": bool,
    "result": str,
}
_HELD: Final = {True: "held", False: "**not held**"}
_HEAD: Final = """\
<!-- made from claims.toml by `.venv/bin/python -m tests.claims` -->

# What is promised, and how to break it

Each promise has a command with which you can try to break it, in a fresh clone, with servers of its own: nothing of
yours is touched. What draws by chance takes `SEED=`, and prints it where it fails. `make test` has most of them in
small. The laws are those of [concepts](concepts.md). A last result is what was seen on that machine, at that commit,
no more.

| promise | law | try | last result |
|---|---|---|---|
"""
_PROOFS: Final = """
## The commands, and what was seen

| command | what it does | last run |
|---|---|---|
"""
_BY_HAND: Final = """
## By hand

Start a fleet (`make up`), and sell something in another terminal ([quickstart](quickstart.md), steps 1
to 3). Then break it.

**Empty Redis.** The balance is refused until it has been rebuilt from the history (within a minute), and is then what
it was:

    .venv/bin/python -c 'import redis; from billing.connections.connection_file import read; \\
        redis.Redis.from_url(read()["BILLING_REDIS_URL"]).flushall()'
    .venv/bin/billing balance acme

**Change the history.** All three are refused, although this login owns the tables:

    psql "$(.venv/bin/python -c 'from billing.connections.connection_file import read; \\
        print(read()["BILLING_DATABASE_URL"])')"
    UPDATE usage_history SET credits = 1;
    DELETE FROM usage_history;
    TRUNCATE usage_history;

**Change a credit.** Give the client one credit more in its bucket, at which you look first (here it has 35 available):

    .venv/bin/python -c 'import redis; from billing.connections.connection_file import read; \\
        r = redis.Redis.from_url(read()["BILLING_REDIS_URL"]); k = next(r.scan_iter("*bucket:acme")); \\
        v = r.get(k).decode(); print(v); r.set(k, v.replace(":35:", ":36:"))'
    .venv/bin/billing reconcile
    .venv/bin/billing reconcile --repair --yes
"""


def page(data: Mapping[str, Any]) -> str:
    """Return the page. Raises `ValueError` that names what is wrong with the data."""
    proofs = data["proof"]
    check(data)
    claims = [
        f"| {claim['says']} | {claim['law']} | {_command(proofs[claim['proof']])} | {_brief(proofs[claim['proof']])} |"
        for claim in data["claim"]
    ]
    runs = [f"| {_command(proof)} | {proof['what']} | {_told(proof, data['machine'])} |" for proof in proofs.values()]
    return _HEAD + "\n".join(claims) + "\n" + _PROOFS + "\n".join(runs) + "\n" + _BY_HAND


def check(data: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a claim without a proof, a proof without a claim, and a result that says too little."""
    named = {claim["proof"] for claim in data["claim"]}
    if unknown := named ^ data["proof"].keys():
        raise ValueError(f"proof: {sorted(unknown)}: each must be claimed, and each claim must have one")
    for name, proof in data["proof"].items():
        last = proof.get("last")
        if last is None:
            continue
        for field, kind in _LAST.items():
            if not isinstance(last.get(field), kind) or last[field] == "":
                raise ValueError(f"proof.{name}.last: {field}: {last.get(field)!r}: must be a {kind.__name__}")
        if last["machine"] not in data["machine"]:
            raise ValueError(f"proof.{name}.last: machine: {last['machine']!r}: must be one of [machine]")


def _command(proof: Mapping[str, Any]) -> str:
    command: str = proof["command"]
    return command if command.startswith("by hand") else f"`{command}`"


def _brief(proof: Mapping[str, Any]) -> str:
    last = proof.get("last")
    if last is None:
        return "not run yet"
    return f"{_HELD[last['held']]}, {last['date']}{', in small' if last.get('small') else ''}"


def _told(proof: Mapping[str, Any], machines: Mapping[str, str]) -> str:
    last = proof.get("last")
    if last is None:
        return _brief(proof)
    size = f" ({last['size']})" if last.get("size") else ""
    seen = f"{last['date']}, {last['commit']}, {machines[last['machine']]}{size}"
    return f"{seen}: {_HELD[last['held']]}; {last['result']}"
