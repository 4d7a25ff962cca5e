import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxless.config import LocalizerConfig
from boxless.features import Item, collate
from boxless.methods import Localizer
from boxless.methods.mining import largest_component_box, objectness_box
from boxless.methods.objectness import EMPTY, PLACES, SURE, Objectness, fit_objectness, sure_places
from boxless.structures import FloatArray


def made(channels: int = 5) -> Objectness:
    torch.manual_seed(0)
    return Objectness(channels).eval()


def equal(cell: Tensor) -> Tensor:
    """A cell (C,) of a root mean square of one."""
    return cell / (cell.square().mean() + 1e-6).sqrt()


# The classifier.


def test_every_place_is_the_mean_over_its_neighbours_on_the_map():
    model, early = made(), torch.randn(5, 4, 6) * 30
    with torch.inference_mode():
        found = model(early)
        own = torch.tensor([[model.cells(equal(early[:, y, x])).item() for x in range(6)] for y in range(4)])
    assert found.shape == (4, 6)
    for y, x in product(range(4), range(6)):
        around = [own[b, a].item() for b in range(4) for a in range(6) if abs(b - y) <= 1 and abs(a - x) <= 1]
        assert len(around) == (2 + (0 < y < 3)) * (2 + (0 < x < 5))
        assert found[y, x].item() == pytest.approx(sum(around) / len(around), abs=1e-5)


def test_how_bright_a_cell_is_does_not_matter():
    model, early = made(), torch.randn(5, 3, 3)
    with torch.inference_mode():
        torch.testing.assert_close(model(early * 40), model(early), atol=1e-4, rtol=1e-4)


# The places that teach it.


def test_only_sure_places_of_any_class_teach():
    torch.manual_seed(0)
    early = torch.randn(3, 2, 4)
    # Two classes, of maxima 2 and 100: sure are the first two cells and the sixth, empty are the last two.
    first = torch.tensor([[2.0, SURE * 2, 0.49, 0.3], [0.1, 0.1, EMPTY * 1.9, -3]])
    second = torch.tensor([[100.0, 0, 20, 10], [24.9, 100 * SURE, 1.9, 1]])
    cells, targets = sure_places(early, torch.stack([first, second]), np.random.default_rng(0))
    places = {(0, 0): 1.0, (0, 1): 1.0, (1, 1): 1.0, (1, 2): 0.0, (1, 3): 0.0}
    assert len(cells) == 5
    for (y, x), kind in places.items():
        (row,) = torch.isclose(cells, equal(early[:, y, x]), atol=1e-5).all(dim=1).nonzero()[:, 0].tolist()
        assert targets[row] == kind


def test_a_image_teaches_no_more_than_its_share_of_either_kind():
    early = torch.arange(2.0 * 20 * 20).reshape(2, 20, 20)
    heatmap = torch.zeros(1, 20, 20)
    heatmap[:, :, :8] = 1
    draws = [sure_places(early, heatmap, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    for cells, targets in draws:
        assert targets.tolist() == [1.0] * PLACES + [0.0] * PLACES
        assert len({tuple(cell) for cell in cells.tolist()}) > PLACES
    assert torch.equal(draws[0][0], draws[1][0]) and not torch.equal(draws[0][0], draws[2][0])
    few = sure_places(early[:, :3, :10], heatmap[:, :3, :10], np.random.default_rng(0))[1]
    assert few.tolist() == [1.0] * 24 + [0.0] * 6


def test_a_map_that_is_nowhere_positive_is_empty_all_over():
    targets = sure_places(torch.randn(2, 3, 3), torch.full((1, 3, 3), -1.0), np.random.default_rng(0))[1]
    assert targets.tolist() == [0.0] * 9


# Fitting.


def planted(number: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Early maps with a texture on objects, heatmaps that shine on a part of them, and where the objects are."""
    random, images = torch.Generator().manual_seed(7), []
    for row in range(number):
        early = torch.randn(6, 12, 12, generator=random)
        truth, heatmap = torch.zeros(12, 12, dtype=torch.bool), torch.full((1, 12, 12), 0.1)
        left = row % 4 + 1
        truth[3:10, left : left + 7] = True
        early[:, truth] += torch.tensor([3.0, -3, 3, 0, 0, 0])[:, None]
        heatmap[0, 4:7, left + 1 : left + 4] = 1
        heatmap[0, :, left + 7 :] = 0
        heatmap[0, :2] = 0
        images.append((early, heatmap, truth))
    return images


def test_a_texture_that_is_sure_in_places_is_found_all_over_the_object():
    images = planted(410)
    model = made(6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_objectness(model, ((early, heatmap) for early, heatmap, _ in images[:400]), seed=3)
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.inference_mode():
        for early, _, truth in images[400:]:
            # Without the smoothing, which washes the edges out.
            logits = model.cells(early.permute(1, 2, 0) / early.square().mean(0).sqrt()[..., None])[..., 0]
            assert ((logits > 0) == truth).float().mean() > 0.9
    assert not any(module.training for module in model.modules())


def test_the_same_seed_fits_the_same_bits():
    images = [(early, heatmap) for early, heatmap, _ in planted(6)]
    models = [made(6) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.rand(3)
        fit_objectness(model, iter(images), seed)
    one, same, other = (list(model.state_dict().values()) for model in models)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# Within the localizer.


def test_a_localizer_reads_classes_in_the_last_map_and_objects_in_the_early_one():
    torch.manual_seed(0)
    model = Localizer(nn.Sequential(), 4, LocalizerConfig(objectness=True), 3, early=2).eval()
    model.threshold.fill_(0.1)
    maps = torch.randn(4 + 2 + 3, 3, 5)
    larger = Item(torch.randn(9, 6, 7), (90, 100))
    with torch.inference_mode():
        alone = model(collate([Item(maps, (40, 70))]))[0]
        in_batch = model(collate([larger, Item(maps, (40, 70))]))[1]
        plain = Localizer(nn.Sequential(), 4, LocalizerConfig(), 3).eval()
        plain.head.load_state_dict(model.head.state_dict())
        wanted = plain(collate([Item(maps[:4], (40, 70))]))[0]
        assert model.objectness is not None
        torch.testing.assert_close(alone.objectness, model.objectness(maps[4:6]))
        torch.testing.assert_close(model.heatmaps(maps[None])[0], wanted.maps)
    # Smoothing takes in no padding of the batch.
    torch.testing.assert_close(in_batch.objectness, alone.objectness)
    torch.testing.assert_close(alone.maps, wanted.maps)
    torch.testing.assert_close(alone.image_scores, wanted.image_scores)
    assert wanted.objectness is None


def test_a_foreground_that_has_learned_nothing_says_nothing():
    model = Localizer(nn.Sequential(), 4, LocalizerConfig(objectness=True, threshold=0.3), 3, early=2).eval()
    batch = collate([Item(torch.randn(6, 3, 5), (40, 70))])
    assert model(batch)[0].objectness is None
    model.threshold.fill_(0.3)
    assert model(batch)[0].objectness is not None


# The box.


def grid(*rows: str) -> FloatArray:
    return np.array([[int(cell) / 10 for cell in row] for row in rows], np.float32)


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def test_heatmap_and_foreground_share_where_an_object_ends():
    # Cells of one pixel; the threshold is half the maximum, so a place of a quarter halves the odds.
    heatmap = np.array([[0, 1, 2, 4, 2, 1, 0]], np.float32)
    # Odds of the cells are 1/250, 1/2, 1, 2, 1, 1/2, 1/250 times those of the foreground.
    for share, left, right in ((0.501, 2, 5), (0.66, 2, 5), (0.67, 1, 6), (0.49, 3, 4), (0.34, 3, 4)):
        objectness = np.full((1, 7), logit(share), np.float32)
        assert objectness_box(heatmap, objectness, (7, 1), 0.5).tolist() == [left, 0, right, 1], share
    # Of less than one third nothing is left, and the heatmap decides alone.
    objectness = np.full((1, 7), logit(0.33), np.float32)
    assert objectness_box(heatmap, objectness, (7, 1), 0.5).tolist() == [2, 0, 5, 1]


def test_a_foreground_with_an_edge_has_the_last_word_where_the_heatmap_has_no_opinion():
    heatmap = np.full((1, 6), 0.5, np.float32)
    heatmap[0, 2] = 1
    objectness = np.array([[-2, 2, 2, 2, -2, -2]], np.float32)
    box = objectness_box(heatmap, objectness, (6, 1), 0.5)
    assert box.tolist() == [1, 0, 4, 1] and box.dtype == np.float32
    # Alone it would say more, or less.
    assert largest_component_box(heatmap, (6, 1), 0.5).tolist() == [0, 0, 6, 1]
    assert largest_component_box(heatmap, (6, 1), 0.6).tolist() == [2, 0, 3, 1]


def test_the_threshold_moves_the_prior():
    heatmap = np.array([[8, 4, 2, 1]], np.float32)
    sure = np.zeros((1, 4), np.float32) + 1e-6
    for threshold, right in ((0.9, 1), (0.5, 2), (0.25, 3), (0.125, 4)):
        assert objectness_box(heatmap, sure, (4, 1), threshold).tolist() == [0, 0, right, 1]


def test_of_several_objects_the_heatmap_chooses():
    objectness = np.array([[5, 5, 5, -9, 5, -9, 5, 5]], np.float32)
    # The brightest place is alone; the mass lies on the right, though the left is larger.
    heatmap = np.array([[1, 1, 1, 9, 5, 0, 3, 3]], np.float32)
    assert objectness_box(heatmap, objectness, (8, 1), 0.2).tolist() == [6, 0, 8, 1]
    heatmap[0, 6:] = 1
    assert objectness_box(heatmap, objectness, (8, 1), 0.2).tolist() == [4, 0, 5, 1]
    # What is below zero takes nothing away.
    heatmap = np.array([[5, -4, -4, 0, 4, 0, 0, 0]], np.float32)
    assert objectness_box(heatmap, np.where(objectness > 0, 20, objectness), (8, 1), 0.2).tolist() == [0, 0, 3, 1]


def test_components_hang_together_at_their_corners():
    heatmap = grid("900", "090", "009")
    objectness = np.where(heatmap > 0, 3, -3).astype(np.float32)
    assert objectness_box(heatmap, objectness, (3, 3), 0.5).tolist() == [0, 0, 3, 3]


def test_without_any_object_the_heatmap_decides():
    heatmap = grid("000", "096", "000")
    nothing = np.full((3, 3), -20, np.float32)
    assert objectness_box(heatmap, nothing, (3, 3), 0.5).tolist() == [1, 1, 3, 2]
    assert objectness_box(heatmap, nothing, (3, 3), 0.7).tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("value", [0.0, -0.3])
def test_a_map_that_is_nowhere_positive_gives_the_whole_image(value: float):
    dark = np.full((3, 4), value, np.float32)
    assert objectness_box(dark, np.full((3, 4), 3, np.float32), (40, 31), 0.2).tolist() == [0, 0, 40, 31]


def test_one_very_sure_cell_does_not_shift_an_edge():
    """Between a cell that is as sure as can be and one that is as sure of the contrary the edge is in the middle."""
    heatmap = np.ones((1, 2), np.float32)
    for sure in (3.0, 30.0):
        objectness = np.array([[sure, -3]], np.float32)
        assert objectness_box(heatmap, objectness, (40, 20), 0.999).tolist()[2] == pytest.approx(20, abs=1)
