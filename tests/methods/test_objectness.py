from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from boxless.methods.objectness import (
    BACKGROUND_SHARE,
    OBJECT_SHARE,
    SAMPLES,
    Objectness,
    certain_locations,
    fit_objectness,
)


def make(channels: int = 5) -> Objectness:
    torch.manual_seed(0)
    return Objectness(channels).eval()


def normalised(cell: Tensor) -> Tensor:
    """A location (C,) of unit RMS."""
    return cell / (cell.square().mean() + 1e-6).sqrt()


# The classifier.


def test_every_location_is_the_mean_over_its_neighbours_on_the_map():
    model, early = make(), torch.randn(5, 4, 6) * 30
    with torch.inference_mode():
        found = model(early)
        own = torch.tensor([[model.cells(normalised(early[:, y, x])).item() for x in range(6)] for y in range(4)])
    assert found.shape == (4, 6)
    for y, x in product(range(4), range(6)):
        around = [own[b, a].item() for b in range(4) for a in range(6) if abs(b - y) <= 1 and abs(a - x) <= 1]
        assert len(around) == (2 + (0 < y < 3)) * (2 + (0 < x < 5))
        assert found[y, x].item() == pytest.approx(sum(around) / len(around), abs=1e-5)


def test_the_scale_of_a_map_does_not_matter():
    model, early = make(), torch.randn(5, 3, 3)
    with torch.inference_mode():
        torch.testing.assert_close(model(early * 40), model(early), atol=1e-4, rtol=1e-4)


# The locations it is trained on.


def test_only_certain_locations_of_any_class_are_trained_on():
    torch.manual_seed(0)
    early = torch.randn(3, 2, 4)
    # Two classes, of maxima 2 and 100: objects are the first two cells and the sixth, background are the last two.
    first = torch.tensor([[2.0, OBJECT_SHARE * 2, 0.49, 0.3], [0.1, 0.1, BACKGROUND_SHARE * 1.9, -3]])
    second = torch.tensor([[100.0, 0, 20, 10], [24.9, 100 * OBJECT_SHARE, 1.9, 1]])
    cells, targets = certain_locations(early, torch.stack([first, second]), np.random.default_rng(0))
    expected = {(0, 0): 1.0, (0, 1): 1.0, (1, 1): 1.0, (1, 2): 0.0, (1, 3): 0.0}
    assert len(cells) == 5
    for (y, x), target in expected.items():
        (row,) = torch.isclose(cells, normalised(early[:, y, x]), atol=1e-5).all(dim=1).nonzero()[:, 0].tolist()
        assert targets[row] == target


def test_an_image_gives_at_most_a_fixed_number_of_locations_of_either_kind():
    early = torch.arange(2.0 * 20 * 20).reshape(2, 20, 20)
    heatmap = torch.zeros(1, 20, 20)
    heatmap[:, :, :8] = 1
    draws = [certain_locations(early, heatmap, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    for cells, targets in draws:
        assert targets.tolist() == [1.0] * SAMPLES + [0.0] * SAMPLES
        assert len({tuple(cell) for cell in cells.tolist()}) > SAMPLES
    assert torch.equal(draws[0][0], draws[1][0]) and not torch.equal(draws[0][0], draws[2][0])
    few = certain_locations(early[:, :3, :10], heatmap[:, :3, :10], np.random.default_rng(0))[1]
    assert few.tolist() == [1.0] * 24 + [0.0] * 6


def test_a_map_without_positive_response_is_all_background():
    targets = certain_locations(torch.randn(2, 3, 3), torch.full((1, 3, 3), -1.0), np.random.default_rng(0))[1]
    assert targets.tolist() == [0.0] * 9


# Fitting.


def textured_images(number: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Early maps with a texture on objects, heatmaps of high response on a part of them, and where the objects are."""
    random, images = torch.Generator().manual_seed(7), []
    for row in range(number):
        early = torch.randn(6, 12, 12, generator=random)
        objects, heatmap = torch.zeros(12, 12, dtype=torch.bool), torch.full((1, 12, 12), 0.1)
        left = row % 4 + 1
        objects[3:10, left : left + 7] = True
        early[:, objects] += torch.tensor([3.0, -3, 3, 0, 0, 0])[:, None]
        heatmap[0, 4:7, left + 1 : left + 4] = 1
        heatmap[0, :, left + 7 :] = 0
        heatmap[0, :2] = 0
        images.append((early, heatmap, objects))
    return images


def test_a_texture_that_is_certain_on_a_part_is_found_all_over_the_object():
    images = textured_images(410)
    model = make(6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_objectness(model, ((early, heatmap) for early, heatmap, _ in images[:400]), seed=3)
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.inference_mode():
        for early, _, objects in images[400:]:
            # Without the average over neighbours, which blurs the edges.
            logits = model.cells(early.permute(1, 2, 0) / early.square().mean(0).sqrt()[..., None])[..., 0]
            assert ((logits > 0) == objects).float().mean() > 0.9
    assert not any(module.training for module in model.modules())


def test_the_same_seed_fits_the_same_bits():
    images = [(early, heatmap) for early, heatmap, _ in textured_images(6)]
    models = [make(6) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.rand(3)
        fit_objectness(model, iter(images), seed)
    one, same, other = (list(model.state_dict().values()) for model in models)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
