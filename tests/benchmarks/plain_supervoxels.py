"""What the supervoxels' speed is measured against: the same method written down plainly, and volumes to run it on.

All edges are built at once and sorted once, and both phases visit every edge in that order. Its loops are compiled like
those of `fsseg.data.supervoxels.felzenszwalb`, and it shares none of that code. The result must be the same to the last voxel.
"""

from math import sqrt

import numba
import numpy as np
from scipy import ndimage

STEPS = np.array(
    [
        (0, 1, 0), (0, 1, 1), (0, 0, 1), (0, 1, -1), (1, 1, 0), (1, 1, 1), (1, 0, 1),
        (1, -1, 0), (1, -1, -1), (1, 0, -1), (1, 1, -1), (1, -1, 1), (1, 0, 0),
    ],
    dtype=np.int64,
)  # fmt: skip

VOLUMES = {
    "continuous, 36 slices": {
        "shape": (36, 256, 256),
        "spacing": (7.7, 1.25, 1.25),
        "min_size": 5000,
    },
    "integers, 36 slices": {
        "shape": (36, 256, 256),
        "spacing": (7.7, 1.25, 1.25),
        "min_size": 5000,
    },
    "continuous, 96 slices": {
        "shape": (96, 256, 256),
        "spacing": (3.0, 1.25, 1.25),
        "min_size": 2000,
    },
    "integers, 96 slices": {
        "shape": (96, 256, 256),
        "spacing": (3.0, 1.25, 1.25),
        "min_size": 2000,
    },
}


def volume(name: str, seed: int = 0) -> np.ndarray:
    """One of the volumes from 0 to 255: smooth structures with noise, continuous or stored as whole numbers."""
    shape, through_plane = VOLUMES[name]["shape"], VOLUMES[name]["spacing"][0]
    rng = np.random.default_rng(seed)
    values = np.zeros(shape)
    for extent, contrast in [(35.0, 200.0), (10.0, 90.0)]:  # mm, grey values
        smooth = ndimage.gaussian_filter(
            rng.normal(size=shape), [extent / through_plane, extent / 1.25, extent / 1.25]
        )
        values += contrast * smooth / smooth.std()
    values += 24 * rng.normal(size=shape)
    values = 915 * (values - values.min()) / (values.max() - values.min())
    if name.startswith("integers"):
        values = np.round(values)
    return 255 * (values - values.min()) / (values.max() - values.min())


def plain_supervoxels(image, *, spacing, min_size, scale=1.0):
    """Region ids from 0, in raster order of each region's first voxel."""
    costs, ends = _all_edges(image, _squared_weights(spacing))
    order = np.argsort(costs, kind="stable")
    parent = np.arange(image.size, dtype=np.int32)
    _merge(order, costs, ends, parent, scale / 255, min_size)
    return _dense(parent).reshape(image.shape)


def _squared_weights(spacing):
    ratio = spacing[0] / spacing[2]
    squared = np.where(STEPS[:, 0] != 0, ratio**2, 0) + (STEPS[:, 1:] != 0).sum(axis=1)
    return (np.sqrt(squared) / np.sqrt((STEPS != 0).sum(axis=1))) ** 2


def _all_edges(image, weights):
    slices, height, width = image.shape
    count = sum(
        (slices - abs(z)) * (height - abs(y)) * (width - abs(x)) for z, y, x in STEPS.tolist()
    )
    costs, ends = np.empty(max(count, 0)), np.empty((max(count, 0), 2), dtype=np.int32)
    _fill(image, weights, STEPS, costs, ends)
    return costs, ends


@numba.njit(cache=True)
def _fill(image, weights, steps, costs, ends):
    slices, height, width = image.shape
    edge = 0
    for number in range(len(steps)):
        dz, dy, dx = steps[number]
        offset = (dz * height + dy) * width + dx
        for z in range(slices - dz):
            for y in range(max(0, -dy), min(height, height - dy)):
                for x in range(max(0, -dx), min(width, width - dx)):
                    difference = image[z, y, x] - image[z + dz, y + dy, x + dx]
                    costs[edge] = sqrt(weights[number] * (difference * difference))
                    voxel = (z * height + y) * width + x
                    ends[edge, 0] = voxel
                    ends[edge, 1] = voxel + offset
                    edge += 1


@numba.njit(cache=True)
def _root(parent, voxel):
    while parent[voxel] != voxel:
        parent[voxel] = parent[parent[voxel]]
        voxel = parent[voxel]
    return voxel


@numba.njit(cache=True)
def _merge(order, costs, ends, parent, k, min_size):
    size = np.ones(parent.size, dtype=np.int32)
    inner = np.zeros(parent.size)
    for edge in order:
        a, b = _root(parent, ends[edge, 0]), _root(parent, ends[edge, 1])
        limit = min(np.float32(inner[a] + k / size[a]), np.float32(inner[b] + k / size[b]))
        if a != b and costs[edge] < limit:
            root = _join(parent, size, a, b)
            inner[root] = costs[edge]
    for edge in order:
        a, b = _root(parent, ends[edge, 0]), _root(parent, ends[edge, 1])
        if a != b and (size[a] < min_size or size[b] < min_size):
            _join(parent, size, a, b)


@numba.njit(cache=True)
def _join(parent, size, a, b):
    root, child = min(a, b), max(a, b)
    parent[child] = root
    size[root] += size[child]
    return root


@numba.njit(cache=True)
def _dense(parent):
    labels = np.empty(parent.size, dtype=np.int32)
    count = 0
    for voxel in range(parent.size):
        if parent[voxel] == voxel:
            labels[voxel] = count
            count += 1
        else:  # a parent's index is smaller than its child's
            parent[voxel] = parent[parent[voxel]]
            labels[voxel] = labels[parent[voxel]]
    return labels
