"""Take a hospital's images in: read, fingerprint and measure each once, and say which are included.

    python -m marrowflow cohorts.intake --options '{"intake": {…}, "classes": […]}' \\
        --cohort NAME --manifest PATH [--label-map PATH] [--measured PATH …] --out inventory.parquet --threads N

Images in archives were measured before, one archive at a time (``cohorts.measure``); ``--measured`` takes these tables, and
the inventory is the same byte for byte as that of the same images in a folder.

The inventory has one row a manifest row, in its order (see `COLUMNS`). Of an image's own metadata
nothing travels on but the columns named there: no EXIF, no comment, no device serial number.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.cohorts.duplicates import cluster_inventory
from marrowflow.cohorts.eligibility import EXCLUDED, INCLUDED, judge
from marrowflow.cohorts.image_paths import archive_problems
from marrowflow.cohorts.manifest import add_manifest, read_label_map, read_manifest
from marrowflow.cohorts.measured import read_measured
from marrowflow.cohorts.taken import take_in
from marrowflow.config import ClassName, Intake, Section, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table

log = logging.getLogger(__name__)

Take = Callable[[pd.DataFrame, Path, int, str], pd.DataFrame]
"""A manifest's rows, its folder, threads, and what progress is called → the fields of `marrowflow.cohorts.taken.Taken`, one
row each; other columns among them take the place of the manifest's."""

COLUMNS = {
    "case_id": "str",
    "cohort": "str",
    "image": "str",
    "patient_id": "str",
    "patient_source": "str",
    "label": "str",
    "type": "str",
    "reference_status": "str",
    "sha256": "str",
    "phash": "str",
    "thumb": "object",
    "width": "int64",
    "height": "int64",
    "channels": "int64",
    "bit_depth": "int64",
    "format": "str",
    "orientation": "int64",
    "frames": "int64",
    "bytes": "int64",
    "focus": "float64",
    "brightness": "float64",
    "saturated": "float64",
    "status": "str",
    "reason": "str",
}
"""The inventory's columns and types; the manifest's others follow. Unreadable images have "", 0 and NaN."""


class Options(Section):
    """The sections of the configuration that intake uses."""

    intake: Intake = Intake()
    classes: list[ClassName]


def main(argv: Sequence[str]) -> None:
    """Run the step."""
    parser = step_parser("cohorts.intake", "Check a manifest, read its images and write the inventory.")
    add_manifest(parser)
    parser.add_argument(
        "--measured",
        type=existing_file,
        nargs="*",
        help="what was measured in each archive, if images are in archives",
    )
    parser.add_argument("--out", required=True, type=Path, help="the inventory to write (.parquet)")
    parser.add_argument("--threads", type=int, default=1, help="images read at a time")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    inventory = make_inventory(
        args.cohort, args.manifest, options, args.label_map, args.threads, measured=args.measured or ()
    )
    summarise(inventory, args.cohort)
    write_table(args.out, inventory)


def make_inventory(
    cohort: str,
    manifest: Path,
    options: Options,
    label_map: Path | None = None,
    threads: int = 1,
    labelled: bool = True,
    measured: Sequence[Path] = (),
    take: Take | None = None,
) -> pd.DataFrame:
    """Check the manifest, take its images in and return the inventory.

    The result does not depend on ``threads``. Without ``labelled`` the manifest may have no column ``label``. With
    ``measured``, the tables of `marrowflow.cohorts.measured` for all archives of the cohort, no image is read. ``take``
    reads files that are no plain images.

    Raises
    ------
    UserError
        The manifest or label map is at fault; no image is left; or an eligible image is unreadable
        and ``on_unreadable`` is stop.
    """
    mapped = read_label_map(label_map, options.classes) if label_map else {}
    archives = read_measured(measured) if measured else None
    look_up = partial(archive_problems, archives.holders) if archives else None
    table = read_manifest(
        manifest, options.classes, mapped, options.intake.allow_identifiers, labelled, look_up
    )
    if archives:
        taken = archives.rows_of(table["image"])
    else:
        taken = (take or _take_images)(table, manifest.parent, threads, f"intake {cohort}")
    table = pd.concat([table.drop(columns=[name for name in taken if name in table]), taken], axis=1)
    _stop_on_unreadable(table, options.intake, manifest)
    table = pd.concat([table, judge(table, options.intake)], axis=1)
    table["cohort"] = cohort
    table["case_id"] = cohort + "/" + table["image"]
    table = _with_patients(table, cohort, options.intake.near_duplicate_distance)
    _refuse_empty(table, manifest)
    others = [name for name in table.columns if name not in COLUMNS and name != "unreadable"]
    return table[[*COLUMNS, *others]].astype(COLUMNS)


def _take_images(table: pd.DataFrame, folder: Path, threads: int, what: str) -> pd.DataFrame:
    return take_in([folder / image for image in table["image"]], threads, what)


def _stop_on_unreadable(table: pd.DataFrame, intake: Intake, manifest: Path) -> None:
    lost = table[(table["unreadable"] != "") & (table["eligible"] == "yes")]
    if intake.on_unreadable == "exclude" or lost.empty:
        return
    problems = [f"{row.image}: {row.unreadable}" for row in lost.itertuples()]
    heading = (
        f"{manifest}: {len(lost)} of {len(table)} images cannot be read. Replace the files, give the reason in "
        "column 'eligible', or exclude and count them by intake: on_unreadable: exclude"
    )
    raise UserError(enumerate_problems(heading, problems))


def _with_patients(table: pd.DataFrame, cohort: str, distance: int) -> pd.DataFrame:
    """Give each row a patient of its cohort; without a column for it, duplicate clusters stand in."""
    if "patient_id" in table:
        return table.assign(patient_id=cohort + "/" + table["patient_id"], patient_source="manifest")
    # A file that could not be opened has no checksum; its case then stands for itself.
    own = [
        checksum or hashlib.sha256(case.encode()).hexdigest()
        for checksum, case in zip(table["sha256"], table["case_id"], strict=True)
    ]
    first = pd.Series(own, index=table.index).groupby(cluster_inventory(table, distance)).transform("first")
    return table.assign(
        patient_id=cohort + "/surrogate_" + first.str.slice(0, 12), patient_source="surrogate"
    )


def _refuse_empty(table: pd.DataFrame, manifest: Path) -> None:
    if (table["status"] == INCLUDED).any():
        return
    counts = table["reason"].value_counts()
    problems = [f"{count} images: {reason}" for reason, count in counts.items()]
    raise UserError(
        enumerate_problems(
            f"{manifest}: no image is left. Mend the files or the limits under intake:", problems
        )
    )


def summarise(inventory: pd.DataFrame, cohort: str) -> None:
    """Log what was taken in, what was not and why, and whose images they are."""
    included = inventory[inventory["status"] == INCLUDED]
    log.info(
        "%s: %d images, %d included, %d excluded, %d patients among the included",
        cohort, len(inventory), len(included), len(inventory) - len(included), included["patient_id"].nunique(),
    )  # fmt: skip
    for reason, count in inventory.loc[inventory["status"] == EXCLUDED, "reason"].value_counts().items():
        log.info("%s: %d excluded, %s", cohort, count, reason)
    for state, count in included["reference_status"].value_counts().items():
        if state != "ok":
            log.info("%s: %d included without a usable reference standard (%s)", cohort, count, state)
    copies = int(included["sha256"].duplicated().sum())
    if copies:
        log.warning("%s: %d included images are exact copies of another one", cohort, copies)
    if (inventory["patient_source"] == "surrogate").any():
        log.warning(
            "%s: the manifest has no column patient_id; clusters of near-duplicate images serve as surrogate "
            "patients, so images of one patient may still fall on both sides of a split", cohort,
        )  # fmt: skip
