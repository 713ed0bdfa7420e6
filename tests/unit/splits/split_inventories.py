"""Inventories for the tests of splits: as many rows as needed, no pictures."""

from collections.abc import Iterable
from hashlib import sha256

import numpy as np
import pandas as pd


def inventory(cohort: str, rows: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Return an inventory of included images from (patient, label) pairs, all different from each other."""
    rows = list(rows)
    table = pd.DataFrame(rows, columns=["patient_id", "label"])
    table["case_id"] = [f"{cohort}/{i:04}.png" for i in range(len(rows))]
    table["patient_id"] = cohort + "/" + table["patient_id"]
    table["cohort"], table["type"] = cohort, table["label"]
    table["status"], table["reference_status"], table["reason"] = "included", "ok", ""
    digests = [sha256(f"{case}".encode()).hexdigest() for case in table["case_id"]]
    table["sha256"] = digests
    table["phash"] = [digest[:16] for digest in digests]
    table["thumb"] = [
        np.random.default_rng(int(digest[:8], 16)).integers(0, 256, 256, np.uint8).tobytes()
        for digest in digests
    ]
    table["manifest_row"] = np.arange(1, len(table) + 1)
    return table


def copy_image(table: pd.DataFrame, source: int, target: int, exact: bool = False) -> None:
    """Make row ``target`` a near duplicate (or an exact copy) of row ``source``, in place."""
    table.at[target, "thumb"] = table.at[source, "thumb"]
    table.at[target, "phash"] = f"{int(table.at[source, 'phash'], 16) ^ 1:016x}"
    if exact:
        table.loc[target, ["sha256", "phash"]] = table.loc[source, ["sha256", "phash"]].tolist()


def patients(label: str, number: int, images: int = 1, prefix: str = "") -> list[tuple[str, str]]:
    """Return (patient, label) pairs of patients of one class."""
    return [(f"{prefix or label}{p}", label) for p in range(number) for _ in range(images)]


def stack(*tables: pd.DataFrame) -> pd.DataFrame:
    """Lay inventories under one another."""
    return pd.concat(tables, ignore_index=True)
