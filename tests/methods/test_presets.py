import pytest
import torch
from torch import nn

from boxless.backbones import Backbone
from boxless.config import Config, resolve
from boxless.errors import BoxlessError
from boxless.features import Batch, Item, Targets, collate
from boxless.methods import FCOS, PRESETS, CAMConfig, HeatmapModel, MILConfig, Model, OquabConfig, preset
from boxless.methods.presets import DEFAULT_METHOD

CLASSES = 4
FITTED = {"cam": ("objectness.", "local."), "seeded": "cam.", "student": "cam."}
"""Parts of a model that SGD does not train: they are fitted after it, or taken from another run."""


def backbone() -> Backbone:
    """A random backbone of two stages with a stride of 16."""
    torch.manual_seed(0)
    stages = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=16, padding=1), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1))
    )
    return Backbone(stages.eval(), 6, 16, (0.5,) * 3, (0.5,) * 3, "random", "none", levels=(0,))


def build(name: str, freeze: str | int = "all", classes: int = CLASSES) -> tuple[Model, nn.Sequential]:
    """The model of a preset, and the frozen stages."""
    network, config = backbone(), resolve(preset(name))
    frozen, tail = network.split(freeze)
    if config.head.hypercolumns:
        frozen = network.hypercolumns()
    model = config.head.build(network, tail, classes)
    assert isinstance(model, Model)
    return model, frozen


def batch(frozen: nn.Sequential, fixed_part: nn.Module | None = None) -> Batch:
    """Two views of 96 x 64 and 70 x 100 with proposals, boxes and image labels, one of them unsure."""
    torch.manual_seed(1)
    items = []
    for width, height in ((96, 64), (70, 100)):
        with torch.no_grad():
            features = frozen(torch.randn(1, 3, height, width))[0]
            if fixed_part is not None:
                features = fixed_part(features)
        corners, sides = torch.rand(40, 2) * 30, torch.rand(40, 2) * 30 + 4
        boxes = torch.cat([corners, corners + sides], dim=1)
        targets = Targets(boxes[[4, 9]], torch.tensor([0, 3]), torch.tensor([False, False]))
        items.append(Item(features, (height, width), boxes, torch.tensor([1.0, 0, float("nan"), 1]), targets))
    return collate(items)


FROZEN_STAGES = [
    (name, freeze)
    for name in PRESETS
    for freeze in ("all", 1, "none")
    if freeze == "all" or not resolve(preset(name)).head.hypercolumns
]


@pytest.mark.parametrize(("name", "freeze"), FROZEN_STAGES)
def test_all_weights_of_every_preset_get_a_gradient(name: str, freeze: str | int):
    model, frozen = build(name, freeze)
    losses = model.train()(batch(frozen, model.fixed_part))
    assert isinstance(losses, dict)
    assert ("image labels" in losses) == (name not in ("seeded", "student"))
    assert all(torch.isfinite(loss) and loss >= 0 and loss.shape == () for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    untrained = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert untrained == [key for key, _ in model.named_parameters() if key.startswith(FITTED.get(name, " "))]
    assert bool(untrained) == (name in FITTED)
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)
    assert all(value.grad is None for value in frozen.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_few_steps_lower_the_loss_of_every_preset(name: str):
    model, frozen = build(name)
    optimizer, data = torch.optim.AdamW(model.parameters(), lr=0.01), batch(frozen, model.fixed_part)
    history = []
    for _ in range(40):
        losses = model.train()(data)
        assert isinstance(losses, dict)
        loss = torch.stack(list(losses.values())).sum()
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(history[-5:]) < 0.85 * sum(history[:5])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_an_output_a_view(name: str):
    model, frozen = build(name)
    if name in FITTED:
        model.get_buffer("threshold" if name == "cam" else "cam.threshold").fill_(0.1)
    with torch.inference_mode():
        found = model.eval()(batch(frozen))
    assert isinstance(found, list)
    assert len(found) == 2
    for view, cells in zip(found, ((4, 6), (7, 5)), strict=True):
        assert view.image_scores.shape == (CLASSES,)
        assert ((view.image_scores >= 0) & (view.image_scores <= 1 + 1e-5)).all()
        assert (view.objectness is not None) == (name == "cam")
        assert view.objectness is None or view.objectness.shape == cells
        assert (view.maps is not None) == (name in ("cam", "oquab"))
        assert view.maps is None or view.maps.shape == (CLASSES, *cells)
        assert (view.boxes is not None) == (name in ("mist", "seeded", "student"))
        if isinstance(model, HeatmapModel):
            assert view.proposal_scores is None
        else:
            assert view.proposal_scores is not None
            rows = cells[0] * cells[1] if isinstance(model, FCOS) else 40
            assert view.proposal_scores.shape == (rows, CLASSES)


def test_presets_have_the_settings_of_their_papers():
    cam, oquab, wsddn, context = (resolve(preset(name)).head for name in ("cam", "oquab", "wsddn", "contextlocnet"))
    assert isinstance(cam, CAMConfig)
    assert isinstance(oquab, OquabConfig) and len(oquab.hidden) == 1
    assert isinstance(wsddn, MILConfig)
    assert (wsddn.contrast, wsddn.temperature, wsddn.spatial_weight) == (False, 2, 1e-4)
    assert isinstance(context, MILConfig) and context.contrast
    for name, mining in {"oicr": "top", "pcl": "clusters", "mist": "spread"}.items():
        config = resolve(preset(name))
        assert isinstance(config.head, MILConfig) and config.head.refinement is not None
        refinement = config.head.refinement
        assert (refinement.mining, refinement.ignore) == (mining, 0.1)
        assert refinement.box_regression == (name == "mist")
        assert config.head.distinct == (name != "mist")
        # Their streams are WSDDN's without its temperature and regulariser.
        assert (config.head.temperature, config.head.spatial_weight, config.inference.nms) == (1, 0, 0.3)


def test_oquabs_images_are_rescaled_by_seven_tenths_in_training():
    config = resolve(preset("oquab"))
    (tested,) = config.test_views.scales
    assert [scale / tested for scale in config.views.scales] == pytest.approx([0.7, 1], abs=0.01)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_its_method_and_fits_the_configuration(name: str):
    config = resolve(preset(name))
    assert isinstance(config, Config)
    assert config.method == name
    # Boxes are voted for where the head is trained on boxes.
    assert config.inference.vote == config.head.box_supervised


def test_the_default_method_is_registered():
    assert DEFAULT_METHOD in PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_one_class_works_or_the_error_names_other_methods(name: str):
    if isinstance(resolve(preset(name)).head, MILConfig):
        with pytest.raises(BoxlessError, match=r"one class only.*--method seeded, cam or oquab"):
            build(name, classes=1)
        return
    model, frozen = build(name, classes=1)
    with torch.inference_mode():
        found = model.eval()(batch(frozen))
    assert isinstance(found, list)
    assert [view.image_scores.shape for view in found] == [(1,), (1,)]
