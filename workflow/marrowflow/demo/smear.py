"""One field of a stained smear, painted: red cells, platelets and nucleated cells on clear glass.

`paint_field` returns a picture; all chance comes from the generator that it is given, so a field is
a function of its seed. Shapes are signed distances whose sign is turned into soft coverage, which
gives smooth edges without drawing at a higher resolution first.

What comes out is a stylised drawing with known classes. It is not a simulation of a disease, and an
accuracy measured on it says something about the workflow and nothing about a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from marrowflow.demo.hospitals import DIAGNOSES, DYES, KINDS, Diagnosis, Granules, Hospital, Kind

Plane = NDArray[np.float32]

_RED_CELL_DIAMETER = 7.6
# Red cells on 1000 square micrometres of a healthy field.
_RED_CELL_DENSITY = 11.0
_EDGE = 0.30  # softness of outlines, micrometres


@dataclass(frozen=True)
class Patient:
    """How one painted patient's smears differ from the textbook of the diagnosis."""

    label: str
    mixture: dict[str, float]
    """Share of each kind among the nucleated cells; sums to 1."""
    size: float
    """Factor on all nucleated cells' diameters."""
    stain: float
    """Factor on all dyes."""
    blast_shift: float
    """How far this patient's blasts lie from the textbook towards the other lineage's (0 none, 1 all)."""
    pallor: float
    """Depth of the red cells' pale centre, 0 to 1."""

    @property
    def burden(self) -> float:
        """Share of blasts among the nucleated cells."""
        return sum(self.mixture.get(kind, 0.0) for kind in ("myeloblast", "lymphoblast"))


def draw_patient(label: str, rng: np.random.Generator) -> Patient:
    """Draw a patient of one class (`hospitals.CLASSES`)."""
    diagnosis = DIAGNOSES[label]
    blasts = rng.uniform(*diagnosis.burden)
    kinds = list(diagnosis.others)
    weights = np.array([diagnosis.others[kind] for kind in kinds])
    shares = rng.dirichlet(30 * weights / weights.sum()) * (1 - blasts)
    mixture = dict(zip(kinds, shares.tolist(), strict=True))
    if diagnosis.blast is not None:
        mixture[diagnosis.blast] = blasts
    return Patient(
        label=label,
        mixture=mixture,
        size=float(np.exp(rng.normal(0, 0.05))),
        stain=float(np.exp(rng.normal(0, 0.09))),
        blast_shift=float(rng.uniform(0, 0.55)),
        pallor=float(rng.uniform(0.35, 0.75)),
    )


def paint_field(hospital: Hospital, patient: Patient, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint one field of a patient's smear as the hospital's camera sees it.

    Returns
    -------
    array of uint8, [height, width, 3], RGB
    """
    diagnosis = DIAGNOSES[patient.label]
    field = _Field(hospital, patient.stain)
    places = _place_cells(hospital, patient, diagnosis, rng)
    for x, y, radius, kind in places:
        if kind == "red cell":
            _paint_red_cell(field, x, y, radius, patient.pallor, rng)
        elif kind == "platelet":
            _paint_platelet(field, x, y, radius, rng)
        else:
            _paint_nucleated(field, x, y, radius, _individual(kind, patient, rng), rng)
    return _photograph(field.density, hospital, rng)


# --- what lies where -------------------------------------------------------------------------------


def _place_cells(
    hospital: Hospital, patient: Patient, diagnosis: Diagnosis, rng: np.random.Generator
) -> list[tuple[float, float, float, str]]:
    """Return (x, y, radius, kind) in micrometres, nucleated cells first, by random sequential placing."""
    width, height = hospital.width / hospital.resolution, hospital.height / hospital.resolution
    placed: list[tuple[float, float, float, str]] = []

    def place(kind: str, radius: float, margin: float, closeness: float, tries: int) -> None:
        for _ in range(tries):
            x, y = rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)
            if all(
                (x - px) ** 2 + (y - py) ** 2 > (closeness * (radius + pr)) ** 2 for px, py, pr, _ in placed
            ):
                placed.append((x, y, radius, kind))
                return

    kinds, shares = list(patient.mixture), np.array(list(patient.mixture.values()))
    for kind in rng.choice(kinds, size=1 + min(rng.poisson(diagnosis.cells), 4), p=shares / shares.sum()):
        radius = 0.5 * KINDS[kind].diameter * patient.size * np.exp(rng.normal(0, 0.05))
        place(str(kind), radius, 0.6 * radius + 2, 1.0, 40)
    area = width * height / 1000
    for _ in range(rng.poisson(_RED_CELL_DENSITY * diagnosis.red_cells * area)):
        radius = 0.5 * _RED_CELL_DIAMETER * np.exp(rng.normal(0, 0.06))
        # A few red cells lie on one another; most only touch.
        place("red cell", radius, -3.0, 0.72 if rng.random() < 0.2 else 0.97, 12)
    for _ in range(rng.poisson(0.9 * area)):
        place("platelet", rng.uniform(0.9, 1.5), 0.0, 1.0, 8)
    return placed


def _individual(kind: str, patient: Patient, rng: np.random.Generator) -> Kind:
    """Return one cell's own recipe: its kind, moved towards the other blast where the patient's are atypical."""
    recipe = KINDS[kind]
    other = {"myeloblast": "lymphoblast", "lymphoblast": "myeloblast"}.get(kind)
    shift = np.clip(patient.blast_shift + rng.normal(0, 0.15), 0, 0.9) if other else 0.0
    target = KINDS[other or kind]

    def between(name: str, spread: float) -> float:
        start, end = getattr(recipe, name), getattr(target, name)
        return float((start + shift * (end - start)) * np.exp(rng.normal(0, spread)))

    return Kind(
        diameter=recipe.diameter,
        nucleus=recipe.nucleus,
        share=min(between("share", 0.04), 0.93),
        chromatin=between("chromatin", 0.08),
        grain=between("grain", 0.15),
        clumping=between("clumping", 0.2),
        nucleoli=int(rng.integers(0, round(between("nucleoli", 0)) + 1)),
        basophilia=between("basophilia", 0.2),
        acidophilia=between("acidophilia", 0.2),
        granules=recipe.granules,
        auer=recipe.auer * (1 - shift),
    )


# --- painting on glass -----------------------------------------------------------------------------


class _Field:
    """Optical density of one field, [height, width, 3], to which cells are added patch by patch."""

    def __init__(self, hospital: Hospital, strength: float) -> None:
        self.density = np.zeros((hospital.height, hospital.width, 3), np.float32)
        self.resolution = hospital.resolution
        tint = np.array(hospital.dye_tint)
        self.dyes = {
            name: (np.array(dye) * tint * strength * (hospital.nuclear if name == "chromatin" else hospital.cytoplasmic)).astype(np.float32)
            for name, dye in DYES.items()
        }  # fmt: skip

    def patch(self, x: float, y: float, radius: float) -> tuple[tuple[slice, slice], Plane, Plane]:
        """Return the part of the field around a cell, and its pixels' offsets from the centre, micrometres."""
        reach = radius + 1.0
        columns, rows = ((np.array([c - reach, c + reach]) * self.resolution).astype(int) for c in (x, y))
        height, width = self.density.shape[:2]
        left, right = np.clip((columns[0], columns[1] + 1), 0, width)
        top, bottom = np.clip((rows[0], rows[1] + 1), 0, height)
        dx = (np.arange(left, right) + 0.5) / self.resolution - x
        dy = (np.arange(top, bottom) + 0.5) / self.resolution - y
        across, down = np.meshgrid(dx.astype(np.float32), dy.astype(np.float32))
        return (slice(top, bottom), slice(left, right)), across, down

    def add(self, where: tuple[slice, slice], dye: str, amount: Plane) -> None:
        """Lay a dye on a patch; ``amount`` is 1 for a full layer."""
        self.density[where] += amount[..., None] * self.dyes[dye]


def _paint_red_cell(
    field: _Field, x: float, y: float, radius: float, pallor: float, rng: np.random.Generator
) -> None:
    where, dx, dy = field.patch(x, y, 1.15 * radius)
    if dx.size == 0:
        return
    inside = _blob(dx, dy, radius, rng, roughness=0.02, stretch=0.06)
    hollow = pallor * np.exp(-((dx**2 + dy**2) / (0.5 * radius) ** 2))
    field.add(where, "haemoglobin", _coverage(inside) * (1 - hollow) * np.float32(rng.normal(1, 0.06)))


def _paint_platelet(field: _Field, x: float, y: float, radius: float, rng: np.random.Generator) -> None:
    where, dx, dy = field.patch(x, y, radius)
    if dx.size == 0:
        return
    body = _coverage(_blob(dx, dy, radius, rng, roughness=0.12, stretch=0.15))
    field.add(
        where, "azurophil", body * (0.30 + 0.25 * _texture(dx.shape, 0.4 * field.resolution, rng)).clip(0)
    )


def _paint_nucleated(
    field: _Field, x: float, y: float, radius: float, cell: Kind, rng: np.random.Generator
) -> None:
    where, dx, dy = field.patch(x, y, 1.15 * radius)
    scale = field.resolution
    body = _coverage(_blob(dx, dy, radius, rng, roughness=0.03, stretch=0.05))
    nucleus = np.minimum(_coverage(_nucleus(dx, dy, radius, cell, rng)), body)
    cytoplasm = body * (1 - nucleus)
    mottled = 1 + 0.10 * _texture(dx.shape, 0.8 * scale, rng)
    field.add(where, "basophilic", cell.basophilia * (cytoplasm + 0.5 * nucleus) * mottled)
    field.add(where, "acidophilic", cell.acidophilia * cytoplasm * mottled)
    chromatin = 1 + cell.clumping * _texture(dx.shape, cell.grain * scale, rng)
    chromatin *= 1 - 0.45 * _nucleoli(dx, dy, nucleus, cell.nucleoli, rng)
    field.add(where, "chromatin", cell.chromatin * nucleus * chromatin.clip(0.2))
    for granules in cell.granules:
        # Basophil granules lie over the nucleus as well and hide it.
        room = body if granules.dye == "basophil" else cytoplasm
        field.add(where, granules.dye, _granules(room, granules, scale, rng))
    if rng.random() < cell.auer:
        field.add(where, "azurophil", 0.9 * cytoplasm * _rod(dx, dy, radius, rng))


# --- shapes: positive inside, zero on the outline, micrometres -------------------------------------


def _coverage(signed_distance: Plane) -> Plane:
    return np.clip(0.5 + signed_distance / (2 * _EDGE), 0, 1)


def _blob(
    dx: Plane, dy: Plane, radius: float, rng: np.random.Generator, roughness: float, stretch: float
) -> Plane:
    """A disc, stretched along a random axis, with three random waves on its outline."""
    axis, length = rng.uniform(0, np.pi), 1 + rng.uniform(0, stretch)
    along = (dx * np.cos(axis) + dy * np.sin(axis)) / length
    across = (dy * np.cos(axis) - dx * np.sin(axis)) * length
    angle = np.arctan2(across, along)
    outline = np.full_like(dx, radius)
    for wave in (2, 3, 5):
        outline += (
            radius * rng.normal(0, 2 * roughness / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
        )
    return outline - np.hypot(along, across)


def _nucleus(dx: Plane, dy: Plane, radius: float, cell: Kind, rng: np.random.Generator) -> Plane:
    size = cell.share * radius
    turn, off = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.9) * (radius - size)
    if cell.nucleus in ("segmented", "bilobed", "band"):
        off *= 0.3
    x, y = dx - np.float32(off * np.cos(turn)), dy - np.float32(off * np.sin(turn))
    if cell.nucleus in ("round", "oval"):
        rough, stretch = (0.02, 0.06) if cell.nucleus == "round" else (0.035, 0.16)
        return _blob(x, y, size, rng, rough, stretch)
    if cell.nucleus == "kidney":
        whole = _blob(x, y, 1.05 * size, rng, 0.03, 0.14)
        dent = rng.uniform(1.25, 1.50) * size
        bite = 0.85 * size - np.hypot(x - dent * np.cos(turn), y - dent * np.sin(turn))
        return np.minimum(whole, -bite.astype(np.float32))
    if cell.nucleus == "band":
        return _arc(x, y, 0.72 * size, 0.30 * size, turn, rng.uniform(3.2, 4.6))
    lobes = 2 if cell.nucleus == "bilobed" else int(rng.integers(3, 6))
    return _lobes(x, y, size, lobes, turn, rng)


def _arc(x: Plane, y: Plane, radius: float, thickness: float, turn: float, span: float) -> Plane:
    """A thick arc: the pixels nearer than ``thickness`` to a part of a circle."""
    angle = (np.arctan2(y, x) - turn + np.pi) % (2 * np.pi) - np.pi
    nearest = turn + np.clip(angle, -span / 2, span / 2)
    return (thickness - np.hypot(x - radius * np.cos(nearest), y - radius * np.sin(nearest))).astype(
        np.float32
    )


def _lobes(x: Plane, y: Plane, size: float, number: int, turn: float, rng: np.random.Generator) -> Plane:
    """Lobes along an arc, joined by a thin thread."""
    span = 2.3 if number == 2 else rng.uniform(3.4, 4.6)
    ring, lobe = 0.68 * size, (0.52 if number == 2 else 0.40) * size
    shape = _arc(x, y, ring, 0.14 * size, turn, span)
    for angle in turn + np.linspace(-span / 2, span / 2, number):
        distance = ring * rng.uniform(0.8, 1.1)
        cx, cy = np.float32(distance * np.cos(angle)), np.float32(distance * np.sin(angle))
        shape = np.maximum(shape, _blob(x - cx, y - cy, lobe * rng.uniform(0.85, 1.15), rng, 0.06, 0.25))
    return shape


def _rod(dx: Plane, dy: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """An Auer rod: a needle of 3 to 5 micrometres in the cytoplasm, along its rim."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 2.5)
    x, y = dx - np.float32(0.86 * radius * np.cos(angle)), dy - np.float32(0.86 * radius * np.sin(angle))
    along = -x * np.sin(angle) + y * np.cos(angle)
    across = x * np.cos(angle) + y * np.sin(angle)
    return _coverage((0.3 - np.hypot(np.maximum(np.abs(along) - length, 0), across)).astype(np.float32))


# --- textures --------------------------------------------------------------------------------------


def _texture(shape: tuple[int, ...], grain: float, rng: np.random.Generator) -> Plane:
    """Gaussian noise of mean 0 and standard deviation 1, smooth over ``grain`` pixels."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), max(grain, 0.4))
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


def _nucleoli(dx: Plane, dy: Plane, nucleus: Plane, number: int, rng: np.random.Generator) -> Plane:
    """Pale spots well inside the nucleus, 1 at their centres."""
    spots = np.zeros_like(nucleus)
    inner = np.flatnonzero(cv2.erode(nucleus, np.ones((5, 5), np.uint8)) > 0.95)
    for pixel in rng.choice(inner, number) if len(inner) else ():
        row, column = np.unravel_index(pixel, nucleus.shape)
        size = rng.uniform(0.7, 1.2)
        away = np.hypot(dx - dx[row, column], dy - dy[row, column])
        spots = np.maximum(spots, _coverage(size - away))
    return spots


def _granules(room: Plane, granules: Granules, scale: float, rng: np.random.Generator) -> Plane:
    """Dots of one radius at random places in ``room`` (coverage); 1 where they are densest."""
    free = np.flatnonzero(room > 0.6)
    if len(free) == 0:
        return np.zeros_like(room)
    dots = np.zeros(room.size, np.float32)
    number = min(rng.poisson(granules.number), len(free))
    dots[rng.choice(free, number, replace=False)] = rng.uniform(0.6, 1.2, number)
    sigma = max(granules.radius * scale * 0.6, 0.45)
    peak = 2 * np.pi * sigma**2  # a single dot keeps height 1 after the blur
    spread = cv2.GaussianBlur(dots.reshape(room.shape), (0, 0), sigma) * np.float32(peak)
    return granules.strength * room * np.minimum(spread, 1.3)


# --- the camera ------------------------------------------------------------------------------------


def _photograph(density: Plane, hospital: Hospital, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light through the smear, the lens, the sensor: blur, vignette, exposure, noise, stuck samples."""
    focus = rng.uniform(*hospital.focus) * hospital.resolution
    seen = cv2.GaussianBlur(np.exp(-density), (0, 0), max(focus, 0.3))
    exposure = rng.normal(0, hospital.light_spread) + rng.normal(0, hospital.light_spread / 4, 3)
    light = (np.array(hospital.light) * np.exp(exposure)).astype(np.float32)
    grain = np.float32(hospital.noise) * rng.standard_normal(seen.shape, np.float32)
    levels = seen * light * _vignette(seen.shape, hospital.vignette, rng)[..., None] + grain
    picture = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    if hospital.impulses:
        stuck = rng.random(picture.shape, np.float32) < hospital.impulses
        picture[stuck] = 255 * rng.integers(0, 2, np.count_nonzero(stuck), np.uint8)
    return picture


def _vignette(shape: tuple[int, ...], loss: float, rng: np.random.Generator) -> Plane:
    """Light over the field: 1 at a centre that is not quite the picture's, less towards the corners."""
    height, width = shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32) - np.float32(rng.normal(0, 0.15))
    y = np.linspace(-1, 1, height, dtype=np.float32) - np.float32(rng.normal(0, 0.15))
    return 1 - np.float32(loss / 2) * (x[None, :] ** 2 + y[:, None] ** 2)
