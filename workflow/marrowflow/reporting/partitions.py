"""How development patients were divided, and what the leakage gate found before any training."""

from __future__ import annotations

from marrowflow.reporting import page, tables
from marrowflow.reporting.reporter import Reporter, missing
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, read_csv, read_json

PROTOCOLS = {
    "sound": "patients and near-duplicate clusters are never divided",
    "as_published": "divided by image as published",
}
"""What each protocol does, in words."""


def partition_blocks(reporter: Reporter, test: IndexTest) -> list[page.Block]:
    """Print the sizes of all folds, and what the gate found."""
    path = reporter.results.split_path(test.protocol, "counts.csv")
    counts = read_csv(path)
    blocks: list[page.Block] = []
    if counts is None:
        blocks.append(missing(path, reporter.results))
    else:
        noun = reporter.noun(DEVELOPMENT)
        title = f"{noun.capitalize()} and images by fold ({PROTOCOLS[test.protocol]})"
        blocks.append(
            tables.counts_table(
                counts, reporter.options.classes, title, reporter.sources(path), test.leaky, noun
            )
        )
    return [*blocks, *_gate_blocks(reporter, test)]


def _gate_blocks(reporter: Reporter, test: IndexTest) -> list[page.Block]:
    """State what the leakage gate found before training, in words; fold by fold where something leaked."""
    path = reporter.results.split_path(test.protocol, "gate.json")
    gate = read_json(path)
    if gate is None:
        return [missing(path, reporter.results)]
    leaks: dict[str, int] = gate.get("leaks", {})
    noun = reporter.noun(DEVELOPMENT)
    named = {"patients": noun, "parents": "images with copies"}
    kinds = {kind: named.get(kind, kind.replace("_", " ")) for kind in leaks}
    found = ", ".join(f"{n} {kinds[kind]}" for kind, n in leaks.items()) or tables.MISSING
    statement = (
        f"Leakage gate, before any training: on two sides of a fold stood {found} "
        f"(of {gate.get('n_patients', tables.MISSING)} {noun} and {gate.get('n_cases', tables.MISSING)} images; "
        f"near duplicates differ in at most {gate.get('distance', tables.MISSING)} of 64 bits)."
    )
    leaked = any(leaks.values())
    blocks: list[page.Block] = [
        page.Text([statement], "warning" if leaked else "note", reporter.sources(path))
    ]
    if leaked:
        rows = [
            [str(f["fold"]), str(f["n_test_cases"]), *(f"{f[k]['n']} ({f[k]['test_cases']})" for k in leaks)]
            for f in gate["folds"]
        ]
        header = ["fold", "test images", *kinds.values()]
        notes = ["Cells: how many stand on two sides (test images with a like in training or validation)."]
        title = "What leaks, by fold"
        blocks.append(
            tables.Table(
                title, header, rows, range(1, len(header)), notes, reporter.sources(path), test.leaky
            )
        )
    return blocks
