import torch
from torch import nn

from boxless.methods.layers import cell_rms, fully_connected, linear, unit_rms


def test_locations_of_unit_rms_keep_their_direction():
    torch.manual_seed(0)
    maps = torch.randn(2, 5, 3, 4).sign() * (1 + torch.rand(2, 5, 3, 4)) * 100 ** torch.rand(2, 1, 3, 4)
    normalised = unit_rms(maps)
    torch.testing.assert_close(normalised.square().mean(dim=1), torch.ones(2, 3, 4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(nn.functional.cosine_similarity(normalised, maps), torch.ones(2, 3, 4))
    assert not unit_rms(torch.zeros(1, 5, 2, 2)).any()


def test_the_rms_of_a_location_is_taken_over_its_channels():
    # Locations (3, 4, 0) and (1, 1, 2): their mean squares are 25/3 and 2.
    maps = torch.tensor([[[3.0, 1]], [[4, 1]], [[0, 2]]])
    torch.testing.assert_close(cell_rms(maps), torch.tensor([[[25 / 3, 2.0]]]).sqrt())
    assert (cell_rms(torch.zeros(3, 1, 2)) > 0).all()


def test_hidden_layers_are_linear_relu_and_dropout():
    torch.manual_seed(0)
    trunk = fully_connected(12, (5, 4), 0.5).eval()
    regions = torch.randn(6, 3, 2, 2)
    first, second = (layer for layer in trunk if isinstance(layer, nn.Linear))
    expected = (regions.flatten(1) @ first.weight.T + first.bias).clamp(min=0)
    expected = (expected @ second.weight.T + second.bias).clamp(min=0)
    torch.testing.assert_close(trunk(regions), expected)
    # In training half of the features are dropped, after every layer.
    assert sum(isinstance(layer, nn.Dropout) and layer.p == 0.5 for layer in trunk) == 2
    trunk.train()
    assert not torch.equal(trunk(regions), trunk(regions))


def test_without_widths_features_are_flattened_and_dropped():
    regions = torch.ones(50, 3, 2, 2)
    trunk = fully_connected(12, (), 0.5)
    assert torch.equal(trunk.eval()(regions), torch.ones(50, 12))
    assert set(trunk.train()(regions).unique().tolist()) == {0, 2}


def test_weights_of_a_linear_layer_have_the_deviation_that_is_given():
    torch.manual_seed(0)
    layer = linear(200, 100, 0.01)
    assert 0.0097 < layer.weight.std() < 0.0103 and abs(layer.weight.mean()) < 1e-3
    assert not layer.bias.any()
