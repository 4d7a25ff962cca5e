import pytest
import torch
from torch import nn

from boxless.backbones import Backbone
from boxless.config import Config, FastRCNNConfig, FCOSConfig, LocalizerConfig, MILConfig, resolve
from boxless.errors import BoxlessError
from boxless.features import Batch, Item, Targets, collate
from boxless.methods import FCOS, PRESETS, Localizer, Model, build_model, preset
from boxless.methods.presets import DEFAULT_METHOD

CLASSES = 4


def network() -> Backbone:
    """A random backbone of two stages with a stride of 16."""
    torch.manual_seed(0)
    stages = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=16, padding=1), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1))
    )
    return Backbone(stages.eval(), 6, 16, (0.5,) * 3, (0.5,) * 3, "random", "none", levels=(0,))


def build(name: str, freeze: str | int = "all") -> tuple[Model, nn.Sequential]:
    """The model of a preset, and the stages that are frozen."""
    backbone, config = network(), resolve(preset(name))
    frozen, tail = backbone.split(freeze)
    if config.hypercolumns:
        frozen = backbone.hypercolumns()
    return build_model(config, backbone, tail, CLASSES), frozen


def batch(frozen: nn.Sequential) -> Batch:
    """Two views of 96 x 64 and 70 x 100 with proposals, boxes and tags, one of them unsure."""
    torch.manual_seed(1)
    items = []
    for width, height in ((96, 64), (70, 100)):
        with torch.no_grad():
            features = frozen(torch.randn(1, 3, height, width))[0]
        corners, sides = torch.rand(40, 2) * 30, torch.rand(40, 2) * 30 + 4
        target = torch.tensor([1.0, 0, float("nan"), 1])
        boxes = torch.cat([corners, corners + sides], dim=1)
        truth = Targets(boxes[[4, 9]], torch.tensor([0, 3]), torch.tensor([False, False]))
        items.append(Item(features, (height, width), boxes, target, truth))
    return collate(items)


FITTED = {"cam": "objectness.", "seeded": "localizer.", "student": "localizer."}
"""What of a model is not learned in the loop: it is fitted after it, or taken over from another run."""
LEARNING = [
    (name, freeze) for name in PRESETS for freeze in ("all", 1, "none") if freeze == "all" or name not in FITTED
]


@pytest.mark.parametrize(("name", "freeze"), LEARNING)
def test_every_preset_learns_with_all_of_its_weights(name: str, freeze: str | int):
    model, frozen = build(name, freeze)
    losses = model.train()(batch(frozen))
    assert isinstance(losses, dict)
    assert ("tags" in losses) == (name not in ("seeded", "student"))
    assert all(torch.isfinite(loss) and loss >= 0 and loss.shape == () for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    idle = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert idle == [key for key, _ in model.named_parameters() if key.startswith(FITTED.get(name, " "))]
    assert bool(idle) == (name in FITTED)
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)
    assert all(value.grad is None for value in frozen.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_few_steps_lower_the_loss_of_every_preset(name: str):
    model, frozen = build(name)
    optimizer, data = torch.optim.AdamW(model.parameters(), lr=0.01), batch(frozen)
    history = []
    for _ in range(40):
        loss = torch.stack(list(model.train()(data).values())).sum()
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(history[-5:]) < 0.8 * sum(history[:5])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_evidence_of_every_view(name: str):
    model, frozen = build(name)
    if name in FITTED:
        model.get_buffer("threshold" if name == "cam" else "localizer.threshold").fill_(0.1)
    with torch.inference_mode():
        found = model.eval()(batch(frozen))
    assert isinstance(found, list)
    assert len(found) == 2
    for view, cells in zip(found, ((4, 6), (7, 5)), strict=True):
        assert view.image_scores.shape == (CLASSES,)
        assert ((view.image_scores >= 0) & (view.image_scores <= 1 + 1e-5)).all()
        assert (view.objectness is not None) == (name in FITTED)
        assert view.objectness is None or view.objectness.shape == cells
        assert (view.maps is not None) == (name == "oquab" or name in FITTED)
        assert view.maps is None or view.maps.shape == (CLASSES, *cells)
        assert (view.boxes is not None) == (name in ("mist", "seeded", "student"))
        if not isinstance(model, Localizer):
            assert view.proposal_scores is not None
            rows = cells[0] * cells[1] if isinstance(model, FCOS) else 40
            assert view.proposal_scores.shape == (rows, CLASSES)
        else:
            assert view.proposal_scores is None


def head(name: str) -> LocalizerConfig | MILConfig | FastRCNNConfig | FCOSConfig:
    return resolve(preset(name)).head


def test_presets_are_what_their_papers_say():
    cam, oquab = head("cam"), head("oquab")
    assert isinstance(cam, LocalizerConfig)
    assert (cam.pooling, cam.hidden) == ("average", ())
    assert isinstance(oquab, LocalizerConfig)
    assert (oquab.pooling, len(oquab.hidden)) == ("max", 1)
    wsddn, context = head("wsddn"), head("contextlocnet")
    assert isinstance(wsddn, MILConfig)
    assert (wsddn.contrast, wsddn.temperature, wsddn.spatial_weight) == (False, 2, 1e-4)
    assert isinstance(context, MILConfig)
    assert context.contrast
    for name, mining in {"oicr": "top", "pcl": "clusters", "mist": "spread"}.items():
        config = resolve(preset(name))
        assert isinstance(config.head, MILConfig) and config.head.refinement is not None
        refinement = config.head.refinement
        assert (refinement.stages, refinement.mining, refinement.ignore) == (3, mining, 0.1)
        assert (refinement.bags, refinement.regress) == (name == "pcl", "all" if name == "mist" else None)
        # Their streams are WSDDN's without its temperature and regulariser.
        assert (config.head.temperature, config.head.spatial_weight, config.inference.nms) == (1, 0, 0.3)


@pytest.mark.parametrize("name", PRESETS)
def test_boxes_are_voted_for_where_boxes_were_taught(name: str):
    assert resolve(preset(name)).inference.vote == (name in ("seeded", "student"))


def test_oquabs_images_are_rescaled_by_seven_tenths_and_looked_at_as_they_are():
    config = resolve(preset("oquab"))
    (tested,) = config.test_views.scales
    assert [scale / tested for scale in config.views.scales] == pytest.approx([0.7, 1], abs=0.01)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_its_method_and_fits_the_configuration(name: str):
    config = resolve(preset(name))
    assert isinstance(config, Config)
    assert config.method == name


def test_the_default_method_is_one_of_them():
    assert DEFAULT_METHOD in PRESETS


def test_an_unknown_method_lists_those_there_are():
    with pytest.raises(BoxlessError, match=r"'rcnn' is unknown; there are cam, oquab, wsddn, contextlocnet"):
        preset("rcnn")


@pytest.mark.parametrize("name", ["wsddn", "contextlocnet", "oicr", "pcl", "mist"])
def test_a_detector_of_one_class_names_the_way_out(name: str):
    backbone = network()
    with pytest.raises(BoxlessError, match="--method seeded, cam or oquab"):
        build_model(resolve(preset(name)), backbone, nn.Sequential(), 1)


@pytest.mark.parametrize("name", ["cam", "oquab", "seeded", "student"])
def test_these_take_one_class(name: str):
    model = build_model(resolve(preset(name)), network(), nn.Sequential(), 1).eval()
    # The last map of 6 channels and, behind it, the earlier one of 8.
    boxes = torch.tensor([[0.0, 0, 40, 40]]) if name == "seeded" else None
    with torch.inference_mode():
        (found,) = model(collate([Item(torch.randn(6 if name == "oquab" else 14, 4, 4), (64, 64), boxes)]))
    assert found.image_scores.shape == (1,)
