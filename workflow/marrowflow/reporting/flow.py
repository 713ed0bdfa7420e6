"""Flow of participants through a study (STARD 2015, items 19 and 23), as numbers and as a drawing.

Every image of a cohort's inventory gets one path from "potentially eligible" to its last box; so do
smears and patients. A box counts the units whose path goes through it, and `check` asserts that
every box is the sum of the boxes it leads to.

Bossuyt et al. 2015, BMJ 351:h5527: excluded before the index test, no index test, index test
(negative, positive, inconclusive), no reference standard, reference standard, final diagnosis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from marrowflow.config import LEAKY, Unit
from marrowflow.predictions import INCONCLUSIVE, MISSING
from marrowflow.reporting.drawing import blank, text_width, wrapped
from marrowflow.reporting.results import images_of
from marrowflow.reporting.scripts import UNKNOWN, drawable, in_reading_order
from marrowflow.reporting.tables import PATIENTS, SURROGATES, Table, one_of
from marrowflow.statistics.cases import gather_units

ELIGIBLE, EXCLUDED = "Eligible", "Excluded"
NOT_TESTED, TESTED = "No index test", "Index test"
NO_REFERENCE, REFERENCE = "No reference standard", "Reference standard"
POSITIVE, NEGATIVE = "positive", "negative"
PRESENT, ABSENT = "present", "absent"
NOT_DONE = "not done"
REFERENCE_MISSING = "reference missing"

Route = tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """What the index test answers: a yes/no endpoint, or (`positive` empty) which of the classes.

    Attributes
    ----------
    name
        Endpoint's name.
    classes
        The study's classes, in order.
    positive
        Classes that count as target condition present.
    threshold
        A score at or above this is positive; only for yes/no endpoints.
    unit
        What is counted: patients, or (where a study has no patient-level analysis) images.
    """

    name: str
    classes: tuple[str, ...]
    positive: tuple[str, ...] = ()
    threshold: float = float("nan")
    unit: Unit = "patient"

    @property
    def answers(self) -> tuple[str, ...]:
        """Results of the index test, without the inconclusive one."""
        return (NEGATIVE, POSITIVE) if self.positive else self.classes

    @property
    def truths(self) -> tuple[str, ...]:
        """Results of the reference standard, without the inconclusive one."""
        return (ABSENT, PRESENT) if self.positive else self.classes

    def truth_of(self, label: str) -> str:
        """Translate a class into a result of the reference standard."""
        return label if not self.positive else PRESENT if label in self.positive else ABSENT


@dataclass
class Box:
    """A box of the diagram: how many patients, smears and images passed through it."""

    label: str
    patients: int
    images: int
    smears: int | None = None
    boxes: list[Box] = field(default_factory=list)

    def __getitem__(self, label: str) -> Box:
        """Return the child box of that label."""
        return next(box for box in self.boxes if box.label == label)

    def as_dict(self) -> dict[str, Any]:
        """Return the tree as JSON can hold it; smears only where the manifest names them."""
        value: dict[str, Any] = {"label": self.label, "patients": self.patients, "images": self.images}
        if self.smears is not None:
            value["smears"] = self.smears
        if self.boxes:
            value["boxes"] = [box.as_dict() for box in self.boxes]
        return value


@dataclass(frozen=True)
class Flow:
    """The flow diagram of a cohort, or of several together, and the cross-tabulation that stands on the same patients.

    Attributes
    ----------
    root
        Box "Potentially eligible" with all others below it.
    crosstab
        Patients (or what `noun` says); rows index test, columns reference standard, each with "inconclusive", "not done", "total".
        Patients without any row among the predictions (of a holdout, those trained on) stand in a row of their own, if
        there are any: they were not meant to be tested, and no analysis counts them.
    noun
        What is counted: "patients", "surrogate groups", "images", or of several cohorts "patients or surrogate groups".
    question
        What the index test answers.
    remarks
        What readers of several cohorts' sums must know.
    """

    root: Box
    crosstab: pd.DataFrame
    noun: str
    question: Question
    remarks: tuple[str, ...] = ()


def trace(
    inventory: pd.DataFrame, predictions: pd.DataFrame, question: Question, untested: str = "no prediction"
) -> Flow:
    """Follow every patient, smear and image of a cohort through the study.

    Parameters
    ----------
    inventory
        The cohort's images, in the order of the manifest (columns: see the intake).
    predictions
        One index test's rows for this cohort, at most one a case. Where samples of images were divided, several rows may
        name one image as their ``parent``.
    question
        The endpoint, with its locked threshold if it is a yes/no one.
    untested
        Reason given for eligible images without any row in `predictions`.

    Returns
    -------
    Flow
        Counts and cross-tabulation, checked by `check`.

    Notes
    -----
    A patient (or smear) is excluded when all its images are, and lacks the index test when all its
    eligible images do; the reason is the commonest one, of equals the first in the manifest's order. `untested` is the
    reason only where no eligible image has a row: as in the statistics, whose units are those with a row.
    A patient's score is the mean over the images with a usable result. Of an image that samples were made of, the index
    test is done when it is of any of them, and each of these counts in the mean by itself, as in the statistics. The reference is that of its
    images that have a row, of a patient without any that of all; images of one patient that contradict each other make it
    inconclusive.
    With ``question.unit`` "case" every image is traced by itself.
    """
    images = inventory.reset_index(drop=True)
    surrogate = images["patient_source"].eq("surrogate").any()
    if question.unit == "case":
        images["patient_id"] = images["case_id"]
        predictions = predictions.assign(patient_id=images_of(predictions))
    outcomes = _outcomes(images, predictions, untested)
    asked = images["case_id"].isin(set(images_of(predictions))) & images["status"].eq("included")
    truths = _truths(images, asked, question)
    results = _results(predictions, question)

    def paths(units: Sequence[str | None]) -> pd.Series:
        """Route of each unit: by its images' outcomes, and below the index test by its patient's end."""
        found: dict[str, list[Route]] = {}
        owner = {}
        for unit, outcome, patient in zip(units, outcomes, images["patient_id"], strict=True):
            if unit is not None:
                found.setdefault(unit, []).append(outcome)
                owner[unit] = patient
        ends = {unit: _end(results.get(owner[unit]), truths[owner[unit]]) for unit in found}
        return pd.Series(
            {unit: _path(reached, ends[unit], untested) for unit, reached in found.items()}, dtype=object
        )

    smears = _smears(images)
    units = {"images": paths(images["case_id"]), "patients": paths(images["patient_id"])}
    if any(smear is not None for smear in smears):
        units["smears"] = paths(smears)
    noun = "images" if question.unit == "case" else SURROGATES if surrogate else PATIENTS
    unasked = dict.fromkeys(set(images["patient_id"]) - set(images["patient_id"][asked]), untested)
    table = _crosstab(units["patients"], truths, unasked, question)
    flow = Flow(_tree(units, question), table, noun, question)
    check(flow)
    return flow


def combine(flows: Mapping[str, Flow]) -> Flow:
    """Add the flows of several cohorts up, box by box, and their cross-tabulations cell by cell.

    Parameters
    ----------
    flows
        One a cohort, of one question, by the name that remarks call it.

    Returns
    -------
    Flow
        Of all patients, checked by `check`. Reasons are united: equal ones are added, in the order in which they occur.
        Smears are counted only if every cohort names them.

    Raises
    ------
    ValueError
        No flow, or flows of different questions.
    """
    parts = list(flows.values())
    asked = {(f.question.name, f.question.classes, f.question.positive, f.question.unit) for f in parts}
    if len(asked) != 1:
        raise ValueError(f"one question for all flows is needed, not {len(asked)}")
    nouns = sorted({flow.noun for flow in parts})
    named = [name for name, flow in flows.items() if flow.root.smears is not None]
    unnamed = [name for name in flows if name not in named]
    surrogate = [name for name, flow in flows.items() if flow.noun == SURROGATES]
    remarks = ["A patient in the data of two hospitals is counted twice."] if len(parts) > 1 else []
    if len(parts) > 1:
        remarks.append(
            "Development patients were answered out of fold, by networks that did not see them; the others by all networks. The "
            "counts add up, and are no estimate of accuracy together."
        )
    if len(nouns) > 1:
        remarks.append(
            f"In {', '.join(surrogate)} groups of near duplicates are counted in the place of patients."
        )
    if named and unnamed:
        remarks.append(f"Smears are not counted: no column names those of {', '.join(unnamed)}.")
    table = parts[0].crosstab
    for flow in parts[1:]:
        table = table.add(flow.crosstab, fill_value=0)
    rows = dict.fromkeys(name for flow in parts for name in flow.crosstab.index if name != "total")
    table = table.loc[[*rows, "total"], parts[0].crosstab.columns].astype(np.int64)
    root = _added([flow.root for flow in parts])
    united = Flow(root, table, " or ".join(nouns), parts[0].question, tuple(remarks))
    check(united)
    return united


def _added(boxes: Sequence[Box]) -> Box:
    """Return the sum of boxes of one name, with the boxes below them united by their names."""
    smears = [box.smears for box in boxes]
    below: dict[str, list[Box]] = {}
    for child in (child for box in boxes for child in box.boxes):
        below.setdefault(child.label, []).append(child)
    return Box(
        boxes[0].label,
        sum(box.patients for box in boxes),
        sum(box.images for box in boxes),
        None if None in smears else sum(n or 0 for n in smears),
        [_added(same) for same in below.values()],
    )


def check(flow: Flow) -> None:
    """Assert that every box is the sum of its children, and the table's margins are the diagram's leaves."""
    for box in _walk(flow.root):
        for unit in ("patients", "smears", "images"):
            if box.boxes and getattr(box, unit) is not None:
                total = sum(getattr(child, unit) for child in box.boxes)
                assert total == getattr(box, unit), f"{box.label}: {getattr(box, unit)} {unit}, parts {total}"
    eligible = flow.root[ELIGIBLE]
    arms = eligible[TESTED]
    table = flow.crosstab
    assert table.loc["total", "total"] == eligible.patients, "cross-tabulation and eligible patients differ"
    untested = [NOT_DONE, *unasked_rows(flow)]
    assert table.loc[untested, "total"].sum() == eligible[NOT_TESTED].patients, (
        "patients without index test differ"
    )
    for arm in arms.boxes:
        assert table.loc[arm.label, "total"] == arm.patients, f"arm {arm.label} differs"
        assert table.loc[arm.label, NOT_DONE] == arm[NO_REFERENCE].patients, f"arm {arm.label} differs"
        for leaf in arm[REFERENCE].boxes:
            assert table.loc[arm.label, leaf.label] == leaf.patients, f"{arm.label}, {leaf.label} differ"


def unasked_rows(flow: Flow) -> list[str]:
    """Return the rows of the cross-tabulation that no analysis counts; mostly none."""
    known = {*flow.question.answers, INCONCLUSIVE, NOT_DONE, "total"}
    return [str(name) for name in flow.crosstab.index if name not in known]


def crosstab_notes(flow: Flow) -> list[str]:
    """Return what the cross-tabulation must say of rows that no analysis counts; mostly nothing."""
    return [
        f"Row “{name}”: these {flow.noun} were not given to the index test; no estimate counts them."
        for name in unasked_rows(flow)
    ]


def reason_table(flow: Flow, title: str, sources: Mapping[str, str], leaky: bool = False) -> Table | None:
    """Return every reason for which patients, smears or images left the study; None where the diagram prints each.

    The diagram adds the rarest up where there are more than eight, and draws `scripts.UNKNOWN` for what its typeface lacks.
    """
    left = {EXCLUDED: flow.root[EXCLUDED], NOT_TESTED: flow.root[ELIGIBLE][NOT_TESTED]}
    reasons = [(why, box) for why, parent in left.items() for box in _ordered(parent)]
    crowded = any(len(box.boxes) > _REASONS_SHOWN for box in left.values())
    if not crowded and not any(UNKNOWN in drawable(box.label) for _, box in reasons):
        return None
    units = [flow.noun] if flow.noun == "images" else [flow.noun, "smears", "images"]
    if flow.root.smears is None and "smears" in units:
        units.remove("smears")
    body = [
        [why, box.label, *(str(getattr(box, u if u in ("smears", "images") else "patients")) for u in units)]
        for why, box in reasons
    ]
    return Table(title, ["left as", "reason", *units], body, range(2, 2 + len(units)), (), sources, leaky)


def _outcomes(images: pd.DataFrame, predictions: pd.DataFrame, untested: str) -> list[Route]:
    """Return how far each image came by itself: excluded, not tested (both with a reason), or tested."""
    answers: dict[str, list[Route]] = {}
    for case, state, why in zip(
        images_of(predictions), predictions["status"], predictions["reason"], strict=True
    ):
        lost = (ELIGIBLE, NOT_TESTED, why or "no reason given")
        answers.setdefault(case, []).append(lost if state == "not_done" else (ELIGIBLE, TESTED))
    outcomes: list[Route] = []
    for case, state, why in zip(images["case_id"], images["status"], images["reason"], strict=True):
        if state != "included":
            outcomes.append((EXCLUDED, why or "no reason given"))
        else:
            outcomes.append(_path(answers.get(case, [(ELIGIBLE, NOT_TESTED, untested)]), (), untested))
    return outcomes


def _path(outcomes: list[Route], end: Route, untested: str) -> Route:
    """Return a unit's path from its images': tested if any is, else failed, without a row or excluded if any is."""
    if (ELIGIBLE, TESTED) in outcomes:
        return (ELIGIBLE, TESTED, *end)
    eligible = [o for o in outcomes if o[0] == ELIGIBLE]
    failed = [o for o in eligible if o[2] != untested]
    return _commonest(failed or eligible or outcomes)


def _commonest(outcomes: list[Route]) -> Route:
    return max(dict.fromkeys(outcomes), key=outcomes.count)


def _smears(images: pd.DataFrame) -> list[str | None]:
    """Name each image's smear; None where the manifest does not. A slide id need be unique within its patient only."""
    if "slide_id" not in images:
        return [None] * len(images)
    return [
        f"{patient}\0{slide}" if pd.notna(slide) and slide != "" else None
        for patient, slide in zip(images["patient_id"], images["slide_id"], strict=True)
    ]


def _results(predictions: pd.DataFrame, question: Question) -> dict[str, str]:
    """Return each tested patient's result of the index test."""
    # References are the inventory's: it knows those of patients without a prediction as well.
    units = gather_units(predictions.assign(truth=MISSING), question.classes, "patient")
    answers = units.table["predicted"].to_numpy(object)
    if question.positive:
        score = units.score(question.name, question.positive)
        positive = np.isin(answers, question.positive) if score is None else score >= question.threshold
        answers = np.where(positive, POSITIVE, NEGATIVE)
    status = units.table["status"]
    results = pd.Series(answers, index=units.table["patient_id"], dtype=object)
    results[status.eq("indeterminate").to_numpy()] = INCONCLUSIVE
    return {str(k): str(v) for k, v in results[status.ne("not_done").to_numpy()].items()}


def _truths(images: pd.DataFrame, asked: pd.Series, question: Question) -> dict[str, str]:
    """Return each patient's result of the reference standard, or ``missing`` / ``inconclusive``."""
    found: dict[str, set[str]] = {patient: set() for patient in images["patient_id"]}
    # The accuracy step knows a patient's rows only; its numbers must follow from the cross-tabulation.
    kept = images[
        asked | (images["status"].eq("included") & ~images["patient_id"].isin(images["patient_id"][asked]))
    ]
    for patient, status, label in zip(
        kept["patient_id"], kept["reference_status"], kept["label"], strict=True
    ):
        found[patient].add(question.truth_of(label) if status == "ok" else status)
    return {patient: _joint_truth(seen) for patient, seen in found.items()}


def _joint_truth(seen: set[str]) -> str:
    known = seen - {MISSING, INCONCLUSIVE}
    if len(known) == 1:
        return known.pop()
    return INCONCLUSIVE if known or INCONCLUSIVE in seen else MISSING


def _end(result: str | None, truth: str) -> Route:
    """Return the part of a tested patient's path that lies below the index test."""
    if result is None:
        return ()
    return (result, NO_REFERENCE, REFERENCE_MISSING) if truth == MISSING else (result, REFERENCE, truth)


def _tree(units: dict[str, pd.Series], question: Question) -> Box:
    def box(label: str, prefix: Route, *parts: Box) -> Box:
        counts = {u: sum(p[: len(prefix)] == prefix for p in paths) for u, paths in units.items()}
        return Box(label, **counts, boxes=list(parts))

    def reasons(label: str, prefix: Route) -> Box:
        found = dict.fromkeys(
            p[len(prefix)] for paths in units.values() for p in paths if p[: len(prefix)] == prefix
        )
        return box(label, prefix, *(box(reason, (*prefix, reason)) for reason in found))

    def arm(answer: str) -> Box:
        prefix = (ELIGIBLE, TESTED, answer)
        leaves = [box(truth, (*prefix, REFERENCE, truth)) for truth in (*question.truths, INCONCLUSIVE)]
        return box(
            answer,
            prefix,
            reasons(NO_REFERENCE, (*prefix, NO_REFERENCE)),
            box(REFERENCE, (*prefix, REFERENCE), *leaves),
        )

    tested = box(TESTED, (ELIGIBLE, TESTED), *(arm(answer) for answer in (*question.answers, INCONCLUSIVE)))
    eligible = box(ELIGIBLE, (ELIGIBLE,), reasons(NOT_TESTED, (ELIGIBLE, NOT_TESTED)), tested)
    return box("Potentially eligible", (), reasons(EXCLUDED, (EXCLUDED,)), eligible)


def _crosstab(
    paths: pd.Series, truths: Mapping[str, str], unasked: Mapping[str, str], question: Question
) -> pd.DataFrame:
    """Count eligible patients by index test and reference standard, with totals; `unasked` says which row others go to."""
    others = dict.fromkeys(unasked[p] for p, path in paths.items() if path[0] == ELIGIBLE and p in unasked)
    rows = [*question.answers, INCONCLUSIVE, NOT_DONE, *others]
    columns = [*question.truths, INCONCLUSIVE, NOT_DONE]
    table = pd.DataFrame(0, index=rows, columns=columns, dtype=np.int64)
    for patient, path in paths.items():
        if path[0] == ELIGIBLE:
            row = path[2] if path[1] == TESTED else unasked.get(patient, NOT_DONE)
            truth = truths[patient]
            table.loc[row, NOT_DONE if truth == MISSING else truth] += 1
    table["total"] = table.sum(axis=1)
    table.loc["total"] = table.sum(axis=0)
    return table


def _walk(box: Box) -> Iterator[Box]:
    yield box
    for child in box.boxes:
        yield from _walk(child)


# The drawing. One unit is a pixel at full size; y grows downwards.

_SIZE, _LEADING, _PAD, _GAP = 11.0, 14.5, 7.0, 20.0
_ARM_WIDTH, _ARM_GAP = 112.0, 10.0
_REASONS_SHOWN = 8
_BULLET, _INDENT = "•\u00a0", "\u00a0" * 3
_SIDE_STAGE = 1  # the box of an arm that stands beside its line
_BESIDE = 14.0  # pixels that an arm's side box leaves free for the arm's line
_INK, _LINE, _FILL, _SIDE_FILL = "#1a1a1a", "#555555", "#eef4f9", "#ffffff"


Line = tuple[list[tuple[float, float]], bool]
"""Two ends of a line, and whether it is an arrow."""


@dataclass(frozen=True)
class _Shape:
    """A drawn box: its place and its lines, of which the first `bold` are bold."""

    x: float
    y: float
    width: float
    lines: list[str]
    bold: int
    fill: str

    @property
    def height(self) -> float:
        return len(self.lines) * _LEADING + 2 * _PAD

    @property
    def bottom(self) -> float:
        return self.y + self.height


def draw(flow: Flow, width: float = 358.0, leaky: bool = False) -> Canvas:
    """Draw the diagram `width` pixels wide and as high as it needs.

    As many arms stand side by side as fit at 112 pixels each; further arms start new rows. At the
    default width the smallest type is 11 pixels on a phone of 390 pixels.
    """
    shapes: list[_Shape] = []
    lines: list[Line] = []
    top = 2.0 + (_LEADING + 4 if leaky else 0.0)
    trunk = width * 0.25
    main = width * 0.5

    def spine(box: Box, y: float, label: str) -> float:
        shape = _shape(0, y, main, [label], _counts(box, flow.noun), _FILL)
        shapes.append(shape)
        return shape.bottom

    def side(box: Box, y: float) -> float:
        """Draw what leaves the study between two boxes of the spine; return where the next one starts."""
        shape = _shape(
            trunk + 22, y + 10, width - trunk - 22, [box.label], _side_text(box, flow.noun), _SIDE_FILL
        )
        shapes.append(shape)
        middle = shape.y + shape.height / 2
        lines.append(([(trunk, middle), (shape.x, middle)], True))
        lines.append(([(trunk, y), (trunk, shape.bottom + 12)], True))
        return shape.bottom + 12

    y = side(flow.root[EXCLUDED], spine(flow.root, top, flow.root.label))
    eligible = flow.root[ELIGIBLE]
    y = side(eligible[NOT_TESTED], spine(eligible, y, ELIGIBLE))
    tested = eligible[TESTED]
    y = spine(tested, y, f"{TESTED}: {flow.question.name}")
    y = _draw_arms(tested.boxes, flow, (y, width, trunk), shapes, lines)
    return _paint(shapes, lines, width, y + 3, leaky)


def _draw_arms(
    arms: Sequence[Box],
    flow: Flow,
    place: tuple[float, float, float],
    shapes: list[_Shape],
    lines: list[Line],
) -> float:
    """Draw the arms in rows below the index test; return the lowest y."""
    y, width, trunk = place
    fitting = int((width + _ARM_GAP) // (_ARM_WIDTH + _ARM_GAP))
    columns = math.ceil(len(arms) / math.ceil(len(arms) / fitting))
    rows = [arms[i : i + columns] for i in range(0, len(arms), columns)]
    # Further rows hang on a line down the left edge, which the boxes leave free.
    gutter = 12.0 if len(rows) > 1 else 0.0
    arm_width = (width - gutter - (columns - 1) * _ARM_GAP) / columns
    start = y
    for row in rows:
        bus = y + _GAP / 2
        stages = [_stages(arm, flow) for arm in row]
        left = [gutter + i * (arm_width + _ARM_GAP) for i in range(len(row))]
        centres = [x + arm_width / 2 for x in left]
        origin = trunk if len(rows) == 1 else 3.0
        lines.append(([(origin, start), (origin, bus)], False))
        ends = [*centres, origin]
        lines.append(([(min(ends), bus), (max(ends), bus)], False))
        for centre in centres:
            lines.append(([(centre, bus), (centre, bus + _GAP / 2)], True))
        y = bus + _GAP / 2
        above: dict[float, _Shape] = {}
        for level in range(max(map(len, stages))):
            beside = _BESIDE if level == _SIDE_STAGE else 0.0
            placed = {
                x: _shape(x + beside, y, arm_width - beside, *texts[level])
                for x, texts in zip(left, stages, strict=True)
                if level < len(texts)
            }
            shapes.extend(placed.values())
            bottom = max(shape.bottom for shape in placed.values())
            if beside:
                # Who lacks the reference standard leaves the arm's line, which goes on.
                for x, shape in placed.items():
                    line, middle = x + beside / 2, shape.y + shape.height / 2
                    lines.append(([(line, above[x].bottom), (line, bottom + _GAP / 2)], True))
                    lines.append(([(line, middle), (shape.x, middle)], True))
            elif level > _SIDE_STAGE + 1:
                for x, shape in placed.items():
                    centre = x + arm_width / 2
                    lines.append(([(centre, above[x].bottom), (centre, shape.y)], True))
            above = placed
            y = bottom + _GAP / 2 if level <= _SIDE_STAGE else bottom + _GAP
        y -= _GAP / 2
    return y - _GAP / 2


def _stages(arm: Box, flow: Flow) -> list[tuple[list[str], list[str], str]]:
    """Return an arm's boxes from top to bottom as (heading, body, fill); an empty arm has one only."""
    binary = bool(flow.question.positive)
    heading = [f"Index test {arm.label}" if binary or arm.label == INCONCLUSIVE else f"Predicted {arm.label}"]
    stages = [(heading, _counts(arm, flow.noun), _FILL)]
    if arm.patients == 0 and arm.images == 0:
        return stages
    lost, kept = arm[NO_REFERENCE], arm[REFERENCE]
    stages.append(([NO_REFERENCE], _side_text(lost, flow.noun), _SIDE_FILL))
    stages.append(([REFERENCE], _counts(kept, flow.noun), _FILL))
    shown = [leaf for leaf in kept.boxes if binary or leaf.patients or leaf.label == arm.label]
    mark = "" if binary else _BULLET
    body = [f"{mark}{leaf.label}:\u00a0{leaf.patients}" for leaf in shown]
    stages.append((["Target condition" if binary else "Final diagnosis"], body, _FILL))
    return stages


def _counts(box: Box, noun: str) -> list[str]:
    if noun == "images":
        return [_many(box.images, noun)]
    smears = "" if box.smears is None else f"{_many(box.smears, 'smears')}, "
    return [_many(box.patients, noun), f"{smears}{_many(box.images, 'images')}"]


def _side_text(box: Box, noun: str) -> list[str]:
    """Return counts and reasons; beyond eight reasons the rarest are added up in one line."""
    if box.images == 0 and box.patients == 0:
        return [_many(0, noun)]
    ordered = _ordered(box)
    most = len(ordered) if len(ordered) <= _REASONS_SHOWN else _REASONS_SHOWN - 1
    shown, rest = ordered[:most], ordered[most:]
    if rest:
        smears = None if box.smears is None else sum(r.smears or 0 for r in rest)
        patients, images = sum(r.patients for r in rest), sum(r.images for r in rest)
        shown = [*shown, Box(f"{len(rest)} other reasons (each in the JSON file)", patients, images, smears)]
    # A single reason has the box's own counts.
    texts = [
        f"{_BULLET}{r.label}" + (f": {', '.join(_counts(r, noun))}" if len(shown) > 1 else "") for r in shown
    ]
    return [*_counts(box, noun), *texts]


def _ordered(box: Box) -> list[Box]:
    """Return the boxes below, the commonest reason first."""
    return sorted(box.boxes, key=lambda r: (-r.patients, -r.images))


def _many(n: int, noun: str) -> str:
    # A no-break space: a number must not lose its noun at the end of a line.
    return f"{n}\u00a0{one_of(noun) if n == 1 else noun}"


def _shape(x: float, y: float, width: float, heading: list[str], body: list[str], fill: str) -> _Shape:
    room = width - 2 * _PAD
    bold = [line for text in heading for line in wrapped(text, room, _SIZE, bold=True)]
    plain = [line for text in body for line in _hung(text, room)]
    return _Shape(x, y, width, [in_reading_order(line) for line in bold + plain], len(bold), fill)


def _hung(text: str, room: float) -> list[str]:
    """Break a text into lines; under a bullet they are indented."""
    if not text.startswith(_BULLET):
        return wrapped(text, room, _SIZE)
    lines = wrapped(text.removeprefix(_BULLET), room - text_width(_INDENT, _SIZE), _SIZE)
    return [_BULLET + lines[0], *(_INDENT + line for line in lines[1:])]


def _paint(
    shapes: Sequence[_Shape],
    lines: Sequence[Line],
    width: float,
    height: float,
    leaky: bool,
) -> Canvas:
    figure, axes = blank(width, height)
    if leaky:
        axes.text(0, 2 + _LEADING / 2, LEAKY, size=_SIZE, color="#a63b00", weight="bold", va="center")
    for points, arrow in lines:
        (x0, y0), (x1, y1) = points
        style = {
            "arrowstyle": "-|>,head_width=0.22,head_length=0.42" if arrow else "-",
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axes.annotate("", (x1, y1), (x0, y0), arrowprops={**style, "color": _LINE, "linewidth": 0.9})
    for s in shapes:
        axes.add_patch(
            Rectangle(
                (s.x + 0.5, s.y), s.width - 1, s.height, facecolor=s.fill, edgecolor=_LINE, linewidth=0.9
            )
        )
        for i, line in enumerate(s.lines):
            weight = "bold" if i < s.bold else "normal"
            y = s.y + _PAD + (i + 0.5) * _LEADING
            axes.text(
                s.x + _PAD,
                y,
                line,
                size=_SIZE,
                weight=weight,
                color=_INK,
                va="center_baseline",
                parse_math=False,
            )
    return figure
