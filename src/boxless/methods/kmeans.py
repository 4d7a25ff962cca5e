"""K-means in one dimension, solved exactly (Wang and Song, R Journal 2011), compiled by Numba."""

import numpy as np
from numpy.typing import NDArray

from boxless.compiling import compiled


@compiled
def last_cluster_start(values: NDArray[np.float64], weights: NDArray[np.float64], clusters: int) -> int:
    """Index of the first value of the highest cluster.

    Args:
        values: (N,) float64, rising, N at least `clusters`.
        weights: (N,) float64, how often each occurs.
        clusters: how many, at least two.
    """
    number = len(values)
    # Distances are sums of squares less squared sums, which want values around zero.
    shifted = values - values.mean()
    weight, total, square = np.zeros(number + 1), np.zeros(number + 1), np.zeros(number + 1)
    for index in range(number):
        weight[index + 1] = weight[index] + weights[index]
        total[index + 1] = total[index] + weights[index] * shifted[index]
        square[index + 1] = square[index] + weights[index] * shifted[index] ** 2
    # costs[end]: least squared distance of the values before `end` to the centres of as many clusters as there are yet.
    costs, start = np.zeros(number + 1), 0
    costs[1:] = square[1:] - total[1:] ** 2 / weight[1:]
    for cluster in range(1, clusters):
        before, costs = costs, np.full(number + 1, np.inf)
        for end in range(number if cluster == clusters - 1 else cluster + 1, number + 1):
            for begin in range(cluster, end):
                spread = square[end] - square[begin] - (total[end] - total[begin]) ** 2 / (weight[end] - weight[begin])
                if before[begin] + spread < costs[end]:
                    costs[end], start = before[begin] + spread, begin
    return start
