"""What running modules and the script state by themselves: frame sizes, time steps, prompts."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch

from headgrid.recorder.watch.sites import CALL_CODE, OWN_CODE, CallSite

_TIMES = ("timestep", "timesteps", "t", "sigma")
_PROMPTS = ("text_prompts", "prompts", "prompt")


def find_frame_size(site: CallSite, tokens: int) -> tuple[int | None, str, bool]:
    """Return the tokens of a frame as they are stated, where, and whether the model does it.

    A latent states them only if it has as many ``tokens`` as the call has queries.
    """
    running = [*zip(reversed(site.modules), reversed(site.arguments), strict=True)]
    for part, given in running:
        grid = given.get("grid_sizes")  # of Wan: frames, rows and columns of each batch element
        if isinstance(grid, torch.Tensor) and grid.shape[-1:] == (3,) and not grid.is_meta:
            size = math.prod(grid.reshape(-1, 3)[0, 1:].tolist())
            return size, _name("grid_sizes", part), True
    for part, given in running:
        # diffusers warns of attributes of a model that are its configuration's
        patch = vars(part).get("patch_size")
        patch = getattr(getattr(part, "config", None), "patch_size", patch)
        for latent in map(_latent_shape, given.values()):
            if not isinstance(patch, Sequence) or len(patch) != 3 or latent is None:
                continue
            frames, *sides = (side // one for side, one in zip(latent, patch, strict=True))
            if frames * math.prod(sides) == tokens:
                return math.prod(sides), _name("patch size and latent shape", part), True
    for owner in [*site.modules[::-1], *_look_up(("self",))]:
        size = getattr(owner, "__dict__", {}).get("frame_seq_length")
        if isinstance(size, int) and size > 0:
            own = any(owner is part for part in site.modules)
            return size, _name("frame_seq_length", owner), own
    return None, "", False


def _name(what: str, owner: Any) -> str:
    return f"{what} of {type(owner).__name__}"


def _latent_shape(value: Any) -> tuple[int, ...] | None:
    """Return frames, height and width of a video latent, or None."""
    first = value[0] if isinstance(value, list) and value else value  # of Wan: one of a batch
    fits = isinstance(first, torch.Tensor) and first.ndim == 5 - isinstance(value, list)
    return tuple(first.shape[-3:]) if fits else None


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
        if frame.f_code is CALL_CODE:
            frames.clear()
        elif not frame.f_code.co_filename.startswith(OWN_CODE):
            frames.append(frame)
        frame = frame.f_back
    found = [
        frame.f_locals.get(name)
        for frame in frames
        for name in names
        if name in _variables(frame.f_code)
    ]
    return [value for value in found if value is not None and not isinstance(value, type)]


def _variables(code: types.CodeType) -> tuple[str, ...]:
    """Return the names that a function holds, or that a script's own lines use."""
    own = code.co_names if code.co_name == "<module>" else ()
    return (*code.co_varnames, *code.co_cellvars, *code.co_freevars, *own)
