"""What the study's report is told of the configuration."""

from __future__ import annotations

from pydantic import Field

from marrowflow.config import (
    Augmentation,
    Calibration,
    ColourRecipe,
    Ensemble,
    Grid,
    Identifier,
    Images,
    Intake,
    PublishedValue,
    Splits,
    Threshold,
    Training,
)
from marrowflow.reporting.reporter import CommonOptions


class Options(CommonOptions):
    """What the study's report depends on; some of its sections only to print values that are marked as assumed."""

    splits: Splits = Splits()
    training: Training = Training()
    colour: dict[Identifier, ColourRecipe] = Field(default_factory=dict)
    threshold: Threshold = Threshold()
    calibration: Calibration = Calibration()
    augmentation: Augmentation = Augmentation()
    published: list[PublishedValue] = Field(default_factory=list)
    assumed: dict[str, str] = Field(default_factory=dict)
    intake: Intake = Intake()
    images: Images = Images()
    grid: Grid | None = None
    ensembles: dict[Identifier, Ensemble] = Field(default_factory=dict)
    label_map: str | None = None
