import pytest
import torch
from torch import nn

from boxless.backbones import Backbone
from boxless.config import Config, DetectorConfig, LocalizerConfig, resolve
from boxless.errors import BoxlessError
from boxless.features import Batch, Item, collate
from boxless.methods import PRESETS, Localizer, WeakDetector, build_model, preset
from boxless.methods.presets import DEFAULT_METHOD

CLASSES = 4


def network() -> Backbone:
    """A random backbone of two stages with a stride of 16."""
    torch.manual_seed(0)
    stages = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=16, padding=1), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1))
    )
    return Backbone(stages.eval(), 6, 16, (0.5,) * 3, (0.5,) * 3, "random", "none")


def build(name: str, freeze: str | int = "all") -> tuple[Localizer | WeakDetector, nn.Sequential]:
    """The model of a preset, and the stages that are frozen."""
    backbone = network()
    frozen, tail = backbone.split(freeze)
    return build_model(resolve(preset(name)), backbone, tail, CLASSES), frozen


def batch(frozen: nn.Sequential) -> Batch:
    """Two views of 96 x 64 and 70 x 100 with proposals and tags, one of them unsure."""
    torch.manual_seed(1)
    items = []
    for width, height in ((96, 64), (70, 100)):
        with torch.no_grad():
            features = frozen(torch.randn(1, 3, height, width))[0]
        corners, sides = torch.rand(40, 2) * 30, torch.rand(40, 2) * 30 + 4
        target = torch.tensor([1.0, 0, float("nan"), 1])
        items.append(Item(features, (height, width), torch.cat([corners, corners + sides], dim=1), target))
    return collate(items)


@pytest.mark.parametrize("freeze", ["all", 1, "none"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns_with_all_of_its_weights(name: str, freeze: str | int):
    model, frozen = build(name, freeze)
    losses = model.train()(batch(frozen))
    assert isinstance(losses, dict)
    assert "tags" in losses
    assert all(torch.isfinite(loss) and loss >= 0 and loss.shape == () for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    idle = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert idle == []
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
    with torch.inference_mode():
        found = model.eval()(batch(frozen))
    assert isinstance(found, list)
    assert len(found) == 2
    for view, cells in zip(found, ((4, 6), (7, 5)), strict=True):
        assert view.image_scores.shape == (CLASSES,)
        assert ((view.image_scores >= 0) & (view.image_scores <= 1 + 1e-5)).all()
        if isinstance(model, WeakDetector):
            assert view.maps is None
            assert view.proposal_scores is not None
            assert view.proposal_scores.shape == (40, CLASSES)
        else:
            assert view.proposal_scores is None
            assert view.maps is not None
            assert view.maps.shape == (CLASSES, *cells)


def head(name: str) -> LocalizerConfig | DetectorConfig:
    return resolve(preset(name)).head


def test_presets_are_what_their_papers_say():
    cam, oquab = head("cam"), head("oquab")
    assert isinstance(cam, LocalizerConfig)
    assert (cam.pooling, cam.hidden) == ("average", ())
    assert isinstance(oquab, LocalizerConfig)
    assert (oquab.pooling, len(oquab.hidden)) == ("max", 1)
    wsddn, context = head("wsddn"), head("contextlocnet")
    assert isinstance(wsddn, DetectorConfig)
    assert (wsddn.contrast, wsddn.temperature, wsddn.spatial_weight) == (False, 2, 1e-4)
    assert isinstance(context, DetectorConfig)
    assert context.contrast
    for name, mining in {"oicr": "top", "pcl": "clusters", "mist": "spread"}.items():
        config = resolve(preset(name))
        assert isinstance(config.head, DetectorConfig) and config.head.refinement is not None
        refinement = config.head.refinement
        assert (refinement.stages, refinement.mining, refinement.ignore, refinement.objects) == (3, mining, 0.1, None)
        assert (refinement.bags, refinement.regress) == (name == "pcl", "all" if name == "mist" else None)
        # Their streams are WSDDN's without its temperature and regulariser.
        assert (config.head.temperature, config.head.spatial_weight, config.inference.nms) == (1, 0, 0.3)


def test_oquabs_pictures_are_rescaled_by_seven_tenths_and_looked_at_as_they_are():
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
    with pytest.raises(BoxlessError, match="--method cam, oquab or seeded"):
        build_model(resolve(preset(name)), backbone, nn.Sequential(), 1)


@pytest.mark.parametrize("name", ["cam", "oquab"])
def test_a_localizer_takes_one_class(name: str):
    model = build_model(resolve(preset(name)), network(), nn.Sequential(), 1).eval()
    with torch.inference_mode():
        (found,) = model(collate([Item(torch.randn(6, 4, 4), (64, 64))]))
    assert found.image_scores.shape == (1,)
