"""Which images enter the study, and why the others do not: one reason an image, the first that holds.

The order is that of a STARD flow diagram, from the patient to the picture:

1. ``not eligible: <text of the manifest>``
2. ``unreadable: <reason>``
3. ``too small: a side under <min_side> px``
4. ``out of focus: measure under <min_focus>``
5. ``too dark: mean grey under <min_brightness>``
6. ``too bright: mean grey over <max_brightness>``

Reasons state the limit, not the value, so that the diagram can count them; the values stand in their columns.
A case without a usable reference standard is included: it is tested, and its truth reported as missing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from marrowflow.config import Intake

INCLUDED, EXCLUDED = "included", "excluded"


def judge(inventory: pd.DataFrame, intake: Intake) -> pd.DataFrame:
    """Return ``status`` (included or excluded) and ``reason`` (empty when included) of each image.

    Parameters
    ----------
    inventory
        With the columns ``eligible``, ``unreadable`` (reason, empty when the image was read), ``width``,
        ``height``, ``focus`` and ``brightness``.
    intake
        The limits; a limit of None excludes nothing.
    """
    eligible, unreadable = inventory["eligible"], inventory["unreadable"]
    focus, brightness = inventory["focus"], inventory["brightness"]
    small = inventory[["width", "height"]].min(axis=1) < intake.min_side
    rules: list[tuple[pd.Series, pd.Series | str]] = [
        (eligible != "yes", "not eligible: " + eligible),
        (unreadable != "", "unreadable: " + unreadable),
        (small, f"too small: a side under {intake.min_side} px"),
        (_below(focus, intake.min_focus), f"out of focus: measure under {intake.min_focus}"),
        (_below(brightness, intake.min_brightness), f"too dark: mean grey under {intake.min_brightness}"),
        (_above(brightness, intake.max_brightness), f"too bright: mean grey over {intake.max_brightness}"),
    ]
    reason = pd.Series("", index=inventory.index, dtype="str")
    # Later rules are written first, so that the first that holds has the last word.
    for holds, text in reversed(rules):
        reason = reason.mask(holds, text)
    status = np.where(reason == "", INCLUDED, EXCLUDED)
    return pd.DataFrame({"status": pd.Series(status, index=inventory.index, dtype="str"), "reason": reason})


def _below(values: pd.Series, limit: float | None) -> pd.Series:
    return values < (-np.inf if limit is None else limit)


def _above(values: pd.Series, limit: float | None) -> pd.Series:
    return values > (np.inf if limit is None else limit)
