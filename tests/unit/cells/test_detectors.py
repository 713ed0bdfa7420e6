"""Detectors against torchvision's own, and what is refused."""

import pytest
import torch
from pydantic import ValidationError
from torchvision.models.detection import retinanet_resnet50_fpn

from marrowflow.cells.detectors import Detector, build

SMALL = {"input_size": (128, 160)}


def test_retinanet_is_torchvisions():
    """With its weights ours finds the same boxes."""
    theirs = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=128, max_size=160, detections_per_img=300
    ).eval()
    ours = build(Detector(**SMALL, anchors=[32, 64, 128, 256, 512]), 3, 0).eval()
    ours.load_state_dict(theirs.state_dict())
    # torchvision rounds its anchors' sizes down to whole pixels.
    ours.anchor_generator.cell_anchors = theirs.anchor_generator.cell_anchors
    # A head that has not learnt says .01 everywhere: let it say something.
    for model in (theirs, ours):
        model.score_thresh = 0.0
    image = torch.rand(3, 120, 150, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = theirs([image])[0], ours([image])[0]
    assert len(found["boxes"]) > 0
    torch.testing.assert_close(found["boxes"], expected["boxes"])
    torch.testing.assert_close(found["scores"], expected["scores"])


@pytest.mark.parametrize(
    "settings",
    [
        {"network": "retinanet_resnet50_fpn", **SMALL},
        {"network": "retinanet_vgg16_fpn", **SMALL, "ratios": [1.0]},
        {"network": "ssd300_vgg16"},
        {"network": "ssdlite320_mobilenet_v3"},
    ],
)
def test_every_detector_has_losses_and_answers(settings):
    model = build(Detector(**settings), 2, 0)
    images = [torch.rand(3, 100, 140, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    targets = [
        {"boxes": torch.tensor([[10.0, 10, 50, 60]]), "labels": torch.tensor([2])},
        # An image without a cell teaches too.
        {"boxes": torch.zeros((0, 4)), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    losses = model.train()(images, targets)
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert total > 0
    with torch.no_grad():
        answers = model.eval()(images)
    assert len(answers) == 2
    assert set(answers[0]) == {"boxes", "scores", "labels"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": "ssd300_vgg16"},
        {"network": "ssdlite320_mobilenet_v3"},
        {"anchors": [8, 16, 32, 64, 128]},
    ],
)
def test_settings_survive_being_written_down(settings):
    """The configuration that a run records names every key."""
    one = Detector(**settings)
    assert Detector.model_validate(one.model_dump(mode="json")) == one


def test_the_levels_of_vgg_have_the_strides_of_resnet():
    for network in ("retinanet_resnet50_fpn", "retinanet_vgg16_fpn"):
        maps = build(Detector(network=network), 1, 0).backbone(torch.zeros(1, 3, 256, 256))
        assert [tuple(m.shape) for m in maps.values()] == [(1, 256, s, s) for s in (32, 16, 8, 4, 2)]


def test_the_same_seed_gives_the_same_weights():
    one, same, other = (build(Detector(**SMALL), 2, seed).state_dict() for seed in (1, 1, 2))
    name = "head.classification_head.conv.0.0.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"input_size": (900, 800)}, "the shorter at least 64"),
        ({"anchors": [1, 2, 3, 4, 0]}, "larger than 0"),
        ({"network": "ssd300_vgg16", "ratios": [1.0]}, "of its own"),
        ({"network": "yolo"}, "retinanet_resnet50_fpn"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, told):
    with pytest.raises(ValidationError, match=told):
        Detector(**settings)
