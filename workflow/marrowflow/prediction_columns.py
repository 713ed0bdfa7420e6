"""The words of the prediction table: its columns, what stands in them, and which writings are one name."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

PROBABILITY = "p_"
ENDPOINT = "endpoint_"
"""Prefix of the column of an endpoint that the index test answers by itself."""
STATUSES = ("ok", "indeterminate", "not_done")
MISSING, INCONCLUSIVE = "missing", "inconclusive"
NO_REFERENCE = (MISSING, INCONCLUSIVE)
PATIENT_SOURCE = "patient_source"
PARENT = "parent"
"""Of an augmented sample that is a case of its own: the image that it was made of."""
MANIFEST, SURROGATE = "manifest", "surrogate"
COLUMNS = (
    "case_id",
    "patient_id",
    "cohort",
    "truth",
    "predicted",
    "index_test",
    "fold",
    "partition",
    "status",
    "reason",
)
ENSEMBLE = -1
"""Value of ``fold`` for predictions by the mean of all folds' networks."""

# Probabilities are stored as float64 but made in float32; their sum may be this far from 1.
SUM_TOLERANCE = 1e-3

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def same_writing(name: str) -> str:
    """Return what a name has in common with others that a reader would take for the same: 'AML ' and 'aml', 1 and 1.0."""
    plain = " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
    return str(float(plain)) if _NUMBER.fullmatch(plain) else plain


def same_number(name: str, other: str) -> bool:
    """Say whether two names are one number, such as 1 and 1.0."""
    plain = name.strip()
    return bool(_NUMBER.fullmatch(plain)) and same_writing(plain) == same_writing(other)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that was probably meant, or nothing."""
    by_writing = {same_writing(k): k for k in known}
    near = difflib.get_close_matches(same_writing(name), by_writing, n=1)
    return f"; did you mean {by_writing[near[0]]!r}?" if near else ""
