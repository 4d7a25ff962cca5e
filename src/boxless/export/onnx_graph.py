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
from boxless.methods.layers import cell_rms, unit_rms
from boxless.methods.pca import PCA
from boxless.methods.roi_pooling import CONTEXT_RATIO
from boxless.run_folder import Network


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
    """`Hypercolumns` of normalised images, rounded as the cache of feature maps rounds them.

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


class CAMOutputs(nn.Module):
    """Image-level scores, CAMs and objectness of hypercolumns, see `methods.cam.CAM`."""

    def __init__(self, cam: CAM) -> None:
        super().__init__()
        assert cam.objectness is not None and cam.local is not None
        self.cam, self.objectness, self.local = cam, cam.objectness, cam.local

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, h, w) -> scores (B, classes), CAMs (B, classes, h, w) and log odds (B, h, w)."""
        planes = self.cam.head(maps[:, : self.cam.channels])
        levels = torch.split(maps[:, self.cam.levels], list(self.local.channels), dim=1)
        local = nn.functional.conv2d(torch.cat([unit_rms(level) for level in levels], dim=1), self.local.cells.weight)
        cells = local.flatten(2)
        number = torch.ones_like(cells[:, :1]).sum(dim=2)
        assert self.local.cells.bias is not None
        logits = cells.logsumexp(dim=2) - number.log() + self.local.cells.bias
        scores = ((planes.mean(dim=(2, 3)) + logits) / 2).sigmoid()
        odds = self.objectness.cells(unit_rms(maps[:, self.cam.early]).permute(0, 2, 3, 1))[..., 0]
        odds = nn.functional.avg_pool2d(odds[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]
        bias = self.cam.head[-1].bias
        assert isinstance(bias, Tensor)
        return scores, planes - bias[:, None, None], odds


class ExportedNetwork(nn.Module):
    """The network of a box-supervised head; subclasses give the boxes.

    Args:
        network: as it was loaded.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        model = network.model
        assert isinstance(model, BoxSupervised)
        self.columns, self.cam, self.pca = Columns(network), CAMOutputs(model.cam), model.pca
        self.stride = model.stride

    def shared(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
        """Images (B, H, W, 3) uint8 -> principal components (B, out_channels, h, w), the CAM's outputs, and the factor
        of the scores of boxes (B, 1, classes)."""
        maps = self.columns(images)
        last, *earlier = torch.split(maps, list(self.pca.channels), dim=1)
        view = torch.cat([components(self.pca.last, [last]), components(self.pca.earlier, earlier)], dim=1)
        cam = self.cam(maps)
        return view, cam, (cam[0] ** IMAGE_SCORE_POWER)[:, None]


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
        by row, are means over both mirrorings."""
        view, cam, factor = self.shared(images)
        size = view.shape[0]
        features = self.head.reduce(torch.cat([view, view.flip(3)]))
        in_boxes = self.head.box_tower(features)
        logits, quality = self.head.classify(self.head.class_tower(features)), self.head.quality(in_boxes)
        ltrb = (self.head.ltrb(in_boxes) * self.head.scale).clamp(max=MAX_LOG_DISTANCE).exp() * self.stride
        centres = cell_centres(view, self.stride)
        scores, boxes = [], []
        for mirrored in (False, True):
            parts = [part[size:].flip(3) if mirrored else part[:size] for part in (logits, quality, ltrb)]
            classes, qualities, sides = (part.flatten(2).transpose(1, 2) for part in parts)
            near, far = (sides[..., [2, 1]], sides[..., [0, 3]]) if mirrored else (sides[..., :2], sides[..., 2:])
            found = clipped(torch.cat([centres - near, centres + far], dim=-1), images)
            inside = (found[..., 2] > found[..., 0]) & (found[..., 3] > found[..., 1])
            scores.append(classes.sigmoid() * qualities.sigmoid() * factor * inside[..., None])
            boxes.append(found)
        return *cam, (scores[0] + scores[1]) / 2, (boxes[0] + boxes[1]) / 2


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
        shape = torch.Size((self.side, self.side, self.pca.out_channels))
        symmetric, antisymmetric = self.head.split_first_layer(shape)
        self.register_buffer("symmetric", symmetric)
        self.register_buffer("antisymmetric", antisymmetric)
        self.symmetric: Tensor
        self.antisymmetric: Tensor

    def forward(self, images: Tensor, proposals: Tensor) -> tuple[Tensor, ...]:
        """Images (B, H, W, 3) uint8 and proposals (B, R, 4), xyxy pixels of them -> `runtime.OUTPUTS`; scores
        (B, R, classes) and boxes (B, R, 4) are means over both mirrorings."""
        view, cam, factor = self.shared(images)
        regions, context = self.pooled(view, proposals, images)
        width = images.shape[2]
        scores, boxes = [], []
        for mirrored, hidden in enumerate(self.both_mirrorings(regions, context)):
            given = mirrored_boxes(proposals, width) if mirrored else proposals
            found = clipped(decoded(given, self.head.regress(hidden)), images)
            scores.append(self.head.classify(hidden).softmax(dim=-1)[..., : self.head.classes] * factor)
            boxes.append(mirrored_boxes(found, width) if mirrored else found)
        return *cam, (scores[0] + scores[1]) / 2, (boxes[0] + boxes[1]) / 2

    def pooled(self, view: Tensor, proposals: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """The means of `roi_average_pool`: regions (B, R, side, side, C) and context (B, R, C).

        As a product with the share of every location in every cell: integral maps need places that depend on data.
        """
        centre, half = (proposals[..., :2] + proposals[..., 2:]) / 2, (proposals[..., 2:] - proposals[..., :2]) / 2
        grown = clipped(torch.cat([centre - half * CONTEXT_RATIO, centre + half * CONTEXT_RATIO], dim=-1), images)
        inside = sums(view, proposals / self.stride, self.side)
        whole = sums(view, grown / self.stride, 1).flatten(2)
        area, grown_area = (
            ((box[..., 2:] - box[..., :2]) / self.stride).prod(dim=-1, keepdim=True) for box in (proposals, grown)
        )
        regions = inside / (area / self.side**2)[..., None, None]
        return regions, (whole - inside.sum(dim=(2, 3))) / (grown_area - area).clamp(min=0.5)

    def both_mirrorings(self, regions: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """See `FastRCNN._both_mirrorings`: (B, R, hidden) each."""
        half, whole = self.side // 2, (self.side + 1) // 2
        left, middle, right = regions[..., :half, :], regions[..., half:whole, :], regions.flip(3)[..., :half, :]
        even = torch.cat([(left + right).flatten(2), middle.flatten(2), context], dim=-1)
        first, rest = self.head.trunk[1], self.head.trunk[2:]
        assert isinstance(first, nn.Linear)
        common = nn.functional.linear(even, self.symmetric, first.bias)
        difference = nn.functional.linear((left - right).flatten(2), self.antisymmetric)
        return rest(common + difference), rest(common - difference)


def mirrored_boxes(boxes: Tensor, width: int) -> Tensor:
    """Boxes (B, R, 4), xyxy pixels, in an image of `width` pixels mirrored left to right."""
    return torch.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], dim=-1)


def decoded(boxes: Tensor, deltas: Tensor) -> Tensor:
    """`box_ops.decode` of boxes (B, R, 4), before they are clipped."""
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2 + deltas[..., :2] * DELTA_SCALE_XY * sides
    halves = sides * (deltas[..., 2:] * DELTA_SCALE_WH).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def sums(view: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Sums of maps (B, C, h, w) within grids on boxes (B, R, 4) in cells: (B, R, side, side, C)."""
    steps = torch.linspace(0, 1, side + 1)
    near, far = boxes[..., :2, None], boxes[..., 2:, None]
    x, y = torch.lerp(near, far, steps).unbind(dim=2)
    across, down = _shares(x, view.shape[3]), _shares(y, view.shape[2])
    weights = (down[:, :, :, None, :, None] * across[:, :, None, :, None, :]).flatten(4).flatten(1, 3)
    found: Tensor = weights @ view.flatten(2).transpose(1, 2)
    return found.reshape(found.shape[0], -1, side, side, found.shape[2])


def _shares(edges: Tensor, cells: int) -> Tensor:
    """How much of each cell of an axis lies between neighbouring edges (B, R, side + 1): (B, R, side, cells)."""
    starts = torch.arange(cells)
    low, high = edges[..., :-1, None], edges[..., 1:, None]
    return (torch.minimum(high, starts + 1) - torch.maximum(low, starts)).clamp(min=0)


def exported_network(network: Network) -> ExportedNetwork:
    """What a file computes, for a network of a kind that can be exported."""
    graph = ExportedFCOS(network) if isinstance(network.model, FCOS) else ExportedFastRCNN(network)
    return graph.eval().requires_grad_(False)
