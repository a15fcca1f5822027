"""What running modules and the script state by themselves: frame sizes, time steps, prompts."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from headgrid.recorder.watch.sites import _CALL_CODE, _OWN, CallSite

_TIMES = ("timestep", "timesteps", "t", "sigma")
_PROMPTS = ("text_prompts", "prompts", "prompt")


def find_frame_size(site: CallSite) -> tuple[int | None, str, bool]:
    """Return the tokens of a frame as they are stated, where, and whether the model does it."""
    running = [*zip(reversed(site.modules), reversed(site.arguments), strict=True)]
    for part, given in running:
        grid = given.get("grid_sizes")  # of Wan: frames, rows and columns of each batch element
        if isinstance(grid, torch.Tensor) and grid.shape[-1:] == (3,) and not grid.is_meta:
            size = math.prod(grid.reshape(-1, 3)[0, 1:].tolist())
            return size, _name("grid_sizes", part), True
    for part, given in running:
        patch = getattr(part, "patch_size", getattr(getattr(part, "config", None), "patch_size", 0))
        sides = _latent_sides(given)
        if isinstance(patch, Sequence) and len(patch) == 3 and sides is not None:
            size = (sides[0] // patch[1]) * (sides[1] // patch[2])
            return size, _name("patch size and latent shape", part), True
    for owner in [*site.modules[::-1], *_look_up(("self",))]:
        size = getattr(owner, "frame_seq_length", None)
        if isinstance(size, int) and size > 0:
            own = any(owner is part for part in site.modules)
            return size, _name("frame_seq_length", owner), own
    return None, "", False


def _name(what: str, owner: Any) -> str:
    return f"{what} of {type(owner).__name__}"


def _latent_sides(given: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of the video latent among a module's arguments."""
    for value in given.values():
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, torch.Tensor) and first.ndim == 5 - isinstance(value, list):
            return int(first.shape[-2]), int(first.shape[-1])
    return None


def find_time(site: CallSite) -> torch.Tensor | float | None:
    """Return the time step of this forward, where a running module is given one."""
    for given in site.arguments:
        for value in (given.get(name) for name in _TIMES):
            if isinstance(value, torch.Tensor) and value.numel() > 0 and value.ndim <= 2:
                return value.detach().max()
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return float(value)
    return None


def find_prompt() -> str:
    """Return the prompt that the functions around the model hold, or nothing."""
    for value in _look_up(_PROMPTS):
        texts = [value] if isinstance(value, str) else value
        listed = isinstance(texts, (list, tuple)) and bool(texts) and isinstance(texts[0], str)
        if listed and all(text == texts[0] for text in texts):
            return str(texts[0])
    return ""


def _look_up(names: Sequence[str]) -> list[Any]:
    """Return what variables of these names hold around the outermost module, nearest first."""
    frames: list[Any] = []
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL_CODE:
            frames.clear()
        elif not frame.f_code.co_filename.startswith(_OWN):
            frames.append(frame)
        frame = frame.f_back
    found = [
        frame.f_locals.get(name)
        for frame in frames
        for name in names
        if name in frame.f_code.co_varnames or frame.f_code.co_name == "<module>"
    ]
    return [value for value in found if value is not None and not isinstance(value, type)]
