"""The settings that ran, as they were configured."""

from __future__ import annotations

from marrowflow.config import AsPublished, ColourRecipe, Splits
from marrowflow.reporting import page, tables
from marrowflow.reporting.methods import interval_section
from marrowflow.reporting.reporter import Reporter
from marrowflow.reporting.results import IndexTest
from marrowflow.reporting.study_options import Options
from marrowflow.reporting.weights import weights_of
from marrowflow.study_slides import Tiling


def settings_section(reporter: Reporter, options: Options, noun: str) -> page.Section:
    """Return networks, ensembles, split, colour, choices, and how intervals were made; `noun` is what stands for patients."""
    value = "" if options.threshold.value is None else f", value {options.threshold.value:g}"
    published = options.splits.as_published if "as_published" in options.protocols else None
    facts = {
        "Split": f"{split_words(options.splits)}, seed {options.splits.seed}",
        **({"Split as published": split_words(published)} if published else {}),
        **_seen(options),
        "Calibration": options.calibration.method,
        "Threshold": f"{options.threshold.rule}{value}",
        "Units of analysis": ", ".join(options.units),
    }
    blocks: list[page.Block] = [_networks(reporter, options)]
    if options.members:
        rows = [[name, ", ".join(models)] for name, models in options.members.items()]
        title = "Ensembles: index tests that are the mean of the probabilities of several networks"
        blocks.append(tables.Table(title, ["ensemble", "members"], rows))
    return page.Section(
        "Settings", "settings", [*blocks, page.Facts(facts)], [interval_section(options, noun)]
    )


def _seen(options: Options) -> dict[str, str]:
    """Return how the networks saw the cases: by recipes of colour, or as tiles of whole slides."""
    if options.slides is None:
        recipes = "; ".join(f"{name}: {_recipe(recipe)}" for name, recipe in options.colour.items())
        return {"Augmentation": options.augmentation.plan, "Colour": recipes}
    slides, seen = options.slides, options.slides.extractor
    tissue = slides.tissue
    found = (
        "the whole slide"
        if tissue.method == "all"
        else f"Otsu's threshold on {tissue.method} at 1/{tissue.downsample:g} of the slide's size"
    )
    cut = "" if seen.stage is None else f", cut after stage {seen.stage}"
    return {
        "Tissue": found,
        "Tilings": "; ".join(f"{name}: {tiling_words(tiling)}" for name, tiling in slides.tilings.items()),
        "Regions": {
            "training": "trained on within them where a slide has one, answered for whole",
            "always": "looked at within them alone where a slide has one",
            "never": "not used",
        }[slides.regions],
        "Extractor": f"{seen.network}{cut}",
    }


def tiling_words(tiling: Tiling) -> str:
    """Return a tiling as ``256 px tiles at 0.25 µm a pixel (40×), at least 25 % tissue``."""
    overlap = f", overlapping by {tiling.overlap:.0%}" if tiling.overlap else ""
    return (
        f"{tiling.size} px tiles at {tiling.resolution:.3g} µm a pixel ({tiling.magnification:g}×){overlap}, at least "
        f"{tiling.min_tissue:.0%} tissue"
    )


def _recipe(recipe: ColourRecipe) -> str:
    """Return what a colour recipe does, and what is cut out before it."""
    return recipe.method if recipe.crop == "none" else f"{recipe.crop} crop, then {recipe.method}"


def split_words(rule: Splits | AsPublished) -> str:
    """Return a rule of division with the numbers and shares that it uses, and what it divides where that is no patient."""
    folds = {"kfold": f"{rule.folds} folds", "monte_carlo": f"{rule.folds} repeats"}.get(rule.scheme)
    test = f"test share {rule.test:g}" if rule.scheme in ("monte_carlo", "holdout") else None
    parts = [rule.scheme, folds, test, f"validation share {rule.validation:g}"]
    if isinstance(rule, AsPublished):
        if rule.scheme == "column":
            parts = [f"column {rule.column}", f"{parts[-1]} where it names no validation"]
        divided = "augmented images, copies of one image on both sides (augmented: true)"
        parts.append(f"divides {divided if rule.augmented else 'images'}")
    return ", ".join(part for part in parts if part)


def _networks(reporter: Reporter, options: Options) -> tables.Table:
    rows = []
    for name, model in options.networks.items():
        colours = model.colours or list(options.colour)
        training = model.training
        rows.append(
            [
                name,
                model.network,
                model.mode,
                str(weights_of(reporter, IndexTest(options.protocols[0], f"{name}-{colours[0]}"))),
                ", ".join(colours),
                f"{training.optimiser}, rate {training.rate:g}, {training.schedule}",
                f"{training.epochs} / {training.batch_size}",
                "none" if training.patience is None else str(training.patience),
            ]
        )
    header = [
        "model",
        "network",
        "mode",
        "start weights (licence)",
        "colour",
        "optimiser",
        "epochs / batch",
        "patience",
    ]
    return tables.Table("Networks", header, rows)
