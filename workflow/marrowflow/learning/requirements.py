"""What a second hospital installs to apply a package, under the names of the Python package index."""

from __future__ import annotations

from collections.abc import Mapping

PINS = {
    "numpy": "2.4.6",
    "opencv-python-headless": "4.13.0.92",
    "pandas": "3.0.3",
    "pillow": "12.2.0",
    "pyarrow": "25.0.0",
    "pydantic": "2.13.5",
    "pyyaml": "6.0.3",
    "safetensors": "0.8.0",
    "scipy": "1.17.1",
    "simplejpeg": "1.9.0",
    "threadpoolctl": "3.8.0",
    "timm": "1.0.26",
    "torch": "2.12.1",
    "torchvision": "0.27.1",
    "tqdm": "4.67.3",
}
"""What the packed code imports, and pyarrow for its tables; the pins of requirements.txt (a test compares them)."""


def requirement_list(trained: Mapping[str, str]) -> str:
    """Return the text of ``requirements.txt``; versions that the networks were trained with stand before the pins."""
    versions = {name: trained.get(name, pin).partition("+")[0] for name, pin in PINS.items()}
    return "".join(f"{name}=={version}\n" for name, version in versions.items())


def required(text: str) -> dict[str, str]:
    """Return the versions of a `requirement_list` by name."""
    return dict(line.split("==") for line in text.splitlines())
