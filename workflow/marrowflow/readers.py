"""Take in the answers of a reader or of another product: any table of answers becomes a prediction table.

    python -m marrowflow readers --options O --reader haematologist_1 --tables H1.csv --inventories I.parquet --out P.parquet

A row names what was read by ``case_id`` (``<cohort>/<image>``), or by ``cohort`` and ``image`` as in the manifest, or,
where one answer is given a patient (``unit: patient``), by ``cohort`` and ``patient_id`` as in the manifest. It answers by
``predicted`` (a class), by ``p_<class>``, or both; ``status`` and ``reason`` say where there is no answer.

The reference standard is the study's own: a reader's sheet need not hold it, and one that does must agree. What the
study left out (unreadable, not eligible) counts for no index test, so not here either.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import ClassName, Section, Unit, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table
from marrowflow.prediction_files import read_rows
from marrowflow.predictions import (
    COLUMNS,
    ENSEMBLE,
    INCONCLUSIVE,
    MISSING,
    NO_REFERENCE,
    PATIENT_SOURCE,
    PROBABILITY,
    check_predictions,
    nearest,
)

log = logging.getLogger(__name__)

PARTITION = "reader"
"""Value of ``partition``: a reader is tested on all patients alike, whoever was trained on them."""

_TEXT = ("case_id", "cohort", "image", "patient_id", "truth", "predicted", "status", "reason", "index_test")


class Options(Section):
    """What the answers are held against."""

    classes: list[ClassName]
    unit: Unit = "case"


def take_in(
    answers: pd.DataFrame, inventory: pd.DataFrame, reader: str, options: Options, source: str
) -> pd.DataFrame:
    """Return a reader's prediction table for some cohorts.

    Parameters
    ----------
    answers
        The reader's rows, of these and other cohorts.
    inventory
        Inventories of the cohorts, one below the other.
    reader
        Becomes ``index_test``.
    options
        Classes of the study, and whether a row answers for an image or for a patient.
    source
        Named in errors.

    Returns
    -------
    DataFrame
        A checked prediction table in the order of the inventory; without rows where the reader read nothing of these
        cohorts. With ``unit`` patient one row a patient, whose ``case_id`` is the patient's.

    Raises
    ------
    UserError
        No column that says what was read, or none that answers; an image or patient that the cohort does not have, or
        twice; a reference that contradicts the study's; a patient with two references; an answer that is no class.
    """
    known = _units(inventory, options.unit)
    table, cohorts = _named(answers, options.unit, source), set(inventory["cohort"])
    elsewhere = sorted(set(table["cohort"]) - cohorts)
    if elsewhere:
        log.info("%s: answers for %s are passed over here", source, ", ".join(elsewhere))
    table = table[table["cohort"].isin(cohorts)]
    _refuse_strangers(table, known, options.unit, source)
    left_out = table["case_id"].isin(known.index[~known["included"]])
    if left_out.any():
        log.info("%d answers of %s are for what the study excluded: not counted", left_out.sum(), reader)
    table = table[~left_out]
    own = known.loc[table["case_id"]].reset_index()
    _refuse_other_truths(table, own, options.classes, source)
    kept = [c for c in table if c not in (*COLUMNS, "image", "row", PATIENT_SOURCE)]
    filled = table.drop(columns=[c for c in ("image", "row") if c in table]).assign(
        patient_id=own["patient_id"].to_numpy(),
        truth=own["truth"].to_numpy(),
        index_test=reader,
        fold=ENSEMBLE,
        partition=PARTITION,
        **{PATIENT_SOURCE: own[PATIENT_SOURCE].to_numpy()},
    )
    if filled.empty:
        probabilities = [c for c in kept if c.startswith(PROBABILITY)]
        return pd.DataFrame(columns=[*COLUMNS, *probabilities, PATIENT_SOURCE], dtype=object)
    order = {case: i for i, case in enumerate(known.index)}
    filled = filled.sort_values("case_id", key=lambda cases: cases.map(order), kind="stable")
    return check_predictions(filled, options.classes, source).table


def _units(inventory: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """Return what can be read, by its ``case_id``: its patient, its reference, and whether the study counts it."""
    rows = inventory.assign(
        included=inventory["status"].eq("included"),
        truth=inventory["label"].where(inventory["reference_status"].eq("ok"), inventory["reference_status"]),
    )
    if unit == "case":
        return rows.set_index("case_id")[["cohort", "patient_id", PATIENT_SOURCE, "truth", "included"]]
    if rows[PATIENT_SOURCE].eq("surrogate").any():
        raise UserError(
            "a reader answers for patients (unit: patient), and a manifest has no patient_id: nobody can have read a group "
            "of near duplicates; give its answers by image"
        )
    found = []
    for patient, own in rows.groupby("patient_id", sort=False):
        counted = own[own["included"]]
        truths = list(dict.fromkeys((counted if len(counted) else own)["truth"]))
        usable = [t for t in truths if t not in NO_REFERENCE]
        if len(usable) > 1:
            raise UserError(
                f"patient {patient!r} has images of {' and '.join(usable)}, and a reader answers for patients (unit: patient): "
                "give the reader's answers by image"
            )
        found.append(
            {
                "case_id": patient,
                "cohort": own["cohort"].iloc[0],
                "patient_id": patient,
                PATIENT_SOURCE: own[PATIENT_SOURCE].iloc[0],
                "truth": usable[0] if usable else INCONCLUSIVE if INCONCLUSIVE in truths else MISSING,
                "included": bool(len(counted)),
            }
        )
    return pd.DataFrame(found).set_index("case_id")


def _named(answers: pd.DataFrame, unit: Unit, source: str) -> pd.DataFrame:
    """Return the rows with ``case_id``, ``cohort`` and ``row`` (as counted in the file) filled."""
    name = "patient_id" if unit == "patient" else "image"
    if "case_id" not in answers and not {"cohort", name} <= set(answers):
        raise UserError(
            f"{source} does not say what was read: it needs case_id, or cohort and {name} as in the manifest; it has "
            f"{', '.join(map(str, answers.columns))}"
        )
    if "predicted" not in answers and not any(c.startswith(PROBABILITY) for c in answers):
        raise UserError(f"{source} holds no answers: it needs a column predicted, or p_<class> columns")
    table = answers.assign(row=range(1, len(answers) + 1))
    if "case_id" not in table or unit == "patient":
        if not {"cohort", name} <= set(table):
            raise UserError(
                f"{source}: a reader who answers for patients names them by cohort and patient_id"
            )
        for column in ("cohort", name):
            empty = table[column].isna() | table[column].eq("")
            if empty.any():
                raise UserError(f"{source}, row {table['row'][empty].iloc[0]}: {column} is empty; fill it in")
        cohort, own = (table[column].astype(str).str.strip() for column in ("cohort", name))
        # A table of ours has the cohort before the id already.
        full = [o if o.startswith(f"{c}/") else f"{c}/{o}" for c, o in zip(cohort, own, strict=True)]
        table = table.assign(case_id=full)
    return table.assign(cohort=[case.partition("/")[0] for case in table["case_id"].astype(str)])


def _refuse_strangers(table: pd.DataFrame, known: pd.DataFrame, unit: Unit, source: str) -> None:
    what = "patient" if unit == "patient" else "image"
    strange = table[~table["case_id"].isin(known.index)]
    if len(strange):
        hints = [
            f"row {row}: {case!r}{nearest(case, known.index)}"
            for row, case in zip(strange["row"][:20], strange["case_id"][:20], strict=True)
        ]
        hints += [f"and {len(strange) - 20} more"] if len(strange) > 20 else []
        raise UserError(
            enumerate_problems(f"{source}: {len(strange)} rows answer for no {what} of the manifests:", hints)
        )
    twice = table[table["case_id"].duplicated(keep=False)]
    if len(twice):
        rows = ", ".join(map(str, twice.loc[twice["case_id"].eq(twice["case_id"].iloc[0]), "row"]))
        raise UserError(
            f"{source}, rows {rows}: {what} {twice['case_id'].iloc[0]!r} is answered for more than once; keep one answer"
        )


def _refuse_other_truths(table: pd.DataFrame, own: pd.DataFrame, classes: Sequence[str], source: str) -> None:
    """A sheet may repeat the study's reference standard; another one in its place would be measured against silently."""
    if "truth" not in table:
        return
    given = table["truth"].fillna("").astype(str).str.strip().to_numpy()
    other = [
        f"row {row}: {case!r} is {said!r} here and {truth!r} in the manifest"
        for row, case, said, truth in zip(table["row"], table["case_id"], given, own["truth"], strict=True)
        if said and said != truth and (said in classes or truth in classes)
    ]
    if other:
        raise UserError(
            enumerate_problems(
                f"{source}: {len(other)} references differ from the study's (all index tests are held against one; leave "
                "the column truth out, or mend it):",
                other,
            )
        )


def main(argv: Sequence[str]) -> None:
    """Run the step; see the module."""
    parser = step_parser("readers", "Take in the answers of a reader or of another product.")
    parser.add_argument("--reader", required=True, help="its name in the configuration")
    parser.add_argument(
        "--tables",
        type=existing_file,
        nargs="*",
        default=[],
        help="its answers (.csv, .tsv or .parquet); none where it read nothing of these cohorts",
    )
    parser.add_argument("--inventories", type=existing_file, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the prediction table")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    inventory = pd.concat([pd.read_parquet(path) for path in args.inventories], ignore_index=True)
    tables = [
        take_in(read_rows(path, _TEXT), inventory, args.reader, options, str(path)) for path in args.tables
    ]
    table = _together([t for t in tables if len(t)] or tables[:1], args.reader)
    log.info("%s: %d answers for %s", args.reader, len(table), ", ".join(sorted(set(inventory["cohort"]))))
    write_table(args.out, table)


def _together(tables: Sequence[pd.DataFrame], reader: str) -> pd.DataFrame:
    """Join the tables of several cohorts; none at all makes one without rows."""
    if not tables:
        return pd.DataFrame(columns=[*COLUMNS, PATIENT_SOURCE], dtype=object)
    table = pd.concat(tables, ignore_index=True)
    twice = table.loc[table["case_id"].duplicated(), "case_id"]
    if len(twice):
        raise UserError(f"reader {reader}: {twice.iloc[0]!r} is answered for in two files; keep one answer")
    return table
