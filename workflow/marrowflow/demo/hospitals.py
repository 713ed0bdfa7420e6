"""The four painted hospitals and the four painted diagnoses: numbers only, nothing is drawn here.

Lengths are in micrometres, so that a hospital's camera decides how many pixels a cell has. Dyes are
optical densities for red, green and blue light: a picture is ``light · exp(-density)``, which makes
overlapping cells darken each other as they do on glass.

Sizes, shares and granules follow what haematology atlases describe in words; none was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CLASSES = ("healthy", "AML", "ALL", "CML")

Shape = Literal["round", "oval", "kidney", "band", "bilobed", "segmented"]

# Density of a full-strength layer for (red, green, blue) light.
DYES: dict[str, tuple[float, float, float]] = {
    "haemoglobin": (0.10, 0.42, 0.34),
    "chromatin": (0.92, 1.40, 0.52),
    "basophilic": (0.62, 0.42, 0.12),  # cytoplasm rich in RNA: blue
    "acidophilic": (0.10, 0.28, 0.20),  # mature cytoplasm: pink
    "neutral": (0.26, 0.55, 0.30),  # granules of the neutrophil line
    "azurophil": (0.50, 1.60, 0.62),  # primary granules and Auer rods
    "eosinophil": (0.12, 0.80, 1.10),
    "basophil": (1.30, 1.60, 0.60),
}


@dataclass(frozen=True)
class Granules:
    """Granules of one dye: how many a cell has, their radius in micrometres, their density."""

    dye: str
    number: int
    radius: float
    strength: float


@dataclass(frozen=True)
class Kind:
    """What one kind of nucleated cell looks like."""

    diameter: float
    """Micrometres."""
    nucleus: Shape
    share: float
    """Diameter of the nucleus as a share of the cell's."""
    chromatin: float
    """Strength of the nuclear dye."""
    grain: float
    """Correlation length of the chromatin's texture, micrometres."""
    clumping: float
    """Contrast of that texture."""
    nucleoli: int
    """Most nucleoli that are seen."""
    basophilia: float
    """Blue of the cytoplasm."""
    acidophilia: float
    """Pink of the cytoplasm."""
    granules: tuple[Granules, ...] = ()
    auer: float = 0.0
    """Probability of a rod of fused primary granules."""


_FINE_GRANULES = Granules("neutral", 130, 0.22, 0.5)
_PRIMARY_GRANULES = Granules("azurophil", 45, 0.30, 0.7)

KINDS: dict[str, Kind] = {
    "neutrophil": Kind(13.0, "segmented", 0.60, 1.15, 0.55, 0.25, 0, 0.02, 0.55, (_FINE_GRANULES,)),
    "band": Kind(13.5, "band", 0.62, 1.05, 0.55, 0.22, 0, 0.06, 0.55, (_FINE_GRANULES,)),
    "metamyelocyte": Kind(14.5, "kidney", 0.64, 1.00, 0.50, 0.20, 0, 0.10, 0.50, (_FINE_GRANULES,)),
    "myelocyte": Kind(
        15.5, "oval", 0.62, 0.95, 0.48, 0.18, 0, 0.25, 0.40, (_FINE_GRANULES, Granules("azurophil", 14, 0.28, 0.6))
    ),
    "promyelocyte": Kind(17.0, "oval", 0.70, 0.85, 0.35, 0.12, 2, 0.55, 0.10, (_PRIMARY_GRANULES,)),
    "eosinophil": Kind(13.5, "bilobed", 0.58, 1.10, 0.55, 0.25, 0, 0.02, 0.30, (Granules("eosinophil", 110, 0.42, 0.9),)),
    "basophil": Kind(12.5, "bilobed", 0.62, 0.90, 0.60, 0.20, 0, 0.06, 0.30, (Granules("basophil", 48, 0.46, 0.9),)),
    "monocyte": Kind(16.5, "kidney", 0.68, 0.82, 0.70, 0.22, 0, 0.42, 0.12, (Granules("azurophil", 16, 0.18, 0.3),)),
    "lymphocyte": Kind(9.8, "round", 0.84, 1.20, 0.75, 0.30, 0, 0.40, 0.02),
    "myeloblast": Kind(15.0, "oval", 0.79, 0.78, 0.24, 0.09, 3, 0.62, 0.02, (Granules("azurophil", 6, 0.24, 0.5),), 0.22),
    "lymphoblast": Kind(11.8, "round", 0.88, 0.95, 0.38, 0.14, 1, 0.52, 0.02),
}  # fmt: skip

BLASTS = ("myeloblast", "lymphoblast")


@dataclass(frozen=True)
class Diagnosis:
    """What a painted diagnosis does to a smear; a patient varies around it."""

    blast: str | None
    """The kind of blast, if there are any to count."""
    burden: tuple[float, float]
    """Lowest and highest share of blasts among a patient's nucleated cells."""
    others: dict[str, float]
    """The remaining nucleated cells: kinds and relative numbers."""
    cells: float
    """Mean number of nucleated cells in a field, the first one not counted."""
    red_cells: float
    """Red cells relative to a healthy smear: leukaemia is anaemic."""
    age: tuple[float, float]
    """Mean and standard deviation of the patients' age, years."""
    reference: str
    """The reference standard's method, as the manifest prints it."""


DIAGNOSES: dict[str, Diagnosis] = {
    "healthy": Diagnosis(
        None, (0.0, 0.0),
        {"neutrophil": 55, "lymphocyte": 30, "monocyte": 8, "eosinophil": 4, "basophil": 1, "band": 4},
        1.6, 1.0, (48.0, 16.0), "blood count and follow-up",
    ),
    "AML": Diagnosis(
        "myeloblast", (0.30, 0.95),
        {"neutrophil": 24, "lymphocyte": 26, "monocyte": 22, "promyelocyte": 14, "band": 5, "myelocyte": 9},
        2.2, 0.85, (61.0, 14.0), "flow cytometry and cytogenetics",
    ),
    "ALL": Diagnosis(
        "lymphoblast", (0.35, 0.95),
        {"neutrophil": 36, "lymphocyte": 48, "monocyte": 8, "band": 8},
        2.2, 0.85, (23.0, 17.0), "flow cytometry and cytogenetics",
    ),
    "CML": Diagnosis(
        "myeloblast", (0.01, 0.10),
        {"neutrophil": 30, "band": 15, "metamyelocyte": 13, "myelocyte": 17, "promyelocyte": 5,
         "eosinophil": 7, "basophil": 8, "lymphocyte": 4, "monocyte": 3},
        2.4, 0.95, (55.0, 12.0), "BCR-ABL1 by PCR",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Hospital:
    """One painted hospital: who comes, how smears are stained, and what the camera makes of them."""

    name: str
    patients: int
    """Patients of each class."""
    images: int
    """Fields of each patient."""
    width: int
    height: int
    """Pixels of a field."""
    resolution: float
    """Pixels a micrometre."""
    scanner: str
    dye_tint: tuple[float, float, float]
    """Factors on every dye's (red, green, blue) density: the stain's hue."""
    nuclear: float
    """Strength of the nuclear stain."""
    cytoplasmic: float
    """Strength of all other dyes."""
    light: tuple[float, float, float]
    """Grey levels of clear glass in (red, green, blue): lamp and white balance."""
    light_spread: float
    """Standard deviation of the logarithm of an image's exposure."""
    vignette: float
    """Share of the light lost in the corners."""
    focus: tuple[float, float]
    """Range of the blur's standard deviation, micrometres."""
    noise: float
    """Standard deviation of the camera's noise, grey levels."""
    impulses: float
    """Share of samples stuck at 0 or 255."""
    quality: int
    """JPEG quality."""


HOSPITALS: dict[str, Hospital] = {
    hospital.name: hospital
    for hospital in (
        Hospital(
            "alpha", 11, 5, 240, 200, 4.4, "painted scanner A",
            (1.00, 1.00, 1.00), 1.00, 1.00, (240, 236, 230), 0.035, 0.10, (0.10, 0.34), 2.5, 0.0, 92,
        ),
        Hospital(
            "beta", 6, 4, 256, 192, 4.5, "painted scanner B",
            (0.95, 1.04, 1.06), 0.96, 1.06, (242, 224, 192), 0.04, 0.18, (0.14, 0.36), 3.0, 0.0, 88,
        ),
        Hospital(
            "gamma", 6, 4, 240, 200, 4.2, "painted microscope camera C",
            (1.07, 0.98, 0.94), 1.05, 0.94, (206, 216, 226), 0.04, 0.16, (0.10, 0.34), 2.5, 0.004, 92,
        ),
        Hospital(
            "delta", 6, 4, 224, 176, 4.0, "painted scanner D",
            (1.03, 1.06, 0.96), 0.93, 0.96, (222, 230, 208), 0.04, 0.22, (0.18, 0.42), 3.0, 0.0, 84,
        ),
    )
}  # fmt: skip
