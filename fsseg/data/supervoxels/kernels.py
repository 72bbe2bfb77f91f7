"""The inner loops of the supervoxels, compiled by numba. Arrays are changed in place; see `fsseg.data.supervoxels.felzenszwalb`."""

import numba
import numpy as np

DIGIT_BITS = 11
"""Bits that one pass of the sort looks at: the counters of all digits stay in the processor's first cache."""


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
def settle(parent, size, min_size, small):
    """Points every voxel at its root and notes whether its region is small; returns the number of those that are.

    One sweep is enough, as a parent's index is never larger.
    """
    count = 0
    for voxel in range(parent.size):
        root = parent[parent[voxel]]
        parent[voxel] = root
        small[voxel] = size[root] < min_size
        count += small[voxel]
    return count


@numba.njit(cache=True, nogil=True)
def number_regions(parent, labels):
    """Writes region numbers from 0, in order of each region's first voxel, which is its root."""
    count = 0
    for voxel in range(parent.size):
        if parent[voxel] == voxel:
            labels[voxel] = count
            count += 1
        else:
            labels[voxel] = labels[parent[voxel]]


@numba.njit(cache=True, nogil=True)
def collect(image, weights, directions, root, small, low, high, room):
    """The edges with low <= squared cost < high that join two regions of which one is small, row of voxels by row.

    Returns their costs, the roots of the regions they join (edge, 2) and the numbers of their directions. `room` is
    how many edges to make room for at first.
    """
    slices, height, width = image.shape
    costs, ends, numbers = np.empty(room), np.empty((room, 2), np.int32), np.empty(room, np.uint8)
    marked = np.zeros((width + 7) // 8 * 8, np.uint8)
    words = marked.view(np.uint64)  # eight voxels without a marked edge are passed over at once
    count = 0
    for z in range(slices):
        for y in range(height):
            costs, ends, numbers = with_room(
                costs, ends, numbers, count, directions.shape[0] * width
            )
            for number in range(directions.shape[0]):
                dz, dy, dx = directions[number]
                if z + dz >= slices or not 0 <= y + dy < height:
                    continue
                here, there = (
                    slice(max(0, -dx), min(width, width - dx)),
                    slice(max(0, dx), min(width, width + dx)),
                )
                a, b = image[z, y, here], image[z + dz, y + dy, there]
                root_a, root_b = root[z, y, here], root[z + dz, y + dy, there]
                small_a, small_b = small[z, y, here], small[z + dz, y + dy, there]
                mark(marked, a, b, root_a, root_b, small_a, small_b, weights[number], low, high)
                for word in range(words.size):
                    if words[word] == 0:
                        continue
                    for x in range(8 * word, 8 * word + 8):
                        if marked[x]:
                            difference = a[x] - b[x]
                            costs[count] = np.sqrt(weights[number] * (difference * difference))
                            ends[count, 0], ends[count, 1] = root_a[x], root_b[x]
                            numbers[count] = number
                            count += 1
    return costs[:count], ends[:count], numbers[:count]


@numba.njit(cache=True, nogil=True)
def mark(marked, a, b, root_a, root_b, small_a, small_b, weight, low, high):
    """Marks the edges to keep between two rows; without a branch, so that several are tested by one instruction."""
    for x in range(a.size):
        difference = a[x] - b[x]
        squared = weight * (difference * difference)
        in_band = (squared >= low) & (squared < high)
        marked[x] = in_band & (root_a[x] != root_b[x]) & ((small_a[x] | small_b[x]) != 0)
    marked[a.size :] = 0


@numba.njit(cache=True, nogil=True)
def with_room(costs, ends, numbers, count, more):
    """The three arrays, moved to longer ones when they have no room for `more` edges after the first `count`."""
    if count + more <= costs.size:
        return costs, ends, numbers
    room = costs.size + costs.size // 2 + more
    longer = np.empty(room), np.empty((room, 2), np.int32), np.empty(room, np.uint8)
    longer[0][:count], longer[1][:count], longer[2][:count] = (
        costs[:count],
        ends[:count],
        numbers[:count],
    )
    return longer


@numba.njit(cache=True, nogil=True)
def sort(keys, values, numbers):
    """Keys and values in ascending order of (key, number, position): a radix sort, lowest digits first.

    The numbers are the lowest digit. Keys are unsigned, and only the digits in which they differ from the least one
    are looked at. The arguments serve as scratch space.
    """
    if keys.size == 0:
        return keys, values
    digits = np.empty(keys.size, np.uint16)
    digits[:] = numbers
    other_keys, other_values = np.empty_like(keys), np.empty_like(values)
    distribute(digits, keys, values, other_keys, other_values)
    keys, other_keys, values, other_values = other_keys, keys, other_values, values
    least, shift = keys.min(), np.uint64(0)
    spread = keys.max() - least
    while shift < 64 and spread >> shift > 0:
        for edge in range(keys.size):
            digits[edge] = ((keys[edge] - least) >> shift) & np.uint64((1 << DIGIT_BITS) - 1)
        distribute(digits, keys, values, other_keys, other_values)
        keys, other_keys, values, other_values = other_keys, keys, other_values, values
        shift += np.uint64(DIGIT_BITS)
    return keys, values


@numba.njit(cache=True, nogil=True)
def distribute(digits, keys, values, sorted_keys, sorted_values):
    """Writes keys and values in ascending order of their digits; equal digits keep their order."""
    places = np.zeros((1 << DIGIT_BITS) + 1, np.int64)
    for digit in digits:
        places[digit + 1] += 1
    for digit in range(1 << DIGIT_BITS):
        places[digit + 1] += places[digit]
    for edge in range(digits.size):
        place = places[digits[edge]]
        places[digits[edge]] += 1
        sorted_keys[place], sorted_values[place] = keys[edge], values[edge]


@numba.njit(cache=True, nogil=True)
def merge_similar(costs, ends, parent, size, inner, k):
    """Phase 1 over sorted edges; the sums are rounded to single precision, as in the published code."""
    for edge in range(costs.size):
        a, b = find(parent, ends[edge, 0]), find(parent, ends[edge, 1])
        if a == b:
            continue
        if costs[edge] < min(
            np.float32(inner[a] + k / size[a]), np.float32(inner[b] + k / size[b])
        ):
            inner[union(parent, size, a, b)] = costs[edge]


@numba.njit(cache=True, nogil=True)
def merge_small(ends, parent, size, min_size):
    """Phase 2 over sorted edges."""
    for edge in range(ends.shape[0]):
        a, b = find(parent, ends[edge, 0]), find(parent, ends[edge, 1])
        if a != b and (size[a] < min_size or size[b] < min_size):
            union(parent, size, a, b)
