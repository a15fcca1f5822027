"""Frame numbers and block sizes -> which pairs a block-wise model can attend.

A model that generates frames in blocks lets a query attend every key up to the
end of the query's own block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.errors import CaptureError
from headgrid.text import shorten_list

#: Frames along an axis, or in all blocks: a file of a few bytes can claim any number.
MAX_FRAMES = 20_000


@dataclass(frozen=True)
class BlockLayout:
    """Frames in order, and the block that each belongs to.

    Attributes
    ----------
    frames : tuple of int
        Every frame number that occurs as a query or as a key, increasing.
    block_sizes : tuple of int
        Number of frames in each block, in order.
    missing : tuple of int
        Frames beyond the last block: never recorded, so unseen.
    """

    frames: tuple[int, ...]
    block_sizes: tuple[int, ...]
    missing: tuple[int, ...] = ()

    def block_ends(self, frames: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return for each frame the position at which its block ends (0 where missing)."""
        ends = np.repeat(np.cumsum(self.block_sizes), self.block_sizes)
        padded = np.concatenate([ends, np.zeros(len(self.missing), dtype=ends.dtype)])
        return padded[self.positions(frames)].astype(np.int64)

    def positions(self, frames: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the positions of frame numbers in `frames`."""
        return np.searchsorted(np.asarray(self.frames), np.asarray(frames, dtype=np.int64))

    def attendable(
        self, query_frames: Sequence[int], key_frames: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """Return the boolean mask [query, key] of pairs that the model can attend.

        >>> BlockLayout((0, 1, 2), (1, 2)).attendable((0, 1, 2), (0, 1, 2)).astype(int)
        array([[1, 0, 0],
               [1, 1, 1],
               [1, 1, 1]])
        """
        ends = self.block_ends(query_frames)
        recorded = sum(self.block_sizes)
        keys = self.positions(key_frames)
        return np.asarray((keys[None, :] < ends[:, None]) & (keys[None, :] < recorded))

    def last_block(self) -> tuple[int, ...]:
        """Return the frame numbers of the last block."""
        end = sum(self.block_sizes)
        return self.frames[end - self.block_sizes[-1] : end]


def fit_blocks(
    source: str,
    blocks: Sequence[int] | int | None,
    axes: tuple[Sequence[int], Sequence[int]],
    arrays: Sequence[npt.NDArray[Any]],
) -> tuple[BlockLayout | None, list[str]]:
    """Fit blocks to the frames along the axes.

    Parameters
    ----------
    source : str
        What the frames come from, for messages.
    blocks : sequence of int, int or None
        Frames in each block, or in every block; None: no blocks, no layout.
    axes : pair of sequences of int
        The frame numbers of the queries and of the keys, increasing.
    arrays : sequence of array, shape (heads, query, key) or (heads, key)
        What was recorded of them.

    Returns
    -------
    layout : BlockLayout or None
        See `layout_blocks`.
    warnings : list of str
        What is odd, and how it was handled.
    """
    if blocks is None:
        return None, []
    frames, odd = sorted({*axes[0], *axes[1]}), []
    if isinstance(blocks, int):
        size, blocks = blocks, split_into_blocks(len(frames), blocks)
        if blocks[-1] != size and len(blocks) > 1:
            odd.append(
                f"{source}: {len(frames)} frames are not whole blocks of {size} "
                f"(num_frame_per_block); the last block is taken to be {blocks[-1]} frames; "
                "store block_sizes to say otherwise"
            )
    beyond = frames[sum(blocks) :] if sum(blocks) > 0 else []
    held = bool(beyond) and _hold_values(arrays, *(np.isin(axis, beyond) for axis in axes))
    layout = layout_blocks(source, blocks, frames, held)
    if layout.missing:
        odd.append(
            f"{source}: block_sizes sum to {sum(blocks)}, but there are {len(frames)} frames; "
            f"frames {shorten_list(layout.missing)} lie beyond the last block"
            f"{' and hold values that are not drawn' if held else ''}: "
            "they count as never recorded and stay unseen"
        )
    return layout, odd


def _hold_values(
    arrays: Sequence[npt.NDArray[Any]], queries: npt.NDArray[Any], keys: npt.NDArray[Any]
) -> bool:
    """Return whether the frames that are marked hold a value other than 0 and NaN."""
    for array in arrays:
        for head in array:  # one by one: a large capture is never held twice
            for part in (head[..., keys], head[queries] if array.ndim == 3 else head[:0]):
                if ((part != 0) & ~np.isnan(part)).any():
                    return True
    return False


def layout_blocks(
    source: str, block_sizes: Sequence[int], frames: Sequence[int], holds_data: bool
) -> BlockLayout:
    """Fit blocks to frames.

    ``holds_data`` says whether the frames beyond the last block hold any value. They are
    ``missing``: accepted where they hold none, and where fewer are left over than
    the largest block has (real files carry stale values there).

    Raises
    ------
    CaptureError
        Where the blocks do not fit.
    """
    sizes = tuple(int(size) for size in block_sizes)
    if not sizes or min(sizes) < 1:
        raise CaptureError(
            f"{source}: block_sizes is [{shorten_list(sizes)}], expected the number of frames in "
            "each block, each at least 1; omit block_sizes if every frame attends every frame"
        )
    total, numbers = sum(sizes), tuple(frames)
    if total > MAX_FRAMES:
        raise CaptureError(
            f"{source}: block_sizes sum to {total} ({shorten_list(sizes)}), expected at most "
            f"{MAX_FRAMES:,} frames; correct or omit block_sizes"
        )
    if total == len(numbers):
        return BlockLayout(numbers, sizes)
    if total > len(numbers):
        if numbers == tuple(range(len(numbers))) or numbers[0] < 0 or numbers[-1] >= total:
            raise _misfit(source, sizes, numbers)
        return BlockLayout(tuple(range(total)), sizes)
    missing = numbers[total:]
    if holds_data and len(missing) >= max(sizes):
        raise _misfit(source, sizes, numbers)
    return BlockLayout(numbers, sizes, missing)


def split_into_blocks(frames: int, frames_per_block: int) -> tuple[int, ...]:
    """Return the sizes of equal blocks over so many frames; the last may be shorter.

    >>> split_into_blocks(7, 3)
    (3, 3, 1)
    """
    full, rest = divmod(frames, frames_per_block)
    return (frames_per_block,) * full + ((rest,) if rest else ())


def _misfit(source: str, sizes: tuple[int, ...], frames: tuple[int, ...]) -> CaptureError:
    return CaptureError(
        f"{source}: block_sizes sum to {sum(sizes)} ({shorten_list(sizes)}), but there are "
        f"{len(frames)} frames ({shorten_list(frames)}); expected block sizes that sum to "
        f"{len(frames)}, so correct or omit block_sizes"
    )


def expected_layers(layers: Iterable[int]) -> tuple[int, ...]:
    """Return all layers from the first to the last, at the step that those given have.

    >>> expected_layers([0, 1, 3]), expected_layers([10, 0, 5])
    ((0, 1, 2, 3), (0, 5, 10))
    """
    present = sorted(set(layers))
    step = math.gcd(*(layer - present[0] for layer in present)) or 1
    return tuple(range(present[0], present[-1] + 1, step))
