"""The proof that a hospital's images had no say in the index tests: what was sealed without them, unchanged, and when.

Files are compared with the seal while the page is written: a page with this section was made from sealed files, or not at
all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from marrowflow.choices.seal import read_seal, verify_seal
from marrowflow.first_time import parse_time
from marrowflow.reporting import page, tables
from marrowflow.reporting.reporter import Reporter, missing, unit_title
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, read_json

_SHOWN = 12  # digits of a checksum

_PARTS = {
    "primary": "choice of the primary index test",
    "threshold": "lock of cut-offs and calibration",
    "network": "network",
    "card": "model card",
    "preprocessing": "colour correction",
    "folds": "division of the patients",
    "inventory": "inventory",
}


def sealed_section(reporter: Reporter, cohort: str, hospital: str) -> page.Section:
    """Return what was locked before, or without, one external hospital, with checksums and the times.

    Parameters
    ----------
    reporter
        Of the hospital's page.
    cohort, hospital
        Its id and name.

    Raises
    ------
    UserError
        A sealed file that is missing or changed, by name, with the expected and the found checksum.
    """
    root = reporter.results.root
    seal_path = root / "locked" / "seal.json"
    arrival_path = root / "external" / cohort / "arrival.json"
    title = "Locked before validation"
    lacking = [path for path in (seal_path, arrival_path) if not path.is_file()]
    if lacking:
        return page.Section(title, "sealed", [missing(path, reporter.results) for path in lacking])
    sealed = read_seal(seal_path)
    verify_seal(sealed, root)
    gate_path = root / "external" / cohort / "gate.json"
    sources = reporter.sources(seal_path, arrival_path, gate_path)
    overlap, alarming = _overlap(reporter, sealed, cohort, hospital)
    found = {
        test: _table(reporter, sealed, test)
        for protocol in reporter.options.protocols
        for test in reporter.tests(protocol)
    }
    shown, rest = reporter.upright(found)
    return page.Section(
        title,
        "sealed",
        [
            page.Text([_what(reporter, sealed), _files(sealed)], sources=sources),
            page.Text([when(sealed, read_json(arrival_path) or {}, hospital)], "note", sources),
            page.Text(overlap, "warning" if alarming else "note", sources),
            *shown,
            *([page.Folded(f"{len(rest)} more index tests", rest)] if rest else []),
            _shared(reporter, sealed),
        ],
    )


def when(sealed: Mapping[str, Any], arrival: Mapping[str, Any], hospital: str) -> str:
    """Say which came first, the seal or the hospital, and no more than the two times prove.

    Parameters
    ----------
    sealed
        Of `read_seal`.
    arrival
        Content of ``arrival.json``.
    hospital
        Its name.
    """
    seal, noted = parse_time(sealed["sealed_at"]), parse_time(arrival["noted_at"])
    if noted > seal:
        return (
            f"Sealed on {_date(sealed['sealed_at'])}; by this study's record {hospital} was first taken up on "
            f"{_date(arrival['noted_at'])}, {_duration(noted - seal)} later. Its intake, the first step that reads its images, "
            "waits for that note."
        )
    divided = sorted({name for part in sealed["divided"].values() for name in part["cohorts"]})
    return (
        f"{hospital} was first taken up on {_date(arrival['noted_at'])}, no later than the seal of {_date(sealed['sealed_at'])}: it "
        "stood in the table of cohorts when development was sealed, or sealed anew, so that the times prove nothing. "
        "What was sealed does not depend on it all the same: nothing that the seal was made of was made from an external "
        f"hospital's files (their own preparation may have run earlier), and the divisions that all networks and choices were made on hold images of {_listed(divided)} only."
    )


def _what(reporter: Reporter, sealed: Mapping[str, Any]) -> str:
    cohorts = sealed["cohorts"]
    images = sum(cohort["included"] for cohort in cohorts.values())
    patients = sum(cohort["patients"] for cohort in cohorts.values())
    return (
        f"Networks, cut-offs, calibration and preprocessing were fixed on {_listed(cohorts)} ({images} included images "
        f"of {patients} {reporter.noun(DEVELOPMENT)}) and sealed on {_date(sealed['sealed_at'])}. "
        f"While this page was written all {len(sealed['files'])} sealed files, and the code of the {len(sealed['code'])} steps "
        "that a hospital's images pass through, were compared with the seal: none has changed. "
        f"Digest of the seal: {sealed['digest']}."
    )


def _files(sealed: Mapping[str, Any]) -> str:
    """Say which files the seal was made of, and of which cohorts those are that belong to one."""
    counts = Counter(file["part"] for file in sealed["files"])
    inputs = ", ".join(f"{counts[part]} × {words}" for part, words in _PARTS.items() if counts[part])
    of_cohorts = sorted(
        {f["path"].split("/")[1] for f in sealed["files"] if f["part"] in ("inventory", "preprocessing")}
    )
    return f"All that the seal was made of: {inputs}; inventories and colour corrections are those of {_listed(of_cohorts)}."


def _overlap(
    reporter: Reporter, sealed: Mapping[str, Any], cohort: str, hospital: str
) -> tuple[list[str], bool]:
    """Say how many of the hospital's images are in the sealed inventories, and whether an included one is."""
    known = set[str]()
    for name in sealed["cohorts"]:
        known |= set(reporter.results.inventory(name)["sha256"]) - {""}
    inventory = reporter.results.inventory(cohort)
    same = inventory["sha256"].isin(known)
    included = int((same & inventory["status"].eq("included")).sum())
    words = (
        f"Of the {len(inventory)} images in the manifest of {hospital}, {int(same.sum()) or 'none'} "
        f"{'is' if same.sum() < 2 else 'are'} byte for byte among the images in the sealed inventories"
    )
    left_out = f", and {'it is' if same.sum() == 1 else 'these are'} excluded from the validation"
    words += (
        f", {included} of them included in the validation."
        if included
        else left_out + "."
        if same.any()
        else "."
    )
    gate = read_json(reporter.results.root / "external" / cohort / "gate.json")
    near = (
        []
        if gate is None
        else [
            f"Among the {gate['n_external']} included images the gate before the validation found {gate['duplicates'] or 'no'} "
            f"copies or near duplicates of the {gate['n_development']} included development images."
        ]
    )
    return [words, *near], bool(included)


def _table(reporter: Reporter, sealed: Mapping[str, Any], test: IndexTest) -> tables.Table:
    rows = [
        _row(reporter, file, f"network of fold {fold}", model)
        for model, fold, file in _networks(reporter, sealed, test)
    ]
    lock = reporter.results.lock(test)
    for file in sealed["files"]:
        place = file["path"].split("/")
        if file["part"] == "threshold" and place[1:4] == [test.protocol, test.model, test.colour]:
            rows.append(_row(reporter, file, "cut-offs", _cutoffs(reporter, lock)))
            rows.append(_row(reporter, file, "calibration", _calibration(lock)))
        elif file["part"] == "preprocessing" and place[2] == test.colour:
            rows.append(
                _row(
                    reporter, file, f"colour correction, {place[1]}", _recipe(reporter, place[1], test.colour)
                )
            )
    return tables.Table(
        f"Sealed for {test.name}",
        ["what", "value", f"SHA-256 (first {_SHOWN} digits)"],
        rows,
        (),
        ["Cut-offs and calibration are in one file. The seal holds all digits."],
        reporter.sources(reporter.results.root / "locked" / "seal.json"),
        test.leaky,
    )


def _networks(
    reporter: Reporter, sealed: Mapping[str, Any], test: IndexTest
) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return model, fold and sealed file of each network of an index test."""
    models = [network.model for network in reporter.networks(test)]
    found = []
    for file in sealed["files"]:
        place = file["path"].split("/")
        if (
            file["part"] == "network"
            and place[1] == test.protocol
            and place[2] in models
            and place[3] == test.colour
        ):
            found.append((place[2], place[4], file))
    return sorted(found, key=lambda row: (models.index(row[0]), int(row[1])))


def _shared(reporter: Reporter, sealed: Mapping[str, Any]) -> tables.Table:
    rows = []
    for file in sealed["files"]:
        if file["part"] == "primary":
            rows.append(_row(reporter, file, "primary index test", reporter.primary.index_test))
        elif file["part"] == "folds":
            protocol = file["path"].split("/")[1]
            rows.append(
                _row(reporter, file, f"division, {protocol}", _counted(sealed["divided"][protocol], reporter))
            )
        elif file["part"] == "inventory":
            name = file["path"].split("/")[1]
            rows.append(_row(reporter, file, f"inventory, {name}", _taken(sealed["cohorts"][name], reporter)))
    rows += [[f"code of {step}", "its sources", digest[:_SHOWN]] for step, digest in sealed["code"].items()]
    return tables.Table(
        "Sealed for all index tests",
        ["what", "value", f"SHA-256 (first {_SHOWN} digits)"],
        rows,
        sources=reporter.sources(reporter.results.root / "locked" / "seal.json"),
    )


def _row(reporter: Reporter, file: Mapping[str, Any], what: str, value: str) -> Sequence[str | tables.Link]:
    link = tables.Link(what, reporter.results.href(reporter.results.root / file["path"]))
    return [link, value, file["sha256"][:_SHOWN]]


def _counted(part: Mapping[str, Any], reporter: Reporter) -> str:
    return f"{part['images']} images, {part['patients']} {reporter.noun(DEVELOPMENT)}"


def _taken(part: Mapping[str, Any], reporter: Reporter) -> str:
    return f"{part['images']} images, {part['included']} included, of {part['patients']} {reporter.noun(DEVELOPMENT)}"


def _cutoffs(reporter: Reporter, lock: Mapping[str, Any]) -> str:
    found = []
    for name, endpoint in lock["endpoints"].items():
        for unit in reporter.options.units:
            cutoff = (endpoint.get(unit) or {}).get("threshold")
            value = "none" if cutoff is None else tables.number(cutoff)
            found.append(f"{name} {unit_title(unit, reporter.noun(DEVELOPMENT))}: {value}")
    return "; ".join(found) or "none; the class with the largest probability is the answer"


def _calibration(lock: Mapping[str, Any]) -> str:
    calibration = lock.get("calibration") or {}
    values = {"": calibration.get("temperature")} | {
        f" of {name}": head.get("temperature") for name, head in (calibration.get("heads") or {}).items()
    }
    found = [f"temperature{of} {tables.number(t)}" for of, t in values.items() if t is not None]
    return "; ".join(found) or "none"


def _recipe(reporter: Reporter, cohort: str, colour: str) -> str:
    about = read_json(reporter.results.store_path(cohort, colour) / "store.json") or {}
    recipe = about.get("recipe") or {}
    target = about.get("target_sha256")
    words = [
        str(recipe.get("method", tables.MISSING)),
        f"{about['shape'][1]} pixels" if "shape" in about else "",
    ]
    words += [f"cropped by {recipe['crop']}"] if recipe.get("crop", "none") != "none" else []
    words += [f"target image {target[:_SHOWN]}"] if target else []
    return ", ".join(filter(None, words))


def _date(text: str) -> str:
    return f"{parse_time(text):%Y-%m-%d %H:%M:%S} UTC"


def _duration(time: timedelta) -> str:
    """Return a time in its largest whole unit: ``12 days``, ``1 hour``."""
    seconds = int(time.total_seconds())
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}{'s' if seconds >= 2 * length else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else str(last)
