"""Say, for a shell, where the servers of `billing up --services` are: `eval "$(python servers.py SHOP)"`.

An app that is older than billing has its own names for its servers; here they begin with the prefix that is given.
"""

from __future__ import annotations

import shlex
import sys

from billing.connections import connection_file

for name, value in connection_file.read().items():
    print(f"export {name.replace('BILLING', sys.argv[1], 1)}={shlex.quote(value)}")
