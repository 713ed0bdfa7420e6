"""What a Python process imported, and from where: each says so when it ends.

The tests copy this file as ``sitecustomize.py`` beside the package in a copy of the project, where every job's Python
finds it. The jobs themselves are those of the project, word for word.
"""

import atexit
import json
import os
import sys
import uuid
from pathlib import Path


@atexit.register
def note() -> None:
    """Write one file: the environment, the command and the place of each module."""
    places = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    content = {
        "prefix": sys.prefix,
        "argv": sys.argv,
        # Without a place are built-in modules; PyTorch's operators invent a relative one.
        "modules": {name: place for name, place in places.items() if place and os.path.isabs(place)},  # noqa: PTH117
    }
    folder = Path(__file__).parents[1] / "noted"
    folder.mkdir(exist_ok=True)
    (folder / f"{uuid.uuid4()}.json").write_text(json.dumps(content))
