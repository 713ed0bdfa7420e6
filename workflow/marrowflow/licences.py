"""What the licence of start weights lets a user do."""

from __future__ import annotations

import re

# A name stands between what is no letter: "nc" is in cc-by-nc-4.0 and cc_by_nc_4.0, and not in "sync" or "ncsa".
_NON_COMMERCIAL = re.compile(
    r"(?<![a-z])nc(?![a-z])"
    r"|(?<![a-z])non[-\u2011_\s]*commercial"
    r"|(?<![a-z])research[-\u2011_\s]+(?:use[-\u2011_\s]+)?only",
    re.IGNORECASE,
)


def non_commercial(licence: str) -> bool:
    """Return True where a licence, by its name or in its own words, keeps commerce out.

    Parameters
    ----------
    licence
        A name (``cc-by-nc-4.0``, ``CC BY-NC-SA 4.0``, ``cc_by_nc_4.0``) or words ("non-commercial", "noncommercial",
        "for research only", "research use only"), in capitals or not. Nothing else of the text is understood: of an
        unknown licence, or of none, the answer is False.
    """
    return bool(_NON_COMMERCIAL.search(licence))
