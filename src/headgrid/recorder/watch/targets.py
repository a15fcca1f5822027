"""Libraries that are loaded -> the attention functions in them, and how to read each.

Only modules that are in `sys.modules` are looked at: nothing is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headgrid.errors import OptionError, near_miss
from headgrid.recorder.read import modules, readers
from headgrid.recorder.read.readers import Reader


@dataclass(frozen=True, eq=False, slots=True)
class Target:
    """An attention function (of the class ``owner``, if it is a method), and its reader."""

    name: str
    original: Callable[..., Any]
    reader: Reader
    owner: type | None = None


_FLASH: Mapping[str, Reader] = {
    "flash_attn_func": readers.read_flash,
    "flash_attn_qkvpacked_func": readers.read_flash_packed,
    "flash_attn_kvpacked_func": readers.read_flash_kv_packed,
    "flash_attn_varlen_func": readers.read_flash_varlen,
}

#: Functions that are known by name: module, attribute path in it, reader.
KNOWN: Mapping[str, Mapping[str, Reader]] = {
    "torch.nn.functional": {"scaled_dot_product_attention": readers.read_sdpa},
    "torch._ops": {
        "torch.ops.aten.scaled_dot_product_attention": readers.read_sdpa,
        "torch.ops.aten.scaled_dot_product_attention.default": readers.read_sdpa,
    },
    "torch.nn.attention.flex_attention": {"flex_attention": readers.read_flex},
    "torch.nn.modules.activation": {"MultiheadAttention.forward": modules.read_multihead},
    "torch": {"_transformer_encoder_layer_fwd": modules.read_encoder_layer},
    "diffusers.models.attention_dispatch": {"dispatch_attention_fn": readers.read_heads_last},
    "diffusers.models.attention_processor": {
        "Attention.get_attention_scores": modules.read_attention_scores
    },
    "flash_attn.flash_attn_interface": _FLASH,
    "flash_attn": _FLASH,
    "flash_attn_interface": {
        "flash_attn_func": readers.read_flash3,
        "flash_attn_varlen_func": readers.read_flash3_varlen,
    },
    "xformers.ops.fmha": {"memory_efficient_attention": readers.read_xformers},
    "xformers.ops": {"memory_efficient_attention": readers.read_xformers},
    "wan.modules.attention": {"attention": readers.read_wan, "flash_attention": readers.read_wan},
}

#: Readers that an option can name, for functions given by dotted path.
NAMED_READERS: Mapping[str, Reader] = {
    "sdpa": readers.read_sdpa,
    "heads_last": readers.read_heads_last,
    "flash": readers.read_flash,
    "flash_varlen": readers.read_flash_varlen,
    "flash3": readers.read_flash3,
    "flash3_varlen": readers.read_flash3_varlen,
    "flex": readers.read_flex,
    "xformers": readers.read_xformers,
    "wan": readers.read_wan,
}

_REGISTRY = "transformers.modeling_utils"
_EAGER = "eager_attention_forward"


def find_targets(extra: Mapping[str, Reader]) -> Iterator[Target]:
    """Return every attention function that is loaded now, each once."""
    seen: set[int] = set()
    for target in _iterate(extra):
        if id(target.original) not in seen:
            seen.add(id(target.original))
            yield target


def _iterate(extra: Mapping[str, Reader]) -> Iterator[Target]:
    for path, reader in extra.items():
        yield from _resolve(*split_path(path), reader)
    for module, functions in KNOWN.items():
        for attribute, reader in functions.items():
            yield from _resolve(module, attribute, reader)
    interface = getattr(sys.modules.get(_REGISTRY), "AttentionInterface", None)
    for name, function in dict(getattr(interface, "_global_mapping", {})).items():
        if callable(function):
            reader = modules.transformers_reader(function, name)
            yield Target(f"transformers {name}", function, reader)
    for name, loaded in list(sys.modules.items()):
        eager = vars(loaded).get(_EAGER) if hasattr(loaded, "__dict__") else None
        if callable(eager):
            reader = modules.transformers_reader(eager, "eager")
            yield Target(f"{name}.{_EAGER}", eager, reader)


def _resolve(module: str, attribute: str, reader: Reader) -> Iterator[Target]:
    found: Any = sys.modules.get(module)
    if attribute.startswith("torch.ops."):
        found, attribute = sys.modules.get("torch"), attribute.removeprefix("torch.")
    owner = None
    for part in attribute.split("."):
        owner, found = found, getattr(found, part, None)
    if callable(found):
        cls = owner if isinstance(owner, type) else None
        yield Target(f"{module}.{attribute}", found, reader, cls)


def find_missing(paths: Iterable[str]) -> list[str]:
    """Return the dotted paths that lead to no function of a loaded module."""
    return [path for path in paths if not list(_resolve(*split_path(path), readers.read_sdpa))]


def split_path(path: str) -> tuple[str, str]:
    """Return the module, as far as it is loaded, and the attribute path of a dotted path."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        if ".".join(parts[:cut]) in sys.modules:
            return ".".join(parts[:cut]), ".".join(parts[cut:])
    return ".".join(parts[:-1]), parts[-1]


def read_functions(functions: Any) -> dict[str, Reader]:
    """Return the option ``functions`` with its readers resolved."""
    found: dict[str, Reader] = {}
    for path, reader in dict(functions or {}).items():
        chosen = NAMED_READERS.get(reader) if isinstance(reader, str) else reader
        if not callable(chosen) or "." not in path:
            raise OptionError(
                f"functions[{path!r}] is {reader!r}, expected a dotted path and a reader: a "
                f"function of the same arguments, or one of {', '.join(NAMED_READERS)}"
                f"{near_miss(str(reader), NAMED_READERS)}"
            )
        found[path] = chosen
    return found


def touches_target(module_name: str, module: Any, extra: Iterable[str]) -> bool:
    """Return whether a module that was just imported holds an attention function."""
    asked = any(path.startswith(f"{module_name}.") for path in extra)
    known = module_name in KNOWN or module_name == _REGISTRY
    return asked or known or _EAGER in getattr(module, "__dict__", {})
