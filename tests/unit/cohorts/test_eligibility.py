"""The order of reasons, and limits that are off by default."""

import numpy as np
import pandas as pd
import pytest

from marrowflow.cohorts.eligibility import judge
from marrowflow.config import Intake

GOOD = {"eligible": "yes", "unreadable": "", "width": 100, "height": 100, "focus": 50.0, "brightness": 128.0}
LIMITS = Intake(min_side=50, min_focus=10, min_brightness=30, max_brightness=220)
UNREAD = {"width": 0, "height": 0, "focus": np.nan, "brightness": np.nan}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"width": 50, "focus": 10.0, "brightness": 30.0}, ""),
        ({"brightness": 220.0}, ""),
        ({"brightness": 221.0}, "too bright: mean grey over 220.0"),
        ({"brightness": 29.0}, "too dark: mean grey under 30.0"),
        ({"brightness": 29.0, "focus": 9.9}, "out of focus: measure under 10.0"),
        ({"focus": 9.9, "height": 49}, "too small: a side under 50 px"),
        ({**UNREAD, "unreadable": "truncated"}, "unreadable: truncated"),
        ({**UNREAD, "unreadable": "truncated", "eligible": "clotted"}, "not eligible: clotted"),
    ],
)
def test_first_reason_that_holds(change, reason):
    judged = judge(pd.DataFrame([GOOD, {**GOOD, **change}]), LIMITS)
    assert judged["reason"].tolist() == ["", reason]
    assert judged["status"].tolist() == ["included", "excluded" if reason else "included"]


def test_limits_are_off_unless_set():
    dark = {**GOOD, "focus": 0.0, "brightness": 0.0, "width": 32, "height": 32}
    assert judge(pd.DataFrame([dark]), Intake())["status"].tolist() == ["included"]
