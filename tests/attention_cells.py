"""How well attention finds parasitised cells, whose labels were not shown in training: the AUC over cells, clustered by patient.

    python tests/attention_cells.py --results results/malaria_slides --cells data/malaria_slides/nih/cells.csv --out DIR
        [--index-test gated-cells]

Asks ``slides.attention`` for what each cell of the tested patients was attended to, writes it as a prediction table, and lets
``statistics.accuracy`` measure it. The score of a cell is its attention relative to that of the others of its patient, as a
rank over all cells: a prediction table wants numbers from 0 to 1, and an AUC reads ranks alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from marrowflow.files import write_table
from marrowflow.slides import attention
from marrowflow.statistics import accuracy

SCORES = ("relative", "evidence")


def cell_predictions(table: pd.DataFrame, cells: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return a prediction table of cells from a table of attention and the cells' own labels."""
    known = cells.assign(case_id="nih/" + cells["image"])
    both = table.merge(known, on=["case_id", "x", "y"], validate="one_to_one")
    rank = (both[score].rank(method="average") - 0.5) / len(both)
    return pd.DataFrame(
        {
            "case_id": both["case_id"] + "#" + both["x"].astype(str) + "_" + both["y"].astype(str),
            "patient_id": both["case_id"],
            "truth": both["parasitised"].map({True: "parasitised", False: "uninfected"}),
            "p_uninfected": 1 - rank,
            "p_parasitised": rank,
            "attention": both["share"],
        }
    )


def attention_of(results: Path, index_test: str, name: str, out: Path) -> pd.DataFrame:
    """Return the attention of all tested tiles in a class's branch, by the networks of a finished study."""
    model, _, tiling = index_test.partition("-")
    folder = results / "training/sound" / model / tiling
    card = json.loads((folder / "0/card.json").read_text())
    options = {"classes": card["classes"], "training": card["options"]["training"]}
    folds = [str(path) for path in sorted(folder.iterdir())]
    path = out / "attention.parquet"
    attention.main(
        [
            *("--options", json.dumps(options), "--class", name, "--models", *folds),
            *("--folds", str(results / "splits/sound/folds.parquet")),
            *("--bags", str(results / f"bags/nih/{tiling}/bags.parquet")),
            *("--features", str(results / "features"), "--out", str(path)),
        ]
    )
    return pd.read_parquet(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--index-test", default="gated-cells")
    parser.add_argument("--class", dest="name", default="infected")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    table, cells = attention_of(args.results, args.index_test, args.name, args.out), pd.read_csv(args.cells)
    for score in SCORES:
        predictions = args.out / f"cells_{score}.parquet"
        write_table(predictions, cell_predictions(table, cells, score))
        folder = args.out / score
        accuracy.main(
            [
                *("--predictions", str(predictions), "--unit", "case", "--positive", "parasitised"),
                *("--options", "{}", "--out", str(folder)),
            ]
        )
        metrics = pd.read_csv(folder / "metrics.csv")
        auc = metrics[(metrics["metric"] == "auc") & metrics["primary"]].iloc[0]
        print(
            f"{args.index_test}, {score}: AUC {auc['estimate']:.3f} ({auc['low']:.3f} to {auc['high']:.3f}), "
            f"{int(auc['n_cases']):,} cells of {int(auc['n_patients'])} patients"
        )


if __name__ == "__main__":
    main()
