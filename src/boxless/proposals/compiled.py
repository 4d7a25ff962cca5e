"""The loops of `grouping`, compiled by Numba, see `compiling.compiled`.

All functions release the GIL. Arithmetic is on integers or in a fixed order: results are bit-identical in any thread.
Planes are (h, w, 3) float32 with values from 0 to 255, boxes int32 xyxy pixels, right and bottom exclusive.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxless.compiling import compiled

Array = NDArray[Any]

STEPS = 16
"""Edge weights are quantised to 1/STEPS of a colour level, so that a counting sort is possible."""
WEIGHTS = 4096
"""Number of quantised edge weights."""
BINS = 25
"""Bins per channel of a colour histogram."""
TEXTURES = 32
"""Bins per channel of a gradient histogram: eight octants times four magnitudes."""
MAGNITUDES = (4.0, 12.0, 32.0)
"""Lower bounds of the second to fourth magnitude bin."""
UNIT = 1 << 14
"""The sum of a normalised histogram."""
CONTRAST = 40.0
"""Mean colour step across a boundary at which the contrast similarity is 0.5."""


@compiled
def segment(plane: Array, k: float, smallest: int) -> tuple[Array, int]:
    """Graph segmentation (Felzenszwalb and Huttenlocher, IJCV 2004) over the four neighbours of every pixel.

    Args:
        plane: (h, w, 3) float32, smoothed.
        k: scale of observation, the constant of the paper's tau.
        smallest: pixels; smaller regions are merged into the neighbour across the weakest edge.

    Returns:
        (h, w) int32 labels, numbered in the order of their first pixel, row by row, and their number.
    """
    height, width, _ = plane.shape
    edges, weights = _sorted_edges(plane)
    parents, sizes = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
    limits = np.empty(height * width, np.float32)
    tau = np.float32(k * STEPS)
    for pixel in range(height * width):
        parents[pixel], sizes[pixel], limits[pixel] = pixel, 1, tau
    # The few edges between two regions move to the front, for the second pass.
    between = 0
    for rank in range(len(edges)):
        edge = edges[rank]
        a, b = _root(parents, edge >> 1), _root(parents, (edge >> 1) + (width if edge & 1 else 1))
        if a == b:
            continue
        weight = np.float32(weights[rank])
        if weight <= limits[a] and weight <= limits[b]:
            a = _join(parents, sizes, a, b)
            limits[a] = weight + tau / np.float32(sizes[a])
        else:
            edges[between] = edge
            between += 1
    for rank in range(between):
        edge = edges[rank]
        a, b = _root(parents, edge >> 1), _root(parents, (edge >> 1) + (width if edge & 1 else 1))
        if a != b and min(sizes[a], sizes[b]) < smallest:
            _join(parents, sizes, a, b)
    return _numbered(parents, height, width)


@compiled
def describe(plane: Array, labels: Array, count: int) -> tuple[Array, Array, Array, Array]:
    """Sizes, boxes, and histograms of a segmentation's regions.

    Returns:
        (count,) int32 pixels; (count, 4) int32 boxes; (count, 3 BINS) int32 histograms of colours and (count, 3 x 32)
        int32 of gradients, by octant and magnitude, each summing to three times the pixels.
    """
    height, width, _ = plane.shape
    sizes, boxes = np.zeros(count, np.int32), np.zeros((count, 4), np.int32)
    colours, textures = np.zeros((count, 3 * BINS), np.int32), np.zeros((count, 3 * TEXTURES), np.int32)
    for region in range(count):
        boxes[region, 0], boxes[region, 1] = width, height
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            before, after = max(x - 1, 0), min(x + 1, width - 1)
            region = labels[y, x]
            sizes[region] += 1
            boxes[region, 0] = min(boxes[region, 0], x)
            boxes[region, 1] = min(boxes[region, 1], y)
            boxes[region, 2] = max(boxes[region, 2], x + 1)
            boxes[region, 3] = max(boxes[region, 3], y + 1)
            for c in range(3):
                colour = min(max(int(plane[y, x, c] * np.float32(BINS / 256)), 0), BINS - 1)
                colours[region, c * BINS + colour] += 1
                dx, dy = plane[y, after, c] - plane[y, before, c], plane[below, x, c] - plane[above, x, c]
                textures[region, c * TEXTURES + _texture(dx, dy)] += 1
    return sizes, boxes, colours, textures


@compiled
def boundaries(plane: Array, labels: Array, count: int) -> tuple[Array, Array]:
    """Length of the boundary between every two regions, and the sum of the steps in colour across it.

    A step is measured over three pixels, because the blur has widened it.

    Returns:
        Both (count, count) float32, symmetric; 0 where two regions do not touch.
    """
    height, width, _ = plane.shape
    lengths, steps = np.zeros((count, count), np.float32), np.zeros((count, count), np.float32)
    for y in range(height):
        for x in range(width):
            for down in range(2):
                if y + down >= height or x + 1 - down >= width:
                    continue
                a, b = labels[y, x], labels[y + down, x + 1 - down]
                if a == b:
                    continue
                top, bottom = max(y - down, 0), min(y + 2 * down, height - 1)
                left, right = max(x - 1 + down, 0), min(x + 2 - 2 * down, width - 1)
                step = _distance(plane, top, left, bottom, right)
                lengths[a, b] += 1
                lengths[b, a] += 1
                steps[a, b] += step
                steps[b, a] += step
    return lengths, steps


@compiled
def group(
    sizes: Array, boxes: Array, histograms: Array, lengths: Array, steps: Array, by_contrast: bool
) -> tuple[Array, Array]:
    """Hierarchical grouping (Uijlings et al., section 3.1): merge the two most similar neighbours, repeatedly.

    Of equally similar pairs, that of the lowest numbers is merged first; the merged region keeps the lower number.

    Args:
        sizes: (R,) int32 pixels.
        boxes: (R, 4) int32.
        histograms: (R, B) int32 of sum UNIT; their intersection is one part of the similarity. B may be 0.
        lengths: (R, R) float32, as `boundaries` gives them.
        steps: (R, R) float32.
        by_contrast: whether the contrast across the boundary is one part of the similarity.

    Returns:
        (2R - 1, 4) int32 boxes: the regions, then the merged ones; (2R - 1,) int32 levels: the number of regions at the
        time each appeared.
    """
    count = len(sizes)
    sizes, boxes, histograms = sizes.copy(), boxes.copy(), histograms.copy()
    lengths, steps = lengths.copy(), steps.copy()
    found, levels = np.empty((2 * count - 1, 4), np.int32), np.empty(2 * count - 1, np.int32)
    # The most similar neighbour of every region, so that a merge updates few rows.
    similarity, best = np.empty((count, count), np.float32), np.empty(count, np.int32)
    area = np.float32(0)
    for a in range(count):
        area += np.float32(sizes[a])
    for a in range(count):
        _note(found, levels, a, boxes, a, count)
        for b in range(count):
            similarity[a, b] = -1
            if lengths[a, b] > 0:
                similarity[a, b] = _similarity(sizes, boxes, histograms, lengths, steps, by_contrast, area, a, b)
        best[a] = _highest(similarity, a)
    for left in range(count - 1, 0, -1):
        a, highest = 0, np.float32(-1)
        for r in range(count):
            if best[r] >= 0 and similarity[r, best[r]] > highest:
                a, highest = r, similarity[r, best[r]]
        b = int(best[a])
        _merge(sizes, boxes, histograms, a, b)
        _note(found, levels, 2 * count - 1 - left, boxes, a, left)
        best[b] = -1
        similarity[a, b] = -1
        for r in range(count):
            if best[r] < 0 or r == a or lengths[a, r] + lengths[b, r] == 0:
                continue
            lengths[a, r] += lengths[b, r]
            lengths[r, a] = lengths[a, r]
            steps[a, r] += steps[b, r]
            steps[r, a] = steps[a, r]
            similar = _similarity(sizes, boxes, histograms, lengths, steps, by_contrast, area, a, r)
            before = similarity[r, best[r]]
            similarity[a, r], similarity[r, a], similarity[r, b] = similar, similar, -1
            if best[r] == a or best[r] == b:
                best[r] = _highest(similarity, r)
            elif similar > before or (similar == before and a < best[r]):
                best[r] = a
        best[a] = _highest(similarity, a)
    return found, levels


@compiled
def suppress(boxes: Array, overlap: float, most: int) -> Array:
    """Indices of the first `most` boxes whose IoU with all boxes kept before them is at most `overlap` (greedy NMS)."""
    kept = np.empty(most, np.int64)
    corners, areas = np.empty((4, most), np.int32), np.empty(most, np.int32)
    count = 0
    for index in range(len(boxes)):
        left, top, right, bottom = boxes[index, 0], boxes[index, 1], boxes[index, 2], boxes[index, 3]
        area = (right - left) * (bottom - top)
        new = True
        for k in range(count):
            # The areas alone bound the IoU of most pairs.
            if min(area, areas[k]) > overlap * max(area, areas[k]):
                width = min(right, corners[2, k]) - max(left, corners[0, k])
                height = min(bottom, corners[3, k]) - max(top, corners[1, k])
                shared = max(width, 0) * max(height, 0)
                if shared > overlap * (area + areas[k] - shared):
                    new = False
                    break
        if new:
            kept[count], areas[count] = index, area
            corners[0, count], corners[1, count], corners[2, count], corners[3, count] = left, top, right, bottom
            count += 1
            if count == most:
                break
    return kept[:count]


@compiled
def _sorted_edges(plane: Array) -> tuple[Array, Array]:
    """Edges (twice the pixel's index, plus 1 for downwards) and their weights, by counting sort."""
    height, width, _ = plane.shape
    keys = np.empty(2 * height * width, np.int32)
    starts = np.zeros(WEIGHTS + 1, np.int32)
    for y in range(height):
        for x in range(width):
            for down in range(2):
                edge = 2 * (y * width + x) + down
                keys[edge] = -1
                if y + down < height and x + 1 - down < width:
                    distance = _distance(plane, y, x, y + down, x + 1 - down)
                    keys[edge] = min(np.int32(distance * np.float32(STEPS)), WEIGHTS - 1)
                    starts[keys[edge] + 1] += 1
    for weight in range(WEIGHTS):
        starts[weight + 1] += starts[weight]
    edges, weights = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
    for edge in range(len(keys)):
        if keys[edge] >= 0:
            place = starts[keys[edge]]
            edges[place], weights[place] = edge, keys[edge]
            starts[keys[edge]] += 1
    return edges, weights


@compiled
def _root(parents: Array, node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@compiled
def _join(parents: Array, sizes: Array, a: int, b: int) -> int:
    if sizes[a] < sizes[b]:
        a, b = b, a
    parents[b] = a
    sizes[a] += sizes[b]
    return a


@compiled
def _numbered(parents: Array, height: int, width: int) -> tuple[Array, int]:
    labels, names = np.empty((height, width), np.int32), np.zeros(height * width, np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            root = _root(parents, y * width + x)
            if names[root] == 0:
                count += 1
                names[root] = count
            labels[y, x] = names[root] - 1
    return labels, count


@compiled
def _distance(plane: Array, y: int, x: int, v: int, u: int) -> float:
    """Euclidean distance between the colours of pixels (x, y) and (u, v)."""
    a, b, c = plane[y, x, 0] - plane[v, u, 0], plane[y, x, 1] - plane[v, u, 1], plane[y, x, 2] - plane[v, u, 2]
    distance: float = np.sqrt(a * a + b * b + c * c)
    return distance


@compiled
def _note(found: Array, levels: Array, place: int, boxes: Array, region: int, level: int) -> None:
    levels[place] = level
    for side in range(4):
        found[place, side] = boxes[region, side]


@compiled
def _highest(similarity: Array, row: int) -> int:
    best = 0
    for column in range(similarity.shape[1]):
        if similarity[row, column] > similarity[row, best]:
            best = column
    return best


@compiled
def _texture(dx: float, dy: float) -> int:
    """Bin of a gradient: its octant, times four, plus its magnitude bin."""
    octant = 4 * (dx < 0) + 2 * (dy < 0) + (abs(dy) > abs(dx))
    magnitude = abs(dx) + abs(dy)
    return octant * 4 + (magnitude > MAGNITUDES[0]) + (magnitude > MAGNITUDES[1]) + (magnitude > MAGNITUDES[2])


@compiled
def _merge(sizes: Array, boxes: Array, histograms: Array, a: int, b: int) -> None:
    """Merge region b into a; the histogram is the mean, weighted by size."""
    share = np.float32(sizes[a] / (sizes[a] + sizes[b]))
    rest = np.float32(1) - share
    for i in range(histograms.shape[1]):
        histograms[a, i] = np.int32(histograms[a, i] * share + histograms[b, i] * rest)
    sizes[a] += sizes[b]
    boxes[a, 0], boxes[a, 1] = min(boxes[a, 0], boxes[b, 0]), min(boxes[a, 1], boxes[b, 1])
    boxes[a, 2], boxes[a, 3] = max(boxes[a, 2], boxes[b, 2]), max(boxes[a, 3], boxes[b, 3])


@compiled
def _similarity(
    sizes: Array,
    boxes: Array,
    histograms: Array,
    lengths: Array,
    steps: Array,
    by_contrast: bool,
    area: np.float32,
    a: int,
    b: int,
) -> np.float32:
    """Sum of size and fill (section 3.2 of the paper), histogram intersection and contrast, each from 0 to 1."""
    width = max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])
    height = max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
    both = np.float32(sizes[a] + sizes[b])
    total = (np.float32(1) - both / area) + (np.float32(1) - (np.float32(width * height) - both) / area)
    if histograms.shape[1] > 0:
        shared = np.int32(0)
        for i in range(histograms.shape[1]):
            shared += min(histograms[a, i], histograms[b, i])
        total += np.float32(shared) / np.float32(UNIT)
    if by_contrast:
        total += np.float32(1) / (np.float32(1) + steps[a, b] / (lengths[a, b] * np.float32(CONTRAST)))
    return total
