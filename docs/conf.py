"""How the documentation is built: Sphinx reads the repository's own Markdown, and every warning is an error.

Nothing is fetched, when it is built or when it is read. Pages below `docs/reference` get their tables from the code
while they are built (`docs/made`). A link to a file or a folder of the repository is checked as one to a page is.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "celery-billing"
project_copyright = "the authors of celery-billing"
extensions = ["myst_parser", "docs.made.extension"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "billing/**/README.md", "billing/decisions/*.md", "deploy/**.md"]
include_patterns += ["benchmarks/README.md", "examples/README.md", "examples/*/README.md", "worker_tasks/README.md"]
exclude_patterns = [".*", "build", "dist", "tests", "**/__pycache__"]

nitpicky = True
myst_heading_anchors = 3
# An <img> with a width is an image like the others: looked for, and copied.
myst_enable_extensions = ["html_image"]

html_theme = "furo"
html_title = "celery-billing"
html_extra_path = ["root"]
html_copy_source = False
html_show_sphinx = False
html_permalinks = False
