"""The inner loops of the supervoxels, compiled by numba. Arrays are changed in place; see `fsseg.data.supervoxels`."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def find(parent, voxel):
    """The root of a voxel's region, halving the path to it."""
    while parent[voxel] != voxel:
        parent[voxel] = parent[parent[voxel]]
        voxel = parent[voxel]
    return voxel


@numba.njit(cache=True, nogil=True)
def union(parent, size, a, b):
    """Joins two roots and returns the new one, which is always the smaller index."""
    root, child = min(a, b), max(a, b)
    parent[child] = root
    size[root] += size[child]
    return root


@numba.njit(cache=True, nogil=True)
def flatten(parent):
    """Points every voxel at its root; one sweep, as a parent's index is never larger."""
    for voxel in range(parent.size):
        parent[voxel] = parent[parent[voxel]]


@numba.njit(cache=True, nogil=True)
def collect(image, weights, directions, root, size, low, high, min_size, costs, ends):
    """Writes the edges of a band, by direction and then raster; returns their number, also where there is no room."""
    slices, height, width = image.shape
    count, room = 0, costs.size
    for number in range(directions.shape[0]):
        dz, dy, dx = directions[number]
        weight = weights[number]
        offset = (dz * height + dy) * width + dx
        for z in range(slices - dz):
            for y in range(max(0, -dy), min(height, height - dy)):
                for x in range(max(0, -dx), min(width, width - dx)):
                    first = (z * height + y) * width + x
                    a, b = root[first], root[first + offset]
                    if a == b or (min_size > 0 and size[a] >= min_size and size[b] >= min_size):
                        continue
                    difference = image[z, y, x] - image[z + dz, y + dy, x + dx]
                    cost = np.sqrt(weight * (difference * difference))
                    if low <= cost < high:
                        if count < room:
                            costs[count] = cost
                            ends[0, count] = first
                            ends[1, count] = first + offset
                        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def merge_similar(costs, first, second, parent, size, inner, k):
    """Phase 1 over sorted edges; the sums are rounded to single precision, as in the published code."""
    for edge in range(costs.size):
        a, b = find(parent, first[edge]), find(parent, second[edge])
        if a == b:
            continue
        if costs[edge] < min(np.float32(inner[a] + k / size[a]), np.float32(inner[b] + k / size[b])):
            inner[union(parent, size, a, b)] = costs[edge]


@numba.njit(cache=True, nogil=True)
def merge_small(first, second, parent, size, min_size):
    """Phase 2 over sorted edges."""
    for edge in range(first.size):
        a, b = find(parent, first[edge]), find(parent, second[edge])
        if a != b and (size[a] < min_size or size[b] < min_size):
            union(parent, size, a, b)
