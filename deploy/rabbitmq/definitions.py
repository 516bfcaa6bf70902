"""Writes RabbitMQ's definitions: two virtual hosts, a user for each kind of process, and what each may do.

Tasks and usage events are apart. Whoever may send a task may write to the default exchange of its virtual host, and so
to any queue there; no permission can say less. So usage events have a host of their own, where workers may publish and
nothing else, and submitters have no business at all.

Each user's password is in a file of the directory that is given: rabbitmq_<user>. Run it, then have the node load it:
python -m deploy.rabbitmq.definitions deploy/secrets > definitions.json; rabbitmqctl import_definitions definitions.json
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

TASKS: Final = "tasks"
USAGE: Final = "usage"

_NOTHING: Final = "^$"
#: What every process of Celery's has for events and remote control: queues of its own, exchanges of all.
_CONTROL: Final = r"celeryev(\..*)?|(.*\.)?celery\.pidbox"
_EXCHANGE: Final = r"^billing\.usage$"
_TOPOLOGY: Final = r"^billing\.usage(\.[0-9]+)?$"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class May:
    """Regular expressions over names of queues and exchanges. Default exchange: `amq.default`."""

    configure: str = _NOTHING
    write: str = _NOTHING
    read: str = _NOTHING


def _all(names: str, *, send: bool = False) -> May:
    return May(configure=f"^({names})$", write=f"^({names}{'|amq[.]default' if send else ''})$", read=f"^({names})$")


#: User → virtual host → what it may do there. `tasks` stands for the task queues of this fleet; add yours.
PERMISSIONS: Final[Mapping[str, Mapping[str, May]]] = {
    # Sends tasks. AMQP asks for read on an exchange of the queue's own name, so it may take tasks as well.
    "submitter": {TASKS: _all("tasks", send=True)},
    # Runs tasks, sends further ones, and waits in queues of its own; publishes usage events and cannot read one.
    "worker": {TASKS: _all(r"(?!billing\.maintenance$).*", send=True), USAGE: May(write=_EXCHANGE)},
    # Consumes usage events, publishes what the relay and a rebuild have; serves billing's own tasks.
    "fulfillment": {TASKS: _all(".*", send=True), USAGE: May(configure=_TOPOLOGY, write=_TOPOLOGY, read=_TOPOLOGY)},
    "beat": {TASKS: _all(rf"billing\.maintenance|{_CONTROL}", send=True)},
    # Sees what Celery's processes tell, and sends no task and takes none; counts what waits in the usage queues.
    "flower": {TASKS: _all(_CONTROL), USAGE: May()},
    "exporter": {USAGE: May()},
    # Whoever runs commands at hand: doctor, dead letters, rebuilds.
    "operator": {
        TASKS: _all(".*", send=True),
        USAGE: May(configure=_TOPOLOGY, write=_TOPOLOGY, read=_EXCHANGE),
    },
}


def definitions(passwords: Mapping[str, str], *, prefix: str = "") -> dict[str, Any]:
    """Return the definitions; `prefix` is put before each name of a virtual host and a user."""
    return {
        "vhosts": [{"name": prefix + name} for name in (TASKS, USAGE)],
        "users": [
            {
                "name": prefix + user,
                "password_hash": _hashed(passwords[user]),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for user in PERMISSIONS
        ],
        "permissions": [
            {"user": prefix + user, "vhost": prefix + host, **dataclasses.asdict(may)}
            for user, hosts in PERMISSIONS.items()
            for host, may in hosts.items()
        ],
    }


def _hashed(password: str) -> str:
    """Return what RabbitMQ keeps of a password: a salt, and SHA-256 of salt and password (rabbitmq.com/passwords)."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def main() -> None:
    """Write the definitions of the passwords in a directory."""
    directory = Path(sys.argv[1])
    passwords = {user: (directory / f"rabbitmq_{user}").read_text("utf-8").strip() for user in PERMISSIONS}
    json.dump(definitions(passwords), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
