"""How much the published split flatters: its accuracy beside that of the sound split.

Optimism is ``leaky - sound``, of the same metric, class, unit and index test. For most metrics more is
better and a positive difference flatters; of the Brier score and the negative likelihood ratio less is
better, and a negative one does. The two estimates share images but not networks, so their difference
bears no interval of its own: both intervals are given instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.errors import UserError
from marrowflow.files import write_table

KEYS = ("endpoint", "metric", "class", "unit")
VALUES = ("estimate", "low", "high", "n_cases", "n_patients")


def optimism_table(metrics_published: pd.DataFrame, metrics_sound: pd.DataFrame) -> pd.DataFrame:
    """Lay the primary estimates of two tables of metrics beside each other.

    Parameters
    ----------
    metrics_published, metrics_sound
        ``metrics.csv`` of `marrowflow.statistics.accuracy` under each protocol; rows that are not
        ``primary`` (the same estimate with another interval) are left out.

    Returns
    -------
    DataFrame
        endpoint, metric, class, unit, leaky, leaky_low, leaky_high, leaky_n_cases, leaky_n_patients, the
        same five of sound, optimism; in the order of the published table, then what only the sound one
        has. What one of them lacks is NaN.

    Raises
    ------
    UserError
        A table without primary rows, or with two for one metric.
    """
    sides = [
        _primary(metrics_published, "leaky", "published"),
        _primary(metrics_sound, "sound", "sound"),
    ]
    order = pd.concat([side[list(KEYS)] for side in sides]).drop_duplicates()
    table = order.merge(sides[0], on=list(KEYS), how="left").merge(sides[1], on=list(KEYS), how="left")
    return table.assign(optimism=table["leaky"] - table["sound"])


def read_metrics(path: Path) -> pd.DataFrame:
    """Read a ``metrics.csv``; only empty fields are missing, as a class may be called NA."""
    text = dict.fromkeys((*KEYS, "method"), "str")
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    return table.fillna(dict.fromkeys(text, ""))


def main(argv: Sequence[str]) -> None:
    """Write the table of optimism."""
    parser = step_parser("splits.optimism", "Set the published split's accuracy beside the sound split's.")
    parser.add_argument(
        "--published", type=existing_file, required=True, help="metrics.csv under as_published"
    )
    parser.add_argument("--sound", type=existing_file, required=True, help="metrics.csv under sound")
    parser.add_argument("--out", type=Path, required=True, help="optimism.csv")
    args = parser.parse_args(argv)
    write_table(args.out, optimism_table(read_metrics(args.published), read_metrics(args.sound)))


def _primary(metrics: pd.DataFrame, name: str, which: str) -> pd.DataFrame:
    rows = metrics[metrics["primary"].astype(bool)]
    if rows.empty:
        raise UserError(f"the {which} table of metrics has no row marked primary")
    twice = rows[rows.duplicated(list(KEYS))]
    if len(twice):
        row = ", ".join(str(twice[key].iloc[0]) for key in KEYS)
        raise UserError(f"the {which} table of metrics has two primary rows of {row}")
    names = {value: f"{name}_{value}" for value in VALUES} | {"estimate": name}
    return rows[[*KEYS, *VALUES]].rename(columns=names)
