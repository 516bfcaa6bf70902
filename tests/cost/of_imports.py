"""What an import of billing brings into a process: modules of its own, and packages that Celery has not brought."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.cost.wires import Counts

#: What a process that submits and runs billed tasks must not pay for: each of them takes longer than all of billing.
HEAVY: Final = ("alembic", "flower", "httpx", "jinja2", "prometheus_client", "psycopg", "rich", "sqlalchemy", "stripe")
ROOT: Final = Path(__file__).parents[2]
_TOLD: Final = """
import json, sys
had = set(sys.modules)
{imports}
own = [name for name in sys.modules if name.split(".")[0] == "billing"]
brought = {{name.split(".")[0] for name in set(sys.modules) - had}}
print(json.dumps([len(own), sorted(brought & {heavy})]))
"""
_IMPORTS: Final = {
    "import.billing": "import billing",
    "import.declared": "import celery, billing; billing.BillableTask; billing.setup(celery.Celery('shop'))",
    "import.consumer": "import celery, billing.fulfillment.consumer",
    "import.command_line": "import billing.cli.main",
}


def measure(_: Any = None) -> dict[str, Counts]:
    """Import in processes of their own."""
    found = {}
    for name, imports in _IMPORTS.items():
        program = _TOLD.format(imports=imports, heavy=set(HEAVY))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
        modules, heavy = json.loads(done.stdout)
        found[name] = {"modules": modules, "heavy": len(heavy)}
    return found
