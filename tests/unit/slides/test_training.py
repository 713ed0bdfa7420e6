"""Aggregators trained on bags whose answer is known: what they learn, what resumes, what they answer, what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax

from marrowflow.config import Training
from marrowflow.errors import UserError
from marrowflow.learning import loop
from marrowflow.learning.batches import shuffled
from marrowflow.learning.outcomes import Outcomes
from marrowflow.slides.aggregators import BagNetwork
from marrowflow.slides.answers import answers, load_aggregators, marked
from marrowflow.slides.bags import COLUMNS, Bags, as_bits, write_entry
from marrowflow.slides.predict import Options as Asked
from marrowflow.slides.predict import predict_development
from marrowflow.slides.samples import BagCriterion, BagSamples, BagTrainee, Batch, ClusteringCriterion
from marrowflow.slides.train import Options, train_fold
from marrowflow.study_slides import Aggregation

CLASSES = ["a", "b"]
F = 12
RECIPE = {"network": "made", "stage": None, "input_size": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}
CPU = torch.device("cpu")


def options(kind="clam_mb", within=False, **training):
    return Options(
        aggregation=Aggregation(kind=kind, hidden=16, width=8, dropout=0.0),
        training=Training(
            **{"epochs": 25, "batch_size": 1, "rate": 0.005, "schedule": "constant", "threads": 1} | training
        ),
        instances=2,
        within=within,
        classes=CLASSES,
    )


@pytest.fixture
def made(tmp_path):
    """Sixteen slides; of class b one tile in five carries a mark. One slide has no tile, one has one."""
    chance, rows = np.random.default_rng(0), []
    folds = []
    for i in range(16):
        label, case = CLASSES[i % 2], f"h/s{i}"
        n = {0: 0, 1: 1}.get(i, int(chance.integers(10, 30)))
        features = chance.normal(0, 0.3, (n, F))
        region = np.zeros(n, np.float32)
        if label == "b" and n:
            marked_tiles = chance.random(n) < 0.2
            marked_tiles[0] = True
            features[marked_tiles, 3] += 3
            region[marked_tiles] = 1
        region[: max(1, n // 2)] = 1
        entry = f"made-000000000000/{i:016d}"
        if n:
            tiles = pd.DataFrame({"x": np.arange(n) * 10, "y": np.zeros(n, int)})
            about = {"extractor": RECIPE, "weights": {"source": "made", "sha256": "", "licence": ""}}
            write_entry(tmp_path / "features" / entry, features.astype(np.float16), tiles, about)
            found = json.loads((tmp_path / "features" / entry / "about.json").read_text())
            inside = as_bits(region > 0)
            rows.append((case, n, "", entry, found["features_sha256"], found["tiles_sha256"], inside))
        else:
            rows.append((case, 0, "no tissue", "", "", "", b""))
        side = ["train", "train", "validation", "test"][i // 2 % 4]
        folds.append(
            {"fold": 0, "case_id": case, "patient_id": case, "cohort": "h", "label": label, "partition": side}
        )
    pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(tmp_path / "bags.parquet")
    pd.DataFrame(folds).to_parquet(tmp_path / "folds.parquet")
    return tmp_path


def trained(made, out, chosen=None, state="state"):
    train_fold(
        chosen or options(),
        0,
        made / "folds.parquet",
        [made / "bags.parquet"],
        made / "features",
        made / state,
        made / out,
    )
    return made / out


def bags_of(made):
    return Bags([made / "bags.parquet"], made / "features")


@pytest.mark.parametrize("kind", ["wang2022", "clam_mb", "clam_sb", "gated", "max"])
def test_it_learns_what_one_tile_in_five_shows(made, kind):
    folder, bags = trained(made, "out", options(kind)), bags_of(made)
    networks = load_aggregators([folder], CLASSES, bags, CPU)
    cases = [f"h/s{i}" for i in range(2, 16)]
    given = answers(networks, bags, cases, CPU)
    right = given.to_numpy().argmax(axis=1) == [i % 2 for i in range(2, 16)]
    assert right.mean() >= 13 / 14
    if kind != "max":
        answer = networks[0].network(torch.from_numpy(bags.of("h/s3").features.astype(np.float32)))
        attended = networks[0].network.tile_scores(answer, len(answer.attention) - 1).detach().numpy()
        shows = bags.of("h/s3").features[:, 3] > 1.5
        assert attended[shows].mean() > attended[~shows].mean()


def test_the_same_seed_gives_the_same_bytes_resumed_or_not(made, monkeypatch):
    whole = trained(made, "one", options(dropout=0.0))
    real, epochs = loop._Run.epoch, []

    def breaks(run):
        if len(epochs) == 4:
            raise KeyboardInterrupt
        epochs.append(run)
        real(run)

    monkeypatch.setattr(loop._Run, "epoch", breaks)
    with pytest.raises(KeyboardInterrupt):
        trained(made, "two")
    monkeypatch.undo()
    again = trained(made, "two")
    for name in ("model.safetensors", "history.csv", "card.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert json.loads((again / "cost.json").read_text())["resumed"] == 1
    assert not (made / "state").exists()


def test_only_tiles_within_a_region_are_trained_on(made):
    bags = bags_of(made)
    whole, part = (BagSamples(bags, ["h/s4"], np.array([0]), CPU, within) for within in (False, True))
    (((one,), _), _), (((other,), _), _) = (
        next(whole.batches([np.array([0])])),
        next(part.batches([np.array([0])])),
    )
    # The fixture's region: the first half. (Slide 4 is of class a, and carries no mark.)
    assert len(one) == len(bags.of("h/s4"))
    torch.testing.assert_close(other, one[: max(1, len(one) // 2)])


def test_a_card_counts_the_tiles_that_were_trained_on(made):
    whole, part = (
        json.loads((trained(made, name, options(within=within, epochs=1), name) / "card.json").read_text())
        for name, within in (("whole", False), ("part", True))
    )
    bags = bags_of(made)
    folds = pd.read_parquet(made / "folds.parquet")
    used = [case for case in folds.loc[folds["partition"] == "train", "case_id"] if case != "h/s0"]
    assert whole["tiles"]["train"]["all"] == sum(len(bags.of(case)) for case in used)
    # By the fixture: half of each, and of class b the marked ones beyond that too.
    marked_beyond = sum(
        int((bags.of(case).features[len(bags.of(case)) // 2 :, 3] > 1.5).sum())
        for case in used
        if len(bags.of(case)) > 1
    )
    halves = sum(max(1, len(bags.of(case)) // 2) for case in used)
    assert part["tiles"]["train"]["all"] == halves + marked_beyond
    assert part["tiles"]["test"] == whole["tiles"]["test"]


def test_a_class_whose_slides_have_no_tile_is_told_of(made, caplog):
    table = pd.read_parquet(made / "bags.parquet")
    of_b = table["case_id"].isin([f"h/s{i}" for i in range(1, 16, 2)])
    table.loc[of_b, ["tiles", "reason"]] = [0, "no tissue"]
    table.to_parquet(made / "bags.parquet")
    trained(made, "out", options(epochs=1))
    assert "none of the training slides of class b has a tile" in caplog.text


@pytest.mark.parametrize("weights", ["balanced", {"a": 3.0}])
def test_a_classs_weight_counts_in_steps_of_one_bag(weights):
    """Against torch's own weighted cross-entropy: a step's gradient is the weight times that of the plain loss."""
    targets = torch.tensor([0, 0, 0, 1])
    own = {"balanced": torch.tensor([4 / 6, 4 / 2]), "a": torch.tensor([3.0, 1.0])}
    expected = own["balanced" if weights == "balanced" else "a"]
    expected = expected / expected[targets].mean()
    criterion = BagCriterion(Outcomes(CLASSES), targets, Training(class_weights=weights))
    logits = torch.randn(1, 2, generator=torch.Generator().manual_seed(0))
    for number in (0, 1):
        truth = torch.tensor([number])
        found = criterion.combined(criterion.sums(logits, truth), criterion.totals(truth))
        plain = torch.nn.functional.cross_entropy(logits, truth)
        assert float(found) == pytest.approx(float(expected[number] * plain))


def test_one_bag_a_step_is_one_bag_in_every_step():
    assert [len(chunk) for chunk in shuffled(7, 1, (0, 0, 1))] == [1] * 7


def test_the_loss_is_the_weighted_sum_of_both():
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    criterion = ClusteringCriterion(Outcomes(CLASSES), targets, Training(), 0.7)
    found = criterion.combined(criterion.sums(logits, targets), criterion.totals(targets))
    own = -log_softmax(logits[:, :2].numpy(), axis=1)[np.arange(5), targets].mean()
    assert float(found) == pytest.approx(0.7 * own + 0.3 * float(logits[:, 2].mean()))
    assert int(criterion.right(logits, targets)) == int((logits[:, :2].argmax(1) == targets).sum())


def test_a_trainee_shows_the_clustering_while_it_trains_only():
    network = BagNetwork(Aggregation(kind="clam_sb", hidden=8, width=4, dropout=0.0), F, 2)
    batch = Batch(([torch.randn(6, F), torch.randn(1, F)], torch.tensor([0, 1])))
    trainee = BagTrainee(network, 2)
    out = trainee.train()(batch)
    assert out.shape == (2, 3)
    assert out[0, 2] > 0
    assert out[1, 2] == 0  # a bag of one tile
    assert trainee.eval()(batch).shape == (2, 2)
    halves = batch.tensor_split(2)
    torch.testing.assert_close(torch.cat([trainee(half) for half in halves]), trainee(batch))


def test_a_slide_without_tiles_is_not_done(made):
    folder, bags = trained(made, "out", options(epochs=1)), bags_of(made)
    folds = pd.read_parquet(made / "folds.parquet")
    folds["partition"] = folds["partition"].replace({"train": "test"})
    inventory = folds.assign(status="included", reference_status="ok", patient_source="manifest")
    asked = Asked(training=options().training, classes=CLASSES)
    table = predict_development(asked, [folder], folds, inventory, bags, "paper-x10").set_index("case_id")
    assert table.loc["h/s0", ["status", "reason", "predicted"]].tolist() == ["not_done", "no tissue", ""]
    assert table.loc["h/s0", ["p_a", "p_b"]].isna().all()
    rest = table.drop("h/s0")
    assert (rest["status"] == "ok").all()
    assert rest[["p_a", "p_b"]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert marked(table.reset_index(), bags)["status"].eq("not_done").sum() == 1


def test_what_does_not_belong_together_is_refused(made):
    folder, bags = trained(made, "out", options(epochs=1)), bags_of(made)
    with pytest.raises(UserError, match="answers with"):
        load_aggregators([folder], ["a", "c"], bags, CPU)
    with pytest.raises(UserError, match=r"folds \[0, 0\]"):
        load_aggregators([folder, folder], CLASSES, bags, CPU)
    with pytest.raises(UserError, match="no given table of bags holds"):
        bags.counts(["h/none"])
