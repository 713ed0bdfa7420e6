"""The sections of a study of whole slides: where tissue is, how tiles are cut and seen, how a slide's tiles are summed up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from marrowflow.section import Identifier, OpenShare, Section, Share


class Tissue(Section):
    """Where a slide is looked at: Otsu's threshold on the slide seen from afar."""

    method: Literal["saturation", "grey", "all"] = "saturation"
    """saturation: what is coloured; grey: what is dark; all: the whole slide, for micrographs that show nothing else."""
    downsample: float = Field(default=16.0, ge=1, le=256)
    """How many times smaller than its finest level the slide is looked at."""
    min_contrast: float = Field(default=8.0, ge=0, le=255)
    """A slide whose tissue and background differ by fewer levels (of 255, in the mean) shows no tissue but noise."""
    min_object: float = Field(default=100.0, ge=0)
    """Specks that cover fewer square micrometres are dust."""
    min_hole: float = Field(default=1000.0, ge=0)
    """Holes that cover fewer square micrometres are filled."""


class Tiling(Section):
    """One magnification at which slides are seen."""

    magnification: float = Field(gt=0, le=400)
    """Of the tiles: 10 / magnification micrometres a pixel, whatever the scanner's objective was."""
    size: int = Field(default=256, ge=16, le=4096)
    """Side of a tile, pixels."""
    overlap: Share = 0.0
    """Share of its side by which a tile overlaps the next one."""
    min_tissue: Share = 0.25
    """Tiles of which a smaller share is tissue are left out."""
    max_enlargement: float = Field(default=1.1, ge=1, le=16)
    """A slide whose finest level would have to be enlarged by more shows less than this magnification, and is not done at it."""

    @property
    def resolution(self) -> float:
        """Micrometres a pixel."""
        return 10.0 / self.magnification


class Extractor(Section):
    """The network that sees each tile once; it is not trained."""

    network: str = "resnet50"
    """Any name that timm knows, with or without a tag of its weights."""
    weights: str = "imagenet"
    """imagenet: timm's (downloaded); none: random, for tests; otherwise a local file of weights (.safetensors, .pth)."""
    licence: str = ""
    """Licence of a local file of weights; printed in the reports. That of timm's weights is known."""
    stage: int | None = Field(default=3, ge=1, le=12)
    """The network is cut after this stage, and its maps are averaged: stage 3 of resnet50 gives 1,024 numbers (wang2022, CLAM). null: what its own last layer sees."""
    input_size: int | None = Field(default=None, ge=16)
    """Side to which tiles are resized for the network, pixels; null takes them as they are."""
    batch_size: int = Field(default=64, ge=1)
    """Tiles sent through the network at once. Part of the result: sums are rounded by it."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: float16 on a GPU, float32 on a CPU."""
    threads: int = Field(default=2, ge=1)
    """Threads of the network on a CPU; part of the result, so a setting and not what the scheduler hands out."""


class Slides(Section):
    """A study of whole slides, each of which is one case: present, it takes the place of `images:`, `colour:` and `augmentation:`."""

    tissue: Tissue = Tissue()
    tilings: dict[Identifier, Tiling] = Field(min_length=1)
    """Magnifications by name, such as {x10: {magnification: 10}}; each is run, so that a study can compare them. An index test is an aggregator at a tiling."""
    regions: Literal["training", "always", "never"] = "training"
    """Where the manifest's column `region` names a mask of a slide: training: it is trained on within, and answered for whole (wang2022); always: within; never: masks are not read."""
    extractor: Extractor = Extractor()
    map_overlap: Share = 0.5
    """Share of its side by which a tile overlaps the next one on the maps of attention (wang2022: half); 0 where each tile is a cell."""


Kind = Literal["wang2022", "clam_mb", "clam_sb", "gated", "max", "mean"]
_ATTENDING = ("wang2022", "clam_mb", "clam_sb", "gated")
_CLUSTERING = ("wang2022", "clam_mb", "clam_sb")


class Aggregation(Section):
    """How a slide's tiles become one answer; equations in `marrowflow.slides.aggregators`."""

    kind: Kind = "wang2022"
    """wang2022: two layers, a branch of gated attention and a classifier a class, instance clustering; clam_mb, clam_sb: CLAM with a branch a class or one; gated: one branch, no clustering; max, mean: no attention."""
    hidden: int = Field(default=512, ge=1)
    """Numbers that a tile's features are reduced to."""
    depth: Literal[1, 2] | None = None
    """Layers that do so; null takes the kind's own: 2 for wang2022, else 1."""
    width: int | None = Field(default=None, ge=1)
    """Width of the attention; null takes the kind's own: 384 for wang2022, else 256."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Behind each layer and in the attention."""
    instances: int | dict[Identifier, int] = 8
    """Tiles on either side of the instance clustering: one number, or one for each tiling, such as {x10: 8, x40: 32, x100: 128} (wang2022)."""
    bag_weight: OpenShare = 0.7
    """Weight of the slide's own loss; the instance clustering has the rest."""
    tilings: list[Identifier] | None = Field(default=None, min_length=1)
    """Tilings that it is trained on; null means all."""

    @model_validator(mode="after")
    def _instances_are_tiles(self) -> Aggregation:
        numbers = self.instances.values() if isinstance(self.instances, dict) else [self.instances]
        if any(number < 1 for number in numbers):
            raise ValueError("instances: at least 1 tile on either side")
        return self

    @property
    def layers(self) -> int:
        """Layers between the features and the attention."""
        return self.depth or (2 if self.kind == "wang2022" else 1)

    @property
    def attention(self) -> int:
        """Width of the attention."""
        return self.width or (384 if self.kind == "wang2022" else 256)

    @property
    def attends(self) -> bool:
        """Whether attention weighs the tiles."""
        return self.kind in _ATTENDING

    @property
    def branches(self) -> Literal["classes", "one"]:
        """Whether each class has attention of its own."""
        return "classes" if self.kind in ("wang2022", "clam_mb") else "one"

    @property
    def clusters(self) -> bool:
        """Whether instance clustering is part of the loss."""
        return self.kind in _CLUSTERING

    def instances_at(self, tiling: str) -> int:
        """Return the number of tiles on either side of the instance clustering at a tiling."""
        return self.instances[tiling] if isinstance(self.instances, dict) else self.instances
