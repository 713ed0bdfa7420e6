"""Data and numbers from outside the code that several tests compare with."""

import io

import pandas as pd

_CLUSTERED_SMALL = """\
patient,y,s1,s2
P01,1,0.91,0.80
P01,1,0.85,0.55
P01,0,0.40,0.35
P02,0,0.10,0.20
P02,0,0.35,0.15
P02,0,0.62,0.45
P03,1,0.70,0.62
P03,0,0.70,0.30
P04,1,0.30,0.48
P04,1,0.55,0.66
P04,1,0.48,0.20
P05,0,0.05,0.12
P05,0,0.22,0.31
P06,1,0.95,0.90
P06,0,0.51,0.52
P06,0,0.33,0.48
P07,0,0.48,0.60
P07,0,0.12,0.05
P07,0,0.08,0.22
P08,1,0.77,0.71
P08,1,0.62,0.58
P08,0,0.20,0.10
P09,0,0.15,0.33
P09,1,0.66,0.74
P10,0,0.55,0.18
P10,0,0.44,0.40
"""


def clustered_small() -> pd.DataFrame:
    """Return 26 rows of 10 patients with tied scores: patient, y, s1, s2.

    What R 4.2 makes of them (pROC 1.18, epiR 2.0.57, survey, geepack) and an independent implementation of
    Obuchowski 1997 stands in the tests.
    """
    return pd.read_csv(io.StringIO(_CLUSTERED_SMALL))
