"""What an exported file computes: the network of a detector on batches of images of any size, for `torch.onnx`.

The layers are the network's own; only what the exporter cannot follow is written anew: loops over the images of a
batch, and Python numbers that depend on their size.
"""

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from boxless.backbones import Hypercolumns, folded
from boxless.backbones.base import maps_of, maps_of_zeros
from boxless.backbones.cells import PROBE, PadToMultiple
from boxless.features import HALF_MAX
from boxless.methods import CAM, FCOS, FastRCNN
from boxless.methods.box_ops import DELTA_SCALE_WH, DELTA_SCALE_XY, MAX_LOG_RATIO
from boxless.methods.box_supervised import IMAGE_SCORE_POWER, BoxSupervised
from boxless.methods.fcos import MAX_LOG_DISTANCE
from boxless.methods.pca import PCA
from boxless.methods.roi_pooling import CONTEXT_RATIO
from boxless.network import Network


class SameConv(nn.Module):
    """timm's convolution with TensorFlow's padding, which depends on the size of the image, as ONNX knows it."""

    def __init__(self, layer: Conv2dSame) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        own = self.layer
        sides = ((side + stride - 1) // stride for side, stride in zip(maps.shape[2:], own.stride, strict=True))
        found: Tensor = torch.onnx.ops.symbolic(
            "Conv",
            (maps, own.weight) if own.bias is None else (maps, own.weight, own.bias),
            {
                "auto_pad": "SAME_UPPER",
                "strides": list(own.stride),
                "dilations": list(own.dilation),
                "group": own.groups,
                "kernel_shape": list(own.kernel_size),
            },
            dtype=maps.dtype,
            shape=(maps.shape[0], own.out_channels, *sides),
        )
        return found


class Pad(nn.Module):
    """`PadToMultiple` without a branch."""

    def __init__(self, layer: PadToMultiple) -> None:
        super().__init__()
        self.multiple = layer.multiple

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        below, right = (-side % self.multiple for side in images.shape[-2:])
        return nn.functional.pad(images, (0, right, 0, below))


def exportable(stages: nn.Module) -> None:
    """Replace the layers that the exporter cannot follow, in place."""
    for parent in list(stages.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Conv2dSame):
                # ONNX Runtime has this padding for kernels without gaps only.
                assert tuple(layer.dilation) == (1, 1)
                setattr(parent, name, SameConv(layer))
            elif isinstance(layer, PadToMultiple):
                setattr(parent, name, Pad(layer))


class Columns(nn.Module):
    """`Hypercolumns` of normalised images, rounded to half precision as `FeatureStore.extract` rounds them.

    Args:
        network: whose frozen stages give the maps.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        stages = folded(network.frozen)
        assert isinstance(stages, Hypercolumns)
        shapes = [found.shape[-2:] for found in maps_of_zeros(stages, *PROBE)]
        self.levels = stages.levels
        # A level of the last map's size is taken as it is.
        self.finer = {level for level in self.levels if shapes[level] != shapes[-1]}
        self.stages = nn.Sequential(*stages)
        exportable(self.stages)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(network.backbone, name))[:, None, None]
            self.register_buffer(name, values)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, H, W, 3) uint8 -> (B, C, h, w)."""
        pixels = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        kept, last = {}, pixels
        for index, last in enumerate(maps_of(self.stages, pixels)):
            if index in self.levels:
                kept[index] = last
        own = [average_to(kept[level], last) if level in self.finer else kept[level] for level in self.levels]
        return torch.cat([last, *own], dim=1).clamp(-HALF_MAX, HALF_MAX).half().float()


def average_to(maps: Tensor, target: Tensor) -> Tensor:
    """`adaptive_avg_pool2d` of maps (B, C, H, W) to the height and width of `target`, for sizes known at run time."""
    rows = _bins(target.shape[2], maps.shape[2])
    columns = _bins(target.shape[3], maps.shape[3])
    return rows @ maps @ columns.T


def _bins(outputs: int, inputs: int) -> Tensor:
    """The weights of the inputs in each output: (outputs, inputs), from floor(i n / m) to ceil((i + 1) n / m)."""
    rows, columns = torch.arange(outputs)[:, None], torch.arange(inputs)
    inside = (columns >= rows * inputs // outputs) & (columns < ((rows + 1) * inputs + outputs - 1) // outputs)
    weights = inside.float()
    return weights / weights.sum(dim=1, keepdim=True)


def cell_rms(maps: Tensor) -> Tensor:
    """`layers.cell_rms` of maps (B, C, H, W), as a convolution, which is faster than a mean over channels."""
    weights = torch.full((1, maps.shape[1], 1, 1), 1 / maps.shape[1])
    return (nn.functional.conv2d(maps.square(), weights) + 1e-6).sqrt()


class ImageScores(nn.Module):
    """Image-level scores of hypercolumns, see `methods.cam.CAM`."""

    def __init__(self, cam: CAM) -> None:
        super().__init__()
        assert cam.local is not None
        self.cam, self.local = cam, cam.local

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, classes)."""
        planes = self.cam.head(maps[:, : self.cam.channels])
        levels = torch.split(maps[:, self.cam.levels], list(self.local.channels), dim=1)
        local = nn.functional.conv2d(
            torch.cat([level / cell_rms(level) for level in levels], dim=1), self.local.cells.weight
        )
        cells = local.flatten(2)
        number = torch.ones_like(cells[:, :1]).sum(dim=2)
        assert self.local.cells.bias is not None
        logits = cells.logsumexp(dim=2) - number.log() + self.local.cells.bias
        scores: Tensor = ((planes.mean(dim=(2, 3)) + logits) / 2).sigmoid()
        return scores


class ExportedNetwork(nn.Module):
    """The network of a box-supervised head; subclasses give the boxes.

    Args:
        network: as it was loaded.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        model = network.model
        assert isinstance(model, BoxSupervised)
        self.columns, self.image_scores, self.pca = Columns(network), ImageScores(model.cam), model.pca
        self.stride = model.stride

    def shared(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, H, W, 3) uint8 -> principal components (B, out_channels, h, w), image-level scores (B, classes),
        and the factor of the scores of boxes (B, 1, classes)."""
        maps = self.columns(images)
        last, *earlier = torch.split(maps, list(self.pca.channels), dim=1)
        view = torch.cat([components(self.pca.last, [last]), components(self.pca.earlier, earlier)], dim=1)
        image_scores = self.image_scores(maps)
        return view, image_scores, (image_scores**IMAGE_SCORE_POWER)[:, None]


def components(pca: PCA, maps: list[Tensor]) -> Tensor:
    """The principal components of maps (B, C, h, w): (B, dims, h, w)."""
    found = -(pca.components @ pca.mean)[:, None, None]
    for own, weights in zip(maps, torch.split(pca.components, list(pca.channels), dim=1), strict=True):
        found = found + nn.functional.conv2d(own, weights[:, :, None, None]) / cell_rms(own)
    return found


def clipped(boxes: Tensor, images: Tensor) -> Tensor:
    """Boxes (B, N, 4), xyxy pixels, clipped to images (B, H, W, 3)."""
    height, width = images.shape[1], images.shape[2]
    return torch.stack(
        [boxes[..., side].clamp(0, limit) for side, limit in enumerate((width, height, width, height))], dim=-1
    )


class ExportedFCOS(ExportedNetwork):
    """`FCOS` on images alone."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        assert isinstance(network.model, FCOS)
        self.head = network.model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, H, W, 3) uint8 -> `runtime.OUTPUTS`; scores (B, cells, classes) and boxes (B, cells, 4), cells row
        by row."""
        view, image_scores, factor = self.shared(images)
        features = self.head.reduce(view)
        in_boxes = self.head.box_tower(features)
        logits, quality = self.head.classify(self.head.class_tower(features)), self.head.quality(in_boxes)
        ltrb = (self.head.ltrb(in_boxes) * self.head.scale).clamp(max=MAX_LOG_DISTANCE).exp() * self.stride
        classes, qualities, sides = (part.flatten(2).transpose(1, 2) for part in (logits, quality, ltrb))
        centres = cell_centres(view, self.stride)
        boxes = clipped(torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=-1), images)
        inside = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        return image_scores, classes.sigmoid() * qualities.sigmoid() * factor * inside[..., None], boxes


def cell_centres(view: Tensor, stride: int) -> Tensor:
    """The centres of the cells of maps (B, C, h, w), row by row: (h * w, 2), x and y in pixels."""
    rows, columns = ((torch.arange(side) + 0.5) * stride for side in view.shape[2:])
    x, y = columns[None] + 0 * rows[:, None], rows[:, None] + 0 * columns[None]
    return torch.stack([x, y], dim=-1).flatten(0, 1)


class ExportedFastRCNN(ExportedNetwork):
    """`FastRCNN` on images and their proposals."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        assert isinstance(network.model, FastRCNN)
        self.head, self.side = network.model, network.model.config.pool
        self.register_buffer("cells", cell_sums(self.side))
        self.cells: Tensor

    def forward(self, images: Tensor, proposals: Tensor) -> tuple[Tensor, ...]:
        """Images (B, H, W, 3) uint8 and proposals (B, R, 4), xyxy pixels of them -> `runtime.OUTPUTS`; scores
        (B, R, classes) and boxes (B, R, 4)."""
        view, image_scores, factor = self.shared(images)
        # Without the layer that flattens regions.
        hidden = self.head.trunk[1:](self.pooled(view, proposals, images))
        boxes = clipped(decoded(proposals, self.head.regress(hidden)), images)
        return image_scores, self.head.classify(hidden).softmax(dim=-1)[..., : self.head.classes] * factor, boxes

    def pooled(self, view: Tensor, proposals: Tensor, images: Tensor) -> Tensor:
        """The means of `roi_average_pool`, of the cells of regions and of their context: (B, R, (side^2 + 1) * C)."""
        centre, half = (proposals[..., :2] + proposals[..., 2:]) / 2, (proposals[..., 2:] - proposals[..., :2]) / 2
        grown = clipped(torch.cat([centre - half * CONTEXT_RATIO, centre + half * CONTEXT_RATIO], dim=-1), images)
        area, grown_area = (
            ((box[..., 2:] - box[..., :2]) / self.stride).prod(dim=-1, keepdim=True) for box in (proposals, grown)
        )
        # Some networks have no cells for the last pixels: there the run goes on in the last cell, RoiAlign does not.
        view = nn.functional.pad(view, (0, 2, 0, 2), mode="replicate")
        integral = nn.functional.pad(view.cumsum(2).cumsum(3), (1, 0, 1, 0))
        corners = integral_at(integral, proposals / self.stride, self.side)
        outer = integral_at(integral, grown / self.stride, 1)
        whole = outer[..., 3] - outer[..., 2] - outer[..., 1] + outer[..., 0]
        sums = corners @ self.cells
        means = sums[..., :-1] / (area / self.side**2)[..., None]
        context = (whole - sums[..., -1]) / (grown_area - area).clamp(min=0.5)
        return torch.cat([means.transpose(2, 3).flatten(2), context], dim=-1)


def cell_sums(side: int) -> Tensor:
    """From the integral at the (side + 1)^2 corners of a grid to the sums over its cells, row by row, and over the
    whole grid, as a matrix: ((side + 1)^2, side^2 + 1)."""
    corners = torch.eye((side + 1) ** 2).reshape(side + 1, side + 1, -1)
    cells = (corners[1:, 1:] - corners[:-1, 1:] - corners[1:, :-1] + corners[:-1, :-1]).flatten(0, 1)
    return torch.cat([cells, cells.sum(dim=0, keepdim=True)]).T.contiguous()


def integral_at(integral: Tensor, boxes: Tensor, side: int) -> Tensor:
    """An integral map (B, C, h + 1, w + 1) at the corners of grids on boxes (B, R, 4) in cells, between its places by
    bilinear interpolation: (B, R, C, (side + 1)^2), row by row.

    RoIAlign (He et al., ICCV 2017) does so in the middle of each of its bins.
    """
    batch, number = boxes.shape[:2]
    half = (boxes[..., 2:] - boxes[..., :2]) / (2 * side)
    # RoIAlign takes places for centres of pixels.
    bins = torch.cat([boxes[..., :2] - half, boxes[..., 2:] + half], dim=-1) + 0.5
    images = torch.arange(batch)[:, None].expand(batch, number).flatten()
    found: Tensor = torch.onnx.ops.symbolic(
        "RoiAlign",
        (integral, bins.flatten(0, 1), images),
        {
            "mode": "avg",
            "coordinate_transformation_mode": "half_pixel",
            "output_height": side + 1,
            "output_width": side + 1,
            "sampling_ratio": 1,
            "spatial_scale": 1.0,
        },
        dtype=integral.dtype,
        shape=(batch * number, integral.shape[1], side + 1, side + 1),
    )
    return found.flatten(2).reshape(batch, number, found.shape[1], -1)


def decoded(boxes: Tensor, deltas: Tensor) -> Tensor:
    """`box_ops.decode` of boxes (B, R, 4), before they are clipped."""
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2 + deltas[..., :2] * DELTA_SCALE_XY * sides
    halves = sides * (deltas[..., 2:] * DELTA_SCALE_WH).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def exported_network(network: Network) -> ExportedNetwork:
    """What a file computes, for a network of a kind that can be exported."""
    graph = ExportedFCOS(network) if isinstance(network.model, FCOS) else ExportedFastRCNN(network)
    return graph.eval().requires_grad_(False)
