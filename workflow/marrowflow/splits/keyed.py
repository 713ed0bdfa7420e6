"""Order by keyed hash: a shuffle in which nobody's place depends on who else is there.

A seeded shuffle of a list deals everyone anew when one name is added. A hash of (key, name) gives each
name a number of its own; adding names changes nobody's number.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def keyed_hash(*parts: str | int) -> int:
    """Return 64 bits of BLAKE2b over the parts, joined by ``|``; the same on every machine."""
    text = "|".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def keyed_order(names: Iterable[str], *key: str | int) -> list[str]:
    """Return the names in the order of their hash under ``key``."""
    return sorted(names, key=lambda name: (keyed_hash(*key, name), name))
