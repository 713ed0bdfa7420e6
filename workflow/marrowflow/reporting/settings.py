"""The settings that ran, as they were configured."""

from __future__ import annotations

from marrowflow.reporting import page, tables
from marrowflow.reporting.methods import interval_section
from marrowflow.reporting.reporter import Reporter
from marrowflow.reporting.results import IndexTest
from marrowflow.reporting.study_options import Options
from marrowflow.reporting.weights import weights_of


def settings_section(reporter: Reporter, options: Options, noun: str) -> page.Section:
    """Return networks, ensembles, split, colour, choices, and how intervals were made; `noun` is what stands for patients."""
    value = "" if options.threshold.value is None else f", value {options.threshold.value:g}"
    splits = options.splits
    facts = {
        "Split": f"{splits.scheme}, {splits.folds} folds, validation share {splits.validation:g}, seed {splits.seed}",
        "Augmentation": options.augmentation.plan,
        "Colour": "; ".join(f"{name}: {recipe.method}" for name, recipe in options.colour.items()),
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


def _networks(reporter: Reporter, options: Options) -> tables.Table:
    rows = []
    for name, model in options.models.items():
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
