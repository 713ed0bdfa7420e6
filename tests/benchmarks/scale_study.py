"""A study of painted cells in twelve hospitals, as large as asked for: files, manifests, cohort table, configuration.

Every picture is its own: a window of 250 x 250 pixels at a random place, turn and size in one of a few large painted
fields of its hospital. What a picture is follows from its hospital and number alone, so that several processes paint
side by side, and a study of fewer images is the first rows of each manifest of a larger one.

Planted in known places, and therefore countable: exact copies, near copies (paler, recompressed), a picture that stands
in two hospitals, and files that are cut short.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import yaml

from marrowflow.demo.hospitals import CLASSES, HOSPITALS
from marrowflow.demo.smear import draw_patient, paint_field

SIDE = 250
"""Of a picture, pixels."""
BYTES = 10_000
"""Of a picture on disk, at most, on average; for asking whether a study fits."""
SHARES = (0.30, 0.18, 0.12, 0.09, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.02, 0.01)
"""Of the hospitals in a study's images: a few are large. The first four are developed on."""
DEVELOPMENT = 4
COPY, NEAR, CUT, SHARED = (500, 11), (1000, 17), (1000, 23), (2000, 5)
"""Every 500th picture, from the 12th on, is an exact copy of the one before it, and so on; none of these meet."""

_FIELD = 700  # side, pixels
_AT_ONCE = 500
_STAINS = list(HOSPITALS.values())


@dataclass(frozen=True)
class Study:
    """Which images a study of a given size has, and what is to be found in them."""

    images: int
    """Asked for; rounded down hospital by hospital."""

    @property
    def sizes(self) -> dict[str, int]:
        """Images of each hospital."""
        return {f"h{i:02}": int(self.images * share) for i, share in enumerate(SHARES)}

    @property
    def total(self) -> int:
        """Images of all hospitals."""
        return sum(self.sizes.values())

    @property
    def developed(self) -> list[str]:
        """Hospitals that are developed on."""
        return list(self.sizes)[:DEVELOPMENT]

    def cut(self, hospital: str) -> int:
        """Number of files that are cut short."""
        return _count(CUT, self.sizes[hospital])

    def copied(self) -> list[tuple[str, str]]:
        """Case ids of each planted copy and of the development picture that it copies."""
        found = []
        for place, hospital in enumerate(self.developed):
            number = self.sizes[hospital]
            for every, first in (COPY, NEAR):
                found += [(_case(hospital, i), _case(hospital, i - 1)) for i in range(first, number, every)]
            if place == 1:  # what `_encoded` takes from the first hospital
                found += [(_case(hospital, i), _case("h00", i)) for i in range(SHARED[1], number, SHARED[0])]
        return found


def name_of(number: int) -> str:
    """Return a picture's path in its hospital's folder; a thousand stand in a folder of their own."""
    return f"{number // 1000:03}/{number:06}.jpg"


def paint_files(folder: Path, study: Study, processes: int) -> int:
    """Paint all pictures of a study below ``folder``; return their bytes."""
    tasks = [
        (hospital, start, min(start + _AT_ONCE, size))
        for hospital, size in study.sizes.items()
        for start in range(0, size, _AT_ONCE)
    ]
    # A field gives thousands of pictures in a large study, and dozens in a small one.
    paint = partial(_paint_some, folder, min(12, 2 + study.images // 4000))
    with ProcessPoolExecutor(processes) as pool:
        return sum(pool.map(paint, tasks))


def write_study(project: Path, folder: Path, study: Study, networks: int, colours: list[str]) -> Path:
    """Write manifests, cohort table and configuration; return the configuration's path, relative to the project.

    Each of the networks is to be trained in two modes on each of the colour recipes.
    """
    key = f"scale_{study.total}"
    lines = ["cohort\trole\tmanifest\thospital\tsource"]
    for place, (hospital, size) in enumerate(study.sizes.items()):
        manifest = folder / hospital / f"{key}.csv"
        _write_manifest(manifest, hospital, size)
        role = "development" if place < DEVELOPMENT else "external"
        lines.append(f"{hospital}\t{role}\t{manifest}\tHospital {place} (painted)\tpainted")
    table = project / f"{key}.tsv"
    table.write_text("\n".join(lines) + "\n")
    config = {
        "study": {"key": key, "title": "A study of many cells"},
        "cohorts": table.name,
        "classes": list(CLASSES),
        "images": {"size": 224},
        "colour": {"raw": {"method": "none"}, "corrected": {"method": "reflection_median"}},
        "splits": {"folds": 5},
        "augmentation": {"plan": "eight"},
        "grid": {
            "networks": {f"network{i}": {"network": "resnet18"} for i in range(networks)},
            "modes": ["scratch", "finetune"],
            "colours": colours,
        },
        "report": {"primary": f"network0_scratch-{colours[0]}"},
    }
    path = project / f"{key}_{networks}x2x{len(colours)}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path.relative_to(project)


def add_hospital(project: Path, folder: Path, study: Study) -> str:
    """Paint a thirteenth hospital, as large as the mean of the others, and add its line; return its name."""
    hospital, size = f"h{len(SHARES):02}", study.total // len(SHARES)
    _paint_some(folder, 4, (hospital, 0, size))
    manifest = folder / hospital / "manifest.csv"
    _write_manifest(manifest, hospital, size)
    with (project / f"scale_{study.total}.tsv").open("a") as table:
        table.write(f"{hospital}\texternal\t{manifest}\tHospital {len(SHARES)} (painted)\tpainted\n")
    return hospital


def _count(planted: tuple[int, int], number: int) -> int:
    every, first = planted
    return len(range(first, number, every))


def _is(planted: tuple[int, int], number: int) -> bool:
    every, first = planted
    return number >= first and (number - first) % every == 0


def _case(hospital: str, number: int) -> str:
    return f"{hospital}/{name_of(number)}"


def _paint_some(folder: Path, fields: int, task: tuple[str, int, int]) -> int:
    hospital, start, stop = task
    written = 0
    for number in range(start, stop):
        path = folder / hospital / name_of(number)
        if number % 1000 == 0 or number == start:
            path.parent.mkdir(parents=True, exist_ok=True)
        data = _encoded(hospital, number, fields)
        path.write_bytes(data[: len(data) // 2] if _is(CUT, number) else data)
        written += len(data)
    return written


def _encoded(hospital: str, number: int, fields: int) -> bytes:
    if hospital == "h01" and _is(SHARED, number):
        return _encoded("h00", number, fields)
    if _is(COPY, number):
        return _encoded(hospital, number - 1, fields)
    if _is(NEAR, number):
        picture = cv2.convertScaleAbs(_window(hospital, number - 1, fields), alpha=0.96)
        return _jpeg(picture, 70)
    return _jpeg(_window(hospital, number, fields), 90)


def _window(hospital: str, number: int, fields: int) -> np.ndarray:
    """Return one picture, uint8 BGR: a window of a field, turned, at its own size and under its own light."""
    rng = np.random.default_rng([int(hospital[1:]), number])
    field = _fields(hospital, fields)[rng.integers(fields)]
    room = SIDE * 0.75
    centre = rng.uniform(room, field.shape[0] - room, 2)
    turn = cv2.getRotationMatrix2D(tuple(centre), rng.uniform(0, 360), rng.uniform(0.85, 1.2))
    turn[:, 2] = turn[:, 2] + SIDE / 2 - centre
    window = cv2.warpAffine(field, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    return cv2.convertScaleAbs(window, alpha=rng.uniform(0.9, 1.05))


# The tasks come hospital by hospital.
@lru_cache(maxsize=2)
def _fields(hospital: str, number: int) -> list[np.ndarray]:
    place = int(hospital[1:])
    stain = _STAINS[place % len(_STAINS)]
    painted = replace(stain, width=_FIELD, height=_FIELD, resolution=8.0, impulses=0.0)
    fields = []
    for i in range(number):
        rng = np.random.default_rng([place, i, 1])
        patient = draw_patient(CLASSES[i % len(CLASSES)], rng)
        fields.append(cv2.cvtColor(paint_field(painted, patient, rng), cv2.COLOR_RGB2BGR))
    return fields


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _write_manifest(path: Path, hospital: str, size: int) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "patient_id", "label", "age", "sex", "scanner"])
        for number, patient in zip(range(size), _patients(hospital), strict=False):
            age, sex = 1 + (7 * patient) % 90, ("female", "male")[patient % 2]
            label = CLASSES[patient % len(CLASSES)]
            rows.writerow(
                [name_of(number), f"p{patient:05}", label, age, sex, f"scanner {int(hospital[1:]) % 3}"]
            )


def _patients(hospital: str) -> Iterator[int]:
    """Yield each image's patient: most have a few images, some have hundreds."""
    rng = np.random.default_rng([int(hospital[1:]), 2])
    for patient, images in enumerate(_images_of_patients(rng)):
        yield from [patient] * images


def _images_of_patients(rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield 1 + min(int(rng.lognormal(1.5, 1.2)), 600)
