"""Apply a model package to a hospital's images: everything that the workflow does for an external hospital, in one step.

    python -m marrowflow learning.apply --package P --manifest M --out DIR

Every file of the package is compared with its checksum first. The manifest is taken in, the colours are corrected, the
networks of all folds answer, and the locked calibration and cut-offs are applied, by the same code and in the same order
as in the workflow: on the same kind of processor the probabilities are equal bit for bit. Nothing is fitted, and nothing
is sent anywhere: no part of it opens a connection.

DIR receives

- ``predictions.parquet`` and ``predictions.csv``: the prediction table, one row an image (see `marrowflow.predictions`);
- ``patients.csv`` and ``images.csv``, as the study's units of analysis are: ``patient_id`` (and ``image``), numbers of images
  answered for and excluded, ``predicted`` (the class with the largest mean probability), and for each endpoint ``<name>_score``,
  ``<name>_cutoff`` and ``<name>_result``: positive, negative, "no image" (all were excluded) or "no cut-off";
- ``inventory.parquet``: all images with the reason of each exclusion;
- ``run.json``: the package's digest, the manifest's checksum, counts, versions. An older one goes before the first result
  is replaced and a new one comes last: where it stands, all results are of one run.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from marrowflow.choices.calibration import finished
from marrowflow.choices.threshold import read_lock
from marrowflow.cli import existing_file, step_parser
from marrowflow.cohorts.intake import Options as IntakeOptions
from marrowflow.cohorts.intake import make_inventory
from marrowflow.config import ColourRecipe, Images, Intake, Model, Section, Training, read_options
from marrowflow.errors import UserError
from marrowflow.files import note_written, sha256_of, write_json, write_table
from marrowflow.images.fitted import Numbers, pack_as_fitted
from marrowflow.learning import bundle
from marrowflow.learning.combine import combine
from marrowflow.learning.device import choose_device, device_name
from marrowflow.learning.package_words import licence_warnings
from marrowflow.learning.predict_external import Options as PredictOptions
from marrowflow.learning.predict_external import predict_external
from marrowflow.learning.requirements import required
from marrowflow.predictions import ENDPOINT, NO_REFERENCE, PROBABILITY, write_predictions
from marrowflow.provenance import code_digest

log = logging.getLogger(__name__)

NO_IMAGE, NO_CUTOFF = "no image", "no cut-off"
RUN = "run.json"
RESULTS = ("inventory.parquet", "predictions.parquet", "predictions.csv", "patients.csv", "images.csv", RUN)
_PIXELS = ".pixels-"
"""Begins the name of the folder below the results that patients' images are kept in while they are needed."""


class Preprocessing(Section):
    """``preprocessing.json``: what is done to images before a network sees them."""

    intake: Intake
    images: Images
    recipe: ColourRecipe
    target: Numbers | None
    """What the recipe's target image measures."""
    target_sha256: str | None
    """Of that image, which is no part of the package."""


def apply_package(package: Path, manifest: Path, out: Path, cohort: str, threads: int) -> pd.DataFrame:
    """Write the predictions of a package for the images of a manifest; return the prediction table.

    Parameters
    ----------
    package
        Folder of ``learning.package``.
    manifest
        As in `marrowflow.cohorts.manifest`, beside its images.
    out
        Folder of the results, outside of the package and not the manifest's.
    cohort
        Name of the hospital in the tables.
    threads
        Images read and corrected at a time; the results do not depend on it.

    Raises
    ------
    UserError
        A package that was changed; a manifest that cannot be used, or without a single usable image; a folder that
        results do not belong into or cannot be written to.
    """
    if threads < 1:
        raise UserError(f"--threads {threads}: at least one is needed; give 1 or more, or leave it out")
    _refuse_place(package, manifest, out)
    card, digest = bundle.verified_card(package)
    log.info("package of %s, digest %s: all files are as they were packed", card["index_test"], digest)
    differing = _differing(package, card)
    for warning in (
        *licence_warnings(card),
        *(f"{fact}: probabilities may differ; {do}" for fact, do in differing),
    ):
        log.warning("%s", warning)
    preprocessing = read_options(Preprocessing, (package / bundle.PREPROCESSING).read_text(encoding="utf-8"))
    label_map = package / bundle.LABEL_MAP
    inventory = make_inventory(
        cohort,
        manifest,
        IntakeOptions(intake=preprocessing.intake, classes=card["classes"]),
        label_map if label_map.is_file() else None,
        threads,
        labelled=False,
    )
    with _kept_while_needed(out) as kept:
        raw = _answers(package, card, preprocessing, inventory, manifest.parent, kept, threads)
        lock = read_lock(package / bundle.LOCK)
        table = finished(raw, lock, card["classes"])
        new = kept / "results"
        write_table(new / "inventory.parquet", inventory)
        write_predictions(new / "predictions.parquet", table, card["classes"])
        write_predictions(new / "predictions.csv", table, card["classes"])
        for unit in card["units"]:
            results = results_of(table, inventory, lock, card["classes"], unit)
            write_table(new / ("patients.csv" if unit == "patient" else "images.csv"), results)
        facts = [fact for fact, _ in differing]
        write_json(new / RUN, _record(card, digest, manifest, cohort, inventory, facts))
        _put(new, out)
    return table


def _refuse_place(package: Path, manifest: Path, out: Path) -> None:
    """Refuse a folder of results in which something else would be changed."""
    if out.resolve().is_relative_to(package.resolve()):
        raise UserError(f"--out {out} lies in the package: it would be a changed one; choose another folder")
    if out.resolve() in (manifest.parent.resolve(), manifest.resolve().parent):
        raise UserError(
            f"--out {out} is the manifest's folder, in which {', '.join(RESULTS)} would be replaced; choose another folder"
        )


@contextmanager
def _kept_while_needed(out: Path) -> Iterator[Path]:
    """Yield a folder below ``out`` that is gone afterwards, and remove those that killed runs left."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for left in out.glob(f"{_PIXELS}*"):
            shutil.rmtree(left)
        kept = tempfile.TemporaryDirectory(prefix=_PIXELS, dir=out)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written to ({error}): choose another folder") from error
    with kept as folder:
        yield Path(folder)


def _put(new: Path, out: Path) -> None:
    """Put results in the place of those of an older run."""
    try:
        for name in reversed(RESULTS):
            (out / name).unlink(missing_ok=True)
        for name in RESULTS:
            if (new / name).is_file():
                (new / name).replace(out / name)
                note_written(out / name)
    except OSError as error:
        raise UserError(
            f"{out / name} cannot be replaced ({error.strerror}): choose another folder"
        ) from error


def results_of(
    table: pd.DataFrame, inventory: pd.DataFrame, lock: dict[str, Any], classes: Sequence[str], unit: str
) -> pd.DataFrame:
    """Return each patient's (or image's) scores and results at the locked cut-offs, in the order of the inventory.

    Parameters
    ----------
    table
        The final prediction table.
    inventory
        Of all images, those that were excluded too.
    lock
        The cut-offs.
    classes
        The study's classes in order.
    unit
        ``patient``: a score is the mean over the patient's images that were answered for; ``case``: the image's own.
    """
    key = ["patient_id"] if unit == "patient" else ["patient_id", "image"]
    of_case = inventory.set_index("case_id")[["image"]]
    rows = table.join(of_case, on="case_id")
    scores = pd.DataFrame({name: _scores(rows, name, lock) for name in lock["endpoints"]}, index=rows.index)
    probabilities = rows[[PROBABILITY + name for name in classes]]
    keys = [rows[name] for name in key]
    means = pd.concat([probabilities, scores.add_prefix("score ")], axis=1).groupby(keys).mean()
    answered = rows.groupby(key).size()
    found = inventory[key].drop_duplicates().set_index(key)
    units = inventory.groupby(key).size().reindex(found.index)
    result = pd.DataFrame(index=found.index)
    result["n_images"] = answered.reindex(found.index).fillna(0).astype(np.int64)
    result["n_excluded"] = units - result["n_images"]
    means = means.reindex(found.index)
    best = means[list(probabilities)].fillna(0.0).to_numpy().argmax(axis=1)
    predicted = np.asarray(classes, dtype=object)[best]
    result["predicted"] = np.where(result["n_images"] > 0, predicted, "")
    for name, endpoint in lock["endpoints"].items():
        cutoff = (endpoint.get(unit) or {}).get("threshold")
        score = means[f"score {name}"]
        result[f"{name}_score"] = score
        result[f"{name}_cutoff"] = np.nan if cutoff is None else cutoff
        called = NO_CUTOFF if cutoff is None else np.where(score >= cutoff, "positive", "negative")
        result[f"{name}_result"] = np.where(score.isna(), NO_IMAGE, called)
    return result.reset_index()


def _scores(table: pd.DataFrame, name: str, lock: dict[str, Any]) -> pd.Series:
    """Return an endpoint's score of each image: its own probability, or the sum of its positive classes'."""
    if name in lock["calibration"]["heads"]:
        return table[ENDPOINT + name]
    return table[[PROBABILITY + c for c in lock["endpoints"][name]["positive"]]].sum(axis=1)


def _answers(
    package: Path,
    card: dict[str, Any],
    preprocessing: Preprocessing,
    inventory: pd.DataFrame,
    folder: Path,
    kept: Path,
    threads: int,
) -> pd.DataFrame:
    """Return the uncalibrated answers; corrected pixels and features are written below ``kept``."""
    store, features = kept / "store", kept / "features"
    pack_as_fitted(
        inventory, folder, store, preprocessing.images, preprocessing.recipe, preprocessing.target, threads
    )
    tables = {}
    for member in card["members"]:
        folders = [
            package / bundle.NETWORKS / member["model"] / str(fold["fold"]) for fold in member["folds"]
        ]
        # Of the configuration's section nothing but the threads matters to a trained network.
        model = Model(network=member["network"], mode="scratch", training=Training(threads=member["threads"]))
        options = PredictOptions(model=model, classes=card["classes"])
        tables[member["model"]] = predict_external(
            options, folders, inventory, [store], card["index_test"], features
        )
    return combine(tables, card["classes"], card["index_test"])


def _differing(package: Path, card: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each part of the software that is not the one that the package was made with, and what to do about it."""
    found = []
    code = code_digest("learning.apply")
    if code != card["code"]["learning.apply"]:
        found.append(
            (
                f"this is not the package's own code (digest {code}, not {card['code']['learning.apply']})",
                f"set PYTHONPATH={package / bundle.CODE}",
            )
        )
    for name, wanted in required((package / bundle.REQUIREMENTS).read_text(encoding="utf-8")).items():
        installed = _installed(name)
        # OpenCV counts its wheels in a fourth place.
        if installed != wanted and not (name.startswith("opencv") and wanted.startswith(f"{installed}.")):
            fact = f"{name} {installed or 'is not installed'}, and the package was made with {wanted}"
            found.append((fact, f"install {package / bundle.REQUIREMENTS}"))
    return found


def _installed(name: str) -> str | None:
    if name.startswith("opencv"):
        return cv2.__version__  # it goes by several names
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def _record(
    card: dict[str, Any],
    digest: str,
    manifest: Path,
    cohort: str,
    inventory: pd.DataFrame,
    differing: list[str],
) -> dict[str, Any]:
    included = inventory[inventory["status"] == "included"]
    return {
        "package": {"digest": digest, "study": card["study"], "index_test": card["index_test"]},
        "lock_digest": card["lock_digest"],
        "manifest": {"name": manifest.name, "sha256": sha256_of(manifest)},
        "cohort": cohort,
        "images": len(inventory),
        "included": len(included),
        "patients": int(included["patient_id"].nunique()),
        "patients_are": sorted(set(included["patient_source"])),
        "device": device_name(choose_device(card["members"][0]["threads"])),
        "versions": {name: _installed(name) for name in ("torch", "torchvision", "timm", "numpy", "pandas")},
        "differing": differing,
    }


def _tell(table: pd.DataFrame, package: Path, out: Path) -> None:
    """Log what was written, and how to have its accuracy where the truth is known."""
    log.info("%d images answered for; results are in %s", len(table), out)
    known = int((~table["truth"].isin(NO_REFERENCE)).sum())
    if known:
        here = shlex.quote(str(package))
        log.info(
            "the truth of %d images is known; for accuracy run: python -m marrowflow statistics.accuracy "
            '--options "$(cat %s/%s)" --predictions %s --lock %s/%s --out %s',
            known, here, bundle.ACCURACY, shlex.quote(str(out / "predictions.parquet")), here, bundle.LOCK,
            shlex.quote(str(out / "accuracy")),
        )  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Apply a package; see the module."""
    parser = step_parser("learning.apply", "Apply a model package to a hospital's images.")
    parser.add_argument("--package", type=Path, required=True, metavar="DIR", help="folder of the package")
    parser.add_argument(
        "--manifest", type=existing_file, required=True, help="table of the images (CSV or TSV)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--cohort",
        default="hospital",
        help="name of the hospital in the tables: letters, digits, underscores",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="images read at a time (default: all processors)",
    )
    args = parser.parse_args(argv)
    if not args.cohort.replace("_", "").isalnum() or not args.cohort.isascii():
        raise UserError(f"--cohort {args.cohort!r} may hold only letters A-Z, digits and underscores")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    table = apply_package(args.package, args.manifest, args.out, args.cohort, args.threads)
    _tell(table, args.package, args.out)
