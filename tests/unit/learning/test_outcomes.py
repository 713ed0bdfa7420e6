"""Losses, weights and answers against torch's own functions, scikit-learn's and numpy's."""

import numpy as np
import pytest
import torch
from little_samples import CLASSES
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from marrowflow.config import Head, Training
from marrowflow.learning.outcomes import Outcomes

N = 24
HEADS = {"mds": Head(weight=0.1, positive=["MDS"]), "diagnosis": Head(weight=0.9)}
MALIGNANT = {"zz_malignant": Head(weight=2, positive=["AML", "MDS"]), "diagnosis": Head(weight=1)}


def one_network(name: str) -> Outcomes:
    """Return the outcome of the network of one-vs-rest that tells a class from the rest."""
    return Outcomes(CLASSES, "one_vs_rest").networks()[CLASSES.index(name)]


@pytest.fixture(scope="module")
def targets() -> torch.Tensor:
    return torch.tensor([0] * 14 + [1] * 7 + [2] * 3)


def random_logits(width: int) -> torch.Tensor:
    return torch.randn(N, width, generator=torch.Generator().manual_seed(width))


def loss(outcomes: Outcomes, logits: torch.Tensor, targets: torch.Tensor, **training: object) -> float:
    criterion = outcomes.criterion(targets, Training(**training))  # type: ignore[arg-type]
    return float(criterion.combined(criterion.sums(logits, targets), criterion.totals(targets)))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("rule", ["none", "balanced", {"AML": 5.0, "healthy": 0.5}])
def test_classes_told_apart_have_torchs_cross_entropy(
    targets: torch.Tensor, rule: object, smoothing: float
) -> None:
    weights = {"none": [1, 1, 1], "balanced": [N / 3 / 14, N / 3 / 7, N / 3 / 3]}
    by_hand = torch.tensor([0.5, 1, 5] if isinstance(rule, dict) else weights[str(rule)], dtype=torch.float32)
    logits = random_logits(3)
    expected = cross_entropy(logits, targets, by_hand, label_smoothing=smoothing)
    ours = loss(Outcomes(CLASSES), logits, targets, class_weights=rule, label_smoothing=smoothing)
    assert ours == pytest.approx(float(expected), rel=1e-6)


def test_balanced_weights_are_scikit_learns(targets: torch.Tensor) -> None:
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=targets.numpy())
    ours = Outcomes(CLASSES).class_weights(targets, "balanced")
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    is_aml = (targets == 2).numpy()
    rest, aml = compute_class_weight("balanced", classes=np.array([False, True]), y=is_aml)
    ours = one_network("AML").class_weights(targets, "balanced")
    np.testing.assert_allclose(ours, [rest, rest, aml], rtol=1e-6)


def test_a_class_without_training_images_weighs_one() -> None:
    # 8 images, 2 classes present: 8 / (2 × 6) and 8 / (2 × 2).
    targets = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    assert Outcomes(CLASSES).class_weights(targets, "balanced").tolist() == pytest.approx([2 / 3, 2, 1])


@pytest.mark.parametrize("rule", ["none", "balanced", {"AML": 5.0, "healthy": 0.5}])
def test_one_class_against_the_rest_has_torchs_binary_cross_entropy(
    targets: torch.Tensor, rule: object
) -> None:
    # 7 of 24 are MDS. Weights by hand are those of the image's class.
    by_class = {"none": [1, 1, 1], "balanced": [N / 2 / 17, N / 2 / 7, N / 2 / 17]}
    chosen = [0.5, 1, 5] if isinstance(rule, dict) else by_class[str(rule)]
    weights = torch.tensor(chosen, dtype=torch.float32)[targets]
    logits = random_logits(1)
    wanted = (targets == 1).float()
    summed = binary_cross_entropy_with_logits(logits[:, 0], wanted, weights, reduction="sum")
    ours = loss(one_network("MDS"), logits, targets, class_weights=rule)
    assert ours == pytest.approx(float(summed / weights.sum()), rel=1e-6)


def test_smoothing_one_class_against_the_rest_is_that_of_two_classes(targets: torch.Tensor) -> None:
    logits = random_logits(1)
    two = torch.cat([torch.zeros(N, 1), logits], dim=1)  # softmax of (0, z) is sigmoid of z
    expected = cross_entropy(two, (targets == 2).long(), label_smoothing=0.3)
    ours = loss(one_network("AML"), logits, targets, label_smoothing=0.3)
    assert ours == pytest.approx(float(expected), rel=1e-6)


def test_two_heads_add_up_by_weight_and_only_the_diagnosis_is_weighted_and_smoothed(
    targets: torch.Tensor,
) -> None:
    logits = random_logits(4)  # heads by name: diagnosis (3), mds (1)
    class_weights = torch.tensor([1.0, 1.0, 4.0])
    expected = 0.9 * cross_entropy(logits[:, :3], targets, class_weights, label_smoothing=0.1)
    expected = expected + 0.1 * binary_cross_entropy_with_logits(logits[:, 3], (targets == 1).float())
    ours = loss(
        Outcomes(CLASSES, heads=HEADS), logits, targets, class_weights={"AML": 4.0}, label_smoothing=0.1
    )
    assert ours == pytest.approx(float(expected), rel=1e-6)


def test_an_endpoint_of_several_classes(targets: torch.Tensor) -> None:
    outcomes = Outcomes(CLASSES, heads={**MALIGNANT, "aml": Head(weight=3, positive=["AML"])})
    assert outcomes.outputs == 5
    logits = random_logits(5)  # aml, diagnosis (3), zz_malignant
    expected = (
        3 * binary_cross_entropy_with_logits(logits[:, 0], (targets == 2).float())
        + cross_entropy(logits[:, 1:4], targets)
        + 2 * binary_cross_entropy_with_logits(logits[:, 4], (targets > 0).float())
    )
    assert loss(outcomes, logits, targets) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    "outcomes",
    [Outcomes(CLASSES), Outcomes(CLASSES, heads=HEADS), one_network("MDS")],
    ids=["softmax", "heads", "against_rest"],
)
def test_sums_of_parts_have_the_gradient_of_the_whole(targets: torch.Tensor, outcomes: Outcomes) -> None:
    training = Training(class_weights="balanced", label_smoothing=0.1)
    criterion = outcomes.criterion(targets, training)
    whole = random_logits(outcomes.outputs).requires_grad_()
    totals = criterion.totals(targets)
    criterion.combined(criterion.sums(whole, targets), totals).backward()
    parts = random_logits(outcomes.outputs).requires_grad_()
    for rows in (slice(0, 5), slice(5, 16), slice(16, N)):
        criterion.combined(criterion.sums(parts[rows], targets[rows]), totals).backward()
    assert whole.grad is not None
    torch.testing.assert_close(parts.grad, whole.grad)


def test_answers_are_softmax_and_sigmoid(targets: torch.Tensor) -> None:
    logits = random_logits(4)
    z = logits.numpy().astype(np.float64)
    softmax = np.exp(z[:, :3]) / np.exp(z[:, :3]).sum(axis=1, keepdims=True)
    classes, endpoints = Outcomes(CLASSES, heads=HEADS).answers(logits)
    np.testing.assert_allclose(classes, softmax, rtol=1e-12)
    np.testing.assert_allclose(endpoints["mds"], 1 / (1 + np.exp(-z[:, 3])), rtol=1e-12)
    assert list(endpoints) == ["mds"]
    assert classes.dtype == endpoints["mds"].dtype == np.float64

    classes, endpoints = Outcomes(CLASSES).answers(logits[:, :3].bfloat16())
    np.testing.assert_allclose(classes, softmax, atol=0.02)
    np.testing.assert_allclose(classes.sum(axis=1), 1, rtol=1e-12)
    assert endpoints == {}

    classes, _ = Outcomes(CLASSES, "one_vs_rest").answers(logits[:, :3])
    np.testing.assert_allclose(classes, 1 / (1 + np.exp(-z[:, :3])), rtol=1e-12)


def test_one_vs_rest_is_a_network_a_class() -> None:
    together = Outcomes(CLASSES, "one_vs_rest")
    assert together.outputs == 3
    asked = together.networks()
    assert [network.positive_class for network in asked] == CLASSES
    assert [network.outputs for network in asked] == [1, 1, 1]
    assert asked[1] == Outcomes(CLASSES, "one_vs_rest", positive_class="MDS")
    assert asked[1].groups(torch.tensor([0, 1, 2, 1])).tolist() == [0, 1, 0, 1]
    heads = Outcomes(CLASSES, heads=HEADS)
    assert heads.networks() == [heads]


def test_right_answers_are_counted_on_the_diagnosis() -> None:
    targets = torch.tensor([0, 1, 2])
    logits = torch.tensor([[2.0, 1, 0, -9], [2, 1, 0, 9], [0, 1, 2, 9]])
    assert int(Outcomes(CLASSES, heads=HEADS).criterion(targets, Training()).right(logits, targets)) == 2
    yes_no = one_network("MDS").criterion(targets, Training())
    assert int(yes_no.right(torch.tensor([[-1.0], [1.0], [3.0]]), targets)) == 2
