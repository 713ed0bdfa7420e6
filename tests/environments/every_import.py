"""Run every import statement of a rule's code, those inside functions too: ``every_import.py RULE MODULE``."""

import ast
import sys

from marrowflow.provenance import PACKAGE, sources_of

# `sources_of` leaves the configuration's models to the digest of the options; all steps import them.
for path in [*sources_of(sys.argv[2]), PACKAGE / "config.py", PACKAGE / "__main__.py"]:
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), {})

# pandas imports this when it reads the first table.
import pyarrow.parquet  # noqa: E402, F401
