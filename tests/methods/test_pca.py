import numpy as np
import pytest
import torch
from box_supervision import CHANNELS, random_map
from sklearn import decomposition

from boxless.methods.layers import unit_rms
from boxless.methods.pca import PCA, HypercolumnPCA


def test_components_are_those_of_scikit_learn_and_the_first_has_a_variance_of_one():
    random = np.random.default_rng(0)
    raw = random.normal(size=(500, 7)) @ random.normal(size=(7, 7)) + random.normal(size=7) * 5
    # Maps of four and of three channels; each is normalised to unit RMS on its own.
    parts = (raw[:, :4], raw[:, 4:])
    cells = np.concatenate([part / np.sqrt((part**2).mean(axis=1, keepdims=True)) for part in parts], axis=1)
    pca = PCA([4, 3], 3)
    tensor = torch.from_numpy(cells).float()
    pca.fit(tensor.sum(dim=0), tensor.T @ tensor, len(cells))
    maps = [torch.from_numpy(part.T.reshape(-1, 25, 20)).float() for part in parts]
    found = pca(maps).reshape(3, 500).T.numpy()
    reference = decomposition.PCA(3).fit_transform(cells)
    expected = reference / reference[:, 0].std()
    for column in range(3):
        sign = np.sign(found[:, column] @ expected[:, column])
        np.testing.assert_allclose(found[:, column] * sign, expected[:, column], atol=5e-3)
    assert found.std(axis=0)[0] == pytest.approx(1, rel=1e-3)
    assert found.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-3)
    assert not list(pca.parameters()), "fixed, not trained"


def test_there_are_no_more_components_than_channels():
    pca = PCA([4], 9)
    assert pca.components.shape == (4, 4)
    maps = torch.randn(4, 2, 3)
    # Before it is fitted it only normalises.
    torch.testing.assert_close(pca([maps]), unit_rms(maps))
    # Maps that are the same everywhere have no variance; the result stays finite.
    pca.fit(torch.ones(4) * 6, torch.ones(4, 4) * 6, 6)
    assert torch.isfinite(pca([torch.ones(4, 2, 3)])).all()


def fitted(*maps: torch.Tensor) -> HypercolumnPCA:
    pca = HypercolumnPCA(CHANNELS, (4, 3))
    pca.fit(iter(maps))
    return pca


def test_hypercolumns_are_fitted_on_normalised_locations_of_all_maps():
    maps = [random_map(6, 9, 20), random_map(3, 5, 21)]
    pca = fitted(*maps)
    cells = torch.cat([row.flatten(1).T for row in maps])
    parts = torch.split(cells, CHANNELS, dim=1)
    last, first, second = (part / (part.square().mean(dim=1, keepdim=True) + 1e-6).sqrt() for part in parts)
    for projection, own in ((pca.last, last), (pca.earlier, torch.cat([first, second], dim=1))):
        reference = decomposition.PCA(len(projection.components)).fit(own.numpy())
        torch.testing.assert_close(projection.mean, own.mean(dim=0), atol=1e-4, rtol=1e-4)
        scale = reference.explained_variance_[0] ** 0.5 * ((len(own) - 1) / len(own)) ** 0.5
        found = np.abs(projection.components.numpy() * scale)
        np.testing.assert_allclose(found, np.abs(reference.components_), atol=2e-3)


def test_the_last_map_comes_before_the_earlier_ones():
    pca, view = fitted(random_map(6, 9, 0)), random_map(4, 5, 1)
    assert pca.out_channels == 7
    found = pca(view)
    torch.testing.assert_close(found[:4], pca.last([view[:6]]))
    torch.testing.assert_close(found[4:], pca.earlier([view[6:10], view[10:]]))


@pytest.mark.parametrize("scale", [1, 1e5])
def test_components_depend_neither_on_autocast_nor_on_the_scale_of_the_maps(scale: float):
    pca, view = fitted(random_map(6, 9, 0)), random_map(5, 4, 30)
    expected = pca(view)
    with torch.autocast("cpu", torch.bfloat16):
        found = pca(view * scale)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
