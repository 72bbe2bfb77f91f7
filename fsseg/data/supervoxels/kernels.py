"""The inner loops of the supervoxels, compiled by numba; see `fsseg.data.supervoxels.felzenszwalb`. Arrays are changed in place."""

import numba
import numpy as np

compiled = numba.njit(cache=True, nogil=True)

DIGIT_BITS = 11
"""Bits that one pass of the sort looks at: the counters of all digits stay in the processor's first cache."""

DIGITS = 1 << DIGIT_BITS

WORD = 8
"""Voxels whose marks are looked at together."""


@compiled
def find(parent, voxel):
    """Returns the root of a voxel's region, halving the path to it."""
    while parent[voxel] != voxel:
        parent[voxel] = parent[parent[voxel]]
        voxel = parent[voxel]
    return voxel


@compiled
def union(parent, size, a, b):
    """Joins two roots and returns the new one, which is always the smaller index."""
    root = min(a, b)
    child = max(a, b)
    parent[child] = root
    size[root] += size[child]
    return root


@compiled
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


@compiled
def number_regions(parent, labels):
    """Writes region numbers from 0, in order of each region's first voxel, which is its root."""
    count = 0
    for voxel in range(parent.size):
        if parent[voxel] == voxel:
            labels[voxel] = count
            count += 1
        else:
            labels[voxel] = labels[parent[voxel]]


@compiled
def collect(image, weights, directions, root, small, low, high, room):
    """Collects the edges with low <= squared cost < high that join two regions of which one is small.

    Args:
        image: Intensities (slice, height, width).
        weights: Squared weight of each direction.
        directions: The directions (direction, 3).
        root: Each voxel's root.
        small: Whether each voxel's region may still grow.
        low: Least squared cost.
        high: Squared cost that is too much.
        room: Edges to make room for at first.

    Returns:
        Their costs, the roots of the regions they join (edge, 2) and the numbers of their directions, row of voxels by
        row.
    """
    slices, height, width = image.shape
    costs = np.empty(room)
    ends = np.empty((room, 2), np.int32)
    numbers = np.empty(room, np.uint8)
    marked = np.zeros((width + WORD - 1) // WORD * WORD, np.uint8)
    words = marked.view(np.uint64)  # voxels without a marked edge are passed over together
    most_of_a_row = len(directions) * width
    count = 0
    for z in range(slices):
        for y in range(height):
            costs, ends, numbers = with_room(costs, ends, numbers, count, most_of_a_row)
            for number in range(len(directions)):
                dz, dy, dx = directions[number]
                if z + dz >= slices or not 0 <= y + dy < height:
                    continue
                first = max(0, -dx)
                end = min(width, width - dx)
                here = slice(first, end)
                there = slice(first + dx, end + dx)
                a = image[z, y, here]
                b = image[z + dz, y + dy, there]
                root_a = root[z, y, here]
                root_b = root[z + dz, y + dy, there]
                small_a = small[z, y, here]
                small_b = small[z + dz, y + dy, there]
                weight = weights[number]
                mark(marked, a, b, root_a, root_b, small_a, small_b, weight, low, high)
                # In place and not a function of its own, which takes a tenth longer.
                for word in range(words.size):
                    if words[word] == 0:
                        continue
                    for x in range(WORD * word, WORD * word + WORD):
                        if marked[x]:
                            difference = a[x] - b[x]
                            costs[count] = np.sqrt(weight * (difference * difference))
                            ends[count, 0] = root_a[x]
                            ends[count, 1] = root_b[x]
                            numbers[count] = number
                            count += 1
    return costs[:count], ends[:count], numbers[:count]


@compiled
def mark(
    marked,
    a,
    b,
    root_a,
    root_b,
    small_a,
    small_b,
    weight,
    low,
    high,
):
    """Marks the edges to keep between two rows; without a branch, so that several are tested by one instruction."""
    for x in range(a.size):
        difference = a[x] - b[x]
        squared = weight * (difference * difference)
        in_band = (squared >= low) & (squared < high)
        joins_two = root_a[x] != root_b[x]
        may_grow = (small_a[x] | small_b[x]) != 0
        marked[x] = in_band & joins_two & may_grow
    marked[a.size :] = 0


@compiled
def collect_channels(image, weights, directions, root, small, low, high, room):
    """Collects edges as `collect` does, of an image (slice, channel, height, width).

    The square of a difference is then the mean of the squares over the channels. A loop of its own, since the one above
    takes half its time in tests of one channel.
    """
    slices, channels, height, width = image.shape
    costs = np.empty(room)
    ends = np.empty((room, 2), np.int32)
    numbers = np.empty(room, np.uint8)
    most_of_a_row = len(directions) * width
    count = 0
    for z in range(slices):
        for y in range(height):
            costs, ends, numbers = with_room(costs, ends, numbers, count, most_of_a_row)
            for number in range(len(directions)):
                dz, dy, dx = directions[number]
                if z + dz >= slices or not 0 <= y + dy < height:
                    continue
                weight = weights[number]
                for x in range(max(0, -dx), min(width, width - dx)):
                    root_a = root[z, y, x]
                    root_b = root[z + dz, y + dy, x + dx]
                    may_grow = (small[z, y, x] | small[z + dz, y + dy, x + dx]) != 0
                    if root_a == root_b or not may_grow:
                        continue
                    total = 0.0
                    for channel in range(channels):
                        there = image[z + dz, channel, y + dy, x + dx]
                        difference = image[z, channel, y, x] - there
                        total += difference * difference
                    squared = weight * (total / channels)
                    if low <= squared < high:
                        costs[count] = np.sqrt(squared)
                        ends[count, 0] = root_a
                        ends[count, 1] = root_b
                        numbers[count] = number
                        count += 1
    return costs[:count], ends[:count], numbers[:count]


@compiled
def with_room(costs, ends, numbers, count, more):
    """Returns the three arrays, moved to longer ones if they have no room for `more` edges after the first `count`."""
    if count + more <= costs.size:
        return costs, ends, numbers
    room = costs.size + costs.size // 2 + more
    longer_costs = np.empty(room)
    longer_ends = np.empty((room, 2), np.int32)
    longer_numbers = np.empty(room, np.uint8)
    longer_costs[:count] = costs[:count]
    longer_ends[:count] = ends[:count]
    longer_numbers[:count] = numbers[:count]
    return longer_costs, longer_ends, longer_numbers


@compiled
def sort(keys, values, numbers):
    """Sorts keys and values in ascending order of (key, number, position), by their digits, lowest first.

    The numbers are the lowest digit. Keys are unsigned, and only the digits in which they differ from the least one
    are looked at. The arguments serve as scratch space.
    """
    if keys.size == 0:
        return keys, values
    digits = np.empty(keys.size, np.uint16)
    digits[:] = numbers
    other_keys = np.empty_like(keys)
    other_values = np.empty_like(values)
    distribute(digits, keys, values, other_keys, other_values)
    keys, other_keys = other_keys, keys
    values, other_values = other_values, values
    least = keys.min()
    spread = keys.max() - least
    shift = np.uint64(0)
    while shift < 64 and spread >> shift > 0:
        for edge in range(keys.size):
            above_least = keys[edge] - least
            digits[edge] = (above_least >> shift) & np.uint64(DIGITS - 1)
        distribute(digits, keys, values, other_keys, other_values)
        keys, other_keys = other_keys, keys
        values, other_values = other_values, values
        shift += np.uint64(DIGIT_BITS)
    return keys, values


@compiled
def distribute(digits, keys, values, sorted_keys, sorted_values):
    """Writes keys and values in ascending order of their digits; equal digits keep their order."""
    places = np.zeros(DIGITS + 1, np.int64)
    for digit in digits:
        places[digit + 1] += 1
    for digit in range(DIGITS):
        places[digit + 1] += places[digit]
    for edge in range(digits.size):
        digit = digits[edge]
        place = places[digit]
        places[digit] += 1
        sorted_keys[place] = keys[edge]
        sorted_values[place] = values[edge]


@compiled
def merge_similar(costs, ends, parent, size, inner, k):
    """Phase 1 over sorted edges; the sums are rounded to single precision, as in the published code."""
    for edge in range(costs.size):
        a = find(parent, ends[edge, 0])
        b = find(parent, ends[edge, 1])
        if a == b:
            continue
        limit_a = np.float32(inner[a] + k / size[a])
        limit_b = np.float32(inner[b] + k / size[b])
        if costs[edge] < min(limit_a, limit_b):
            inner[union(parent, size, a, b)] = costs[edge]


@compiled
def merge_small(ends, parent, size, min_size):
    """Phase 2 over sorted edges."""
    for edge in range(ends.shape[0]):
        a = find(parent, ends[edge, 0])
        b = find(parent, ends[edge, 1])
        if a == b:
            continue
        if size[a] < min_size or size[b] < min_size:
            union(parent, size, a, b)
