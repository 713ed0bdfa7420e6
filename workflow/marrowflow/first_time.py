"""Times that are noted once and kept: when something was first done, however often it is done again.

Results hold no times, because the same seed gives the same bytes. The few files that must hold one take it from a note
in the study's folder ``state``: the first run writes the note, later ones read it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from marrowflow.errors import UserError
from marrowflow.files import write_json

_FORM = "%Y-%m-%dT%H:%M:%SZ"


def first_time(note: Path) -> str:
    """Return the time in a note, and write the present one where there is no note yet.

    Parameters
    ----------
    note
        The file; one a thing whose first time is wanted.

    Returns
    -------
    str
        UTC by the clock of this machine, ISO 8601 to the second, such as 2026-03-01T09:30:00Z.

    Raises
    ------
    UserError
        The note holds no time, because it was damaged or changed; it is a folder, or cannot be read or written.
    """
    note = Path(note)
    if note.is_dir():
        raise UserError(f"{note} is a folder, where the file with the time should be: move it away")
    if not note.is_file():
        write_json(note, {"first": datetime.now(UTC).strftime(_FORM)})
    try:
        text = json.loads(note.read_text(encoding="utf-8"))["first"]
        parse_time(text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{note} holds no time ({error}): put the file back as it was, or delete it, and the present time is noted"
        ) from error
    return str(text)


def parse_time(text: str) -> datetime:
    """Return the moment that a text of `first_time` stands for; raise `ValueError` for any other text."""
    return datetime.strptime(text, _FORM).replace(tzinfo=UTC)
