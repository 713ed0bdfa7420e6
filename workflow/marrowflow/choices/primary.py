"""Say which index test is reported first, and why that one.

    python -m marrowflow choices.primary --options '{"index_tests": […], "primary": {…}, "units": […]}'
        --accuracy results/<study>/accuracy/sound --out primary.json

It is the one that the study declares, or else the first; or, where the study says ``choose:``, the best of all by a metric of
the out-of-fold predictions of development patients, under the sound protocol and in the primary unit of analysis. Of
each index test one file is read, ``<model>/<colour>/development/metrics.csv`` below ``--accuracy``: there is no
argument by which an external hospital's results could come in.

``primary.json`` holds ``index_test``, ``how`` (declared, first or chosen), ``metric``, ``endpoint``, ``unit`` and
``values`` (``index_test`` and ``estimate`` of all, in the order of the study; null where undefined) of a choice, else
null and empty, and ``protocol``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from marrowflow.cli import step_parser
from marrowflow.config import CLASSES, Choice, Section, Unit, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_json

log = logging.getLogger(__name__)

DEVELOPMENT = "development"
PROTOCOL = "sound"
MACRO = "macro"
"""As in metrics.csv: an average over the classes."""
SMALLEST_IS_BEST = ("brier",)


class Declared(Section):
    """The part of the report's section that decides; see `config.Report`."""

    primary: str | None = None
    choose: Choice | None = None


class Options(Section):
    """What the choice depends on, besides the metrics."""

    index_tests: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+-[A-Za-z0-9_]+$")]] = Field(min_length=1)
    primary: Declared = Declared()
    units: list[Unit] = Field(min_length=1)


def choose_primary(options: Options, accuracy: Path) -> dict[str, Any]:
    """Return the content of ``primary.json``.

    Parameters
    ----------
    options
        Index tests in the order of the study, what it declares, its units of analysis.
    accuracy
        Folder of the sound protocol's tables of ``statistics.accuracy``; looked into only where the study chooses.

    Raises
    ------
    UserError
        The declared index test is none of the study's; metrics that are missing, or not those of development patients; a
        metric that is undefined for every index test.
    """
    choice, declared = options.primary.choose, options.primary.primary
    if declared is not None and declared not in options.index_tests:
        raise UserError(f"the primary index test {declared!r} is none of {', '.join(options.index_tests)}")
    if choice is not None:
        return _best(choice, options.units[0], options.index_tests, accuracy)
    return {
        "index_test": declared or options.index_tests[0],
        "how": "declared" if declared else "first",
        "metric": None,
        "endpoint": None,
        "unit": None,
        "values": [],
        "protocol": PROTOCOL,
    }


def read_primary(path: Path) -> str:
    """Return the index test that a ``primary.json`` names; raise `UserError` where it is none."""
    return read_decision(path)["index_test"]


def read_decision(path: Path) -> dict[str, Any]:
    """Return the content of a ``primary.json``; raise `UserError` where it names no index test."""
    try:
        decision = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}; write it anew with choices.primary") from error
    if not isinstance(decision, dict) or not isinstance(decision.get("index_test"), str):
        raise UserError(f"{path} names no index test: expected an object with 'index_test'")
    return decision


def _best(choice: Choice, unit: Unit, index_tests: Sequence[str], accuracy: Path) -> dict[str, Any]:
    paths = _metrics_paths(index_tests, accuracy)
    endpoint = choice.endpoint or CLASSES
    values = [_estimate(path, choice.metric, endpoint, unit) for path in paths]
    if np.isnan(values).all():
        held = sorted({e for path in paths for e in _read_metrics(path)["endpoint"]})
        raise UserError(
            f"no index test has a value of {choice.metric} (endpoint {endpoint}, unit {unit}) on development patients, so "
            f"none can be chosen by it; the endpoints measured are {', '.join(held)}: set report.choose.metric and "
            "report.choose.endpoint to what is defined, or report.primary"
        )
    # Of equals argmax takes the first.
    best = int(np.nanargmax(np.negative(values) if choice.metric in SMALLEST_IS_BEST else values))
    return {
        "index_test": index_tests[best],
        "how": "chosen",
        "metric": choice.metric,
        "endpoint": endpoint,
        "unit": unit,
        "values": [
            {"index_test": name, "estimate": None if np.isnan(value) else value}
            for name, value in zip(index_tests, values, strict=True)
        ],
        "protocol": PROTOCOL,
    }


def _metrics_paths(index_tests: Sequence[str], accuracy: Path) -> list[Path]:
    """Return each index test's file of metrics; refuse one that is, behind its name, that of other patients."""
    if accuracy.name != PROTOCOL:
        raise UserError(
            f"--accuracy {accuracy}: the choice is made under the protocol {PROTOCOL}, in a folder of that name"
        )
    paths, problems = [], []
    for name in index_tests:
        own = Path(*name.split("-"), DEVELOPMENT, "metrics.csv")
        path = accuracy / own
        paths.append(path)
        if not path.is_file():
            problems.append(f"{name}: no file {path}; run statistics.accuracy on its development predictions")
        elif path.resolve().parts[-4:] != own.parts:
            problems.append(
                f"{name}: {path} leads to {path.resolve()}, which is not its own file on development patients"
            )
    if problems:
        raise UserError(enumerate_problems("the primary index test cannot be chosen:", problems))
    return paths


def _estimate(path: Path, metric: str, endpoint: str, unit: str) -> float:
    """Return a metric's estimate, the macro average where there is one; NaN where there is none."""
    table = _read_metrics(path)
    asked = table["metric"].eq(metric) & table["endpoint"].eq(endpoint) & table["unit"].eq(unit)
    rows = table[asked & table["primary"]].set_index("class")["estimate"]
    for name in (MACRO, ""):
        if name in rows:
            return float(rows[name])
    return float("nan")


def _read_metrics(path: Path) -> pd.DataFrame:
    text = dict.fromkeys(("endpoint", "metric", "class", "unit"), "str")
    # A class may be called NA.
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"estimate": [""]})


def main(argv: Sequence[str]) -> None:
    """Write which index test is reported first."""
    parser = step_parser("choices.primary", "Say which index test is reported first: declared or chosen.")
    parser.add_argument(
        "--accuracy",
        type=Path,
        required=True,
        metavar="DIR",
        help="the sound protocol's folder of accuracy tables; read where the options say choose",
    )
    parser.add_argument("--out", type=Path, required=True, help="primary.json to write")
    args = parser.parse_args(argv)
    found = choose_primary(read_options(Options, args.options), args.accuracy)
    write_json(args.out, found)
    log.info("%s is reported first: %s", found["index_test"], found["how"])
