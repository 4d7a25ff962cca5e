import math

import pytest
import torch
from torch import Tensor

from boxless.methods.local_cam import LocalCAM, fit_local_cam


def make(channels: tuple[int, ...] = (2, 3), classes: int = 2) -> LocalCAM:
    local = LocalCAM(channels, classes)
    torch.manual_seed(0)
    for parameter in local.parameters():
        torch.nn.init.normal_(parameter)
    return local


def test_a_new_classifier_tells_nothing():
    local = LocalCAM((2, 3), 4)
    assert not local(torch.randn(5, 3, 2)).any()
    assert local.pool(torch.zeros(4, 3, 2)).tolist() == [0, 0, 0, 0]


def test_heatmaps_are_the_weights_times_cells_whose_levels_have_unit_rms():
    local, levels = make(), torch.randn(5, 4, 3) * 7
    first, second = levels[:2], levels[2:]
    cells = torch.cat([first / first.square().mean(0).sqrt(), second / second.square().mean(0).sqrt()])
    expected = torch.einsum("oc,chw->ohw", local.cells.weight[:, :, 0, 0], cells)
    torch.testing.assert_close(local(levels), expected, atol=1e-5, rtol=1e-5)


def test_pooling_is_the_log_of_the_mean_of_exponentials_plus_the_bias():
    local = make()
    assert local.cells.bias is not None
    heatmaps = torch.tensor([[[0.0, 1], [2, 3]], [[-1.0, -1], [-1, -1]]])
    first, second = (local.pool(heatmaps) - local.cells.bias).tolist()
    assert first == pytest.approx(math.log((1 + math.e + math.e**2 + math.e**3) / 4), abs=1e-6)
    # The same everywhere, whatever the number of cells.
    assert second == pytest.approx(-1, abs=1e-6)


def images_with_a_mark(number: int) -> tuple[list[Tensor], Tensor, list[tuple[int, int]]]:
    """Levels of which one cell is of another direction where the class is present; image labels; where that cell is."""
    random = torch.Generator().manual_seed(3)
    levels, labels, places = [], torch.zeros(number, 1), []
    for row in range(number):
        cells = torch.randn(5, 6, 7, generator=random)
        place = (row % 6, row % 7)
        if row % 2:
            cells[:, place[0], place[1]] = torch.tensor([4.0, -4, 4, 4, -4])
            labels[row] = 1
        levels.append(cells)
        places.append(place)
    return levels, labels, places


def test_the_few_cells_that_show_a_class_are_found_from_image_labels():
    levels, labels, places = images_with_a_mark(84)
    local = LocalCAM((2, 3), 1)
    fit_local_cam(local, levels.__getitem__, labels, seed=0)
    assert not any(parameter.requires_grad for parameter in local.parameters())
    for row in range(1, len(levels), 2):
        assert divmod(int(local(levels[row]).argmax()), 7) == places[row]


def test_the_same_seed_fits_the_same_bits_and_unsure_labels_have_no_part():
    levels, labels, _ = images_with_a_mark(20)
    found = []
    for seed in (0, 0, 1):
        local = LocalCAM((2, 3), 1)
        torch.rand(3)
        fit_local_cam(local, levels.__getitem__, labels, seed)
        found.append(local.cells.weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    unsure = LocalCAM((2, 3), 1)
    fit_local_cam(unsure, levels.__getitem__, torch.full_like(labels, torch.nan), 0)
    assert not unsure.cells.weight.any()
