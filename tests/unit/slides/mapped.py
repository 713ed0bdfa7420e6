"""A map of attention of one slide by one aggregator of random weights, drawn as the step draws it."""

from pathlib import Path

import pandas as pd
import torch

from marrowflow.learning.outcomes import Outcomes
from marrowflow.slides import explain
from marrowflow.slides.aggregators import BagNetwork
from marrowflow.slides.answers import Trained
from marrowflow.slides.extract import Seer
from marrowflow.study_slides import Aggregation, Extractor, Tiling

CLASSES = ["a", "b"]


def aggregator(features: int, seed: int = 7) -> BagNetwork:
    """Return gated attention with random weights."""
    torch.manual_seed(seed)
    return BagNetwork(Aggregation(kind="gated"), features, len(CLASSES)).eval()


def map_of(
    folder: Path,
    inventory: pd.DataFrame,
    case: str,
    tiling: Tiling,
    extractor: Extractor,
    sees: Seer,
    network: BagNetwork,
    out: Path,
    within: bool = False,
) -> pd.Series:
    """Return the slide's row of cases.csv; ``folder`` holds its pictures and tissue.csv as ``slides.survey`` wrote them."""
    known = inventory.set_index("case_id")
    where = pd.read_csv(folder / "tissue.csv").set_index("case_id")
    where[["bytes", "sha256"]] = known.loc[where.index, ["bytes", "sha256"]]
    images = folder / "images" if (folder / "images").is_dir() else folder
    where["path"] = [str(images / known["image"][name]) for name in where.index]
    where["pictures"] = str(folder / "pictures")
    shown = pd.DataFrame(
        [{"case_id": case, "image": case, "kind": "error", "truth": "a", "predicted": "b", "confidence": 0.6}]
    ).assign(reason="", fold=0)
    asked = explain.Options(
        classes=CLASSES,
        endpoints={"b": {"positive": ["b"]}},
        units=["patient"],
        members={},
        errors_shown=4,
        tilings={"one": tiling},
        extractor=extractor,
        map_overlap=0.5,
    )
    folds = pd.DataFrame({"fold": [0], "case_id": [case], "partition": ["test"]})
    trained = Trained(network, 0, Outcomes(CLASSES), {})
    return explain.explain(asked, tiling, shown, [trained], folds, where, sees, within, out).iloc[0]
