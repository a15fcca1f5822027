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
    """An attention function (of the class ``owner``, if it is a method), and its reader.

    The function is behind a slot, where the search for references does not look.
    """

    name: str
    original: Callable[..., Any]
    reader: Reader
    owner: type | None = None


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

_FLASH: Mapping[str, Reader] = {
    "flash_attn_func": readers.read_flash,
    "flash_attn_qkvpacked_func": readers.read_flash_packed,
    "flash_attn_kvpacked_func": readers.read_flash_kv_packed,
    "flash_attn_varlen_func": readers.read_flash_varlen,
}
_FLASH3: Mapping[str, Reader] = {
    "flash_attn_func": readers.read_flash3,
    "flash_attn_varlen_func": readers.read_flash3_varlen,
}
_XFORMERS: Mapping[str, Reader] = {"memory_efficient_attention": readers.read_xformers}
_ATEN = "torch.ops.aten.scaled_dot_product_attention"

#: Functions that are known by name: module, attribute path in it, reader.
KNOWN: Mapping[str, Mapping[str, Reader]] = {
    "torch.nn.functional": {"scaled_dot_product_attention": readers.read_sdpa},
    "torch._ops": {_ATEN: readers.read_sdpa, f"{_ATEN}.default": readers.read_sdpa},
    "torch.nn.attention.flex_attention": {"flex_attention": readers.read_flex},
    "torch.nn.modules.activation": {"MultiheadAttention.forward": modules.read_multihead},
    "torch": {"_transformer_encoder_layer_fwd": modules.read_encoder_layer},
    "diffusers.models.attention_dispatch": {"dispatch_attention_fn": readers.read_heads_last},
    "diffusers.models.attention_processor": {
        "Attention.get_attention_scores": modules.read_attention_scores
    },
    "flash_attn.flash_attn_interface": _FLASH,
    "flash_attn": _FLASH,
    "flash_attn_interface": _FLASH3,
    "xformers.ops.fmha": _XFORMERS,
    "xformers.ops": _XFORMERS,
    "wan.modules.attention": {"attention": readers.read_wan, "flash_attention": readers.read_wan},
}

_REGISTRY = "transformers.modeling_utils"
_EAGER = "eager_attention_forward"


def find_targets(extra: Mapping[str, Reader]) -> list[Target]:
    """Return every attention function that is loaded now, each once: as it is named first."""
    found: dict[int, Target] = {}
    for target in _iterate(extra):
        found.setdefault(id(target.original), target)
    return list(found.values())


def _iterate(extra: Mapping[str, Reader]) -> Iterator[Target]:
    for path, reader in extra.items():
        yield from _resolve(*split_path(path), reader)
    for module, functions in KNOWN.items():
        for attribute, reader in functions.items():
            yield from _resolve(module, attribute, reader)
    interface = getattr(sys.modules.get(_REGISTRY), "AttentionInterface", None)
    registered = dict(getattr(interface, "_global_mapping", {}))
    named = [(f"transformers {name}", name, function) for name, function in registered.items()]
    for name, loaded in list(sys.modules.items()):
        eager = getattr(loaded, "__dict__", {}).get(_EAGER)
        named.append((f"{name}.{_EAGER}", "eager", eager))
    for title, name, function in named:
        if callable(function):
            yield Target(title, function, modules.transformers_reader(function, name))


def _resolve(module: str, attribute: str, reader: Reader) -> Iterator[Target]:
    found: Any = sys.modules.get(module)
    if attribute.startswith("torch.ops."):
        found, attribute = sys.modules.get("torch"), attribute.removeprefix("torch.")
    owner = None
    for part in attribute.split("."):
        owner, found = found, getattr(found, part, None)
    if callable(found):
        name = f"{module}.{attribute}"
        yield Target(name, found, reader, owner if isinstance(owner, type) else None)


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
