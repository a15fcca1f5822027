"""Libraries that are loaded -> the attention functions in them, and how to read each.

Only modules that are in `sys.modules` are looked at: nothing is imported.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from headgrid.errors import OptionError, near_miss
from headgrid.recorder.read import modules
from headgrid.recorder.read.readers import READERS, Reader


@dataclass(frozen=True, eq=False, slots=True)
class Target:
    """An attention function (of the class ``owner``, if it is a method), and its reader.

    The function is behind a slot, where the search for references does not look.
    """

    name: str
    original: Callable[..., Any]
    reader: Reader
    owner: type | None = None


_SDPA, _WAN, _XFORMERS = READERS["sdpa"], READERS["wan"], READERS["xformers"]
_ATEN = "ops.aten.scaled_dot_product_attention"
_FLASH: Mapping[str, Reader] = {
    "flash_attn_func": READERS["flash"],
    "flash_attn_qkvpacked_func": READERS["flash_packed"],
    "flash_attn_kvpacked_func": READERS["flash_kv_packed"],
    "flash_attn_varlen_func": READERS["flash_varlen"],
    "flash_attn_with_kvcache": READERS["flash_cache"],
}

_FLASH4: Mapping[str, Reader] = {
    "flash_attn_func": READERS["flash4"],
    "flash_attn_varlen_func": READERS["flash4_varlen"],
}
_INT8 = ("fp16_triton", "fp16_cuda", "fp8_cuda", "fp8_cuda_sm90")
_SAGE: Mapping[str, Reader] = {
    "sageattn": READERS["sage"],
    "sageattn_varlen": READERS["sage_varlen"],
    **{f"sageattn_qk_int8_pv_{kind}": READERS["sage"] for kind in _INT8},
}
_SPARSE = ("spas_sage{}_attn_meansim_cuda", "spas_sage{}_attn_meansim_topk_cuda")
_SPARGE: Mapping[str, Reader] = {
    **{name.format(version): READERS["sparge"] for name in _SPARSE for version in ("", "2")},
    "block_sparse_sage2_attn_cuda": READERS["sparge"],
}

#: Functions that are known by name: module, attribute path in it, reader.
KNOWN: Mapping[str, Mapping[str, Reader]] = {
    "torch.nn.functional": {"scaled_dot_product_attention": _SDPA},
    "torch.nn.attention.flex_attention": {"flex_attention": READERS["flex"]},
    "torch.nn.attention.varlen": {"varlen_attn": READERS["varlen"]},
    "torch.nn.modules.activation": {"MultiheadAttention.forward": modules.read_multihead},
    "torch": {
        _ATEN: _SDPA,
        f"{_ATEN}.default": _SDPA,
        "_transformer_encoder_layer_fwd": modules.read_encoder_layer,
    },
    "diffusers.models.attention_dispatch": {"dispatch_attention_fn": READERS["heads_last"]},
    "diffusers.models.attention_processor": {
        "Attention.get_attention_scores": modules.read_attention_scores
    },
    "flash_attn.flash_attn_interface": _FLASH,
    "flash_attn": _FLASH,
    "flash_attn_interface": {
        "flash_attn_func": READERS["flash3"],
        "flash_attn_varlen_func": READERS["flash3_varlen"],
        "flash_attn_with_kvcache": READERS["flash_cache"],
    },
    "flash_attn.cute.interface": _FLASH4,
    "flash_attn.cute": _FLASH4,
    "sageattention.core": _SAGE,
    "sageattention": _SAGE,
    "spas_sage_attn.core": _SPARGE,
    "spas_sage_attn": _SPARGE,
    "xformers.ops.fmha": {"memory_efficient_attention": _XFORMERS},
    "xformers.ops": {"memory_efficient_attention": _XFORMERS},
    "wan.modules.attention": {"flash_attention": _WAN},  # `attention` calls it, or torch's
}

_REGISTRY = "transformers.modeling_utils"
_EAGER = "eager_attention_forward"
#: Functions of other names are the user's own, or wrap one of these: read by what they call.
_REGISTERED = re.compile(r"^(sdpa|flex_attention|flash_attention_\d)$|paged")


def find_targets(extra: Mapping[str, Reader]) -> list[Target]:
    """Return every attention function that is loaded now, each once: as it is named first."""
    found: dict[int, Target] = {}
    for target in _iterate(extra):
        found.setdefault(id(target.original), target)
    return list(found.values())


def find_named(extra: Mapping[str, Reader]) -> Iterator[Target]:
    """Yield the functions of loaded modules that paths lead to."""
    for path, reader in extra.items():
        yield from _resolve(*split_path(path), reader)


def _iterate(extra: Mapping[str, Reader]) -> Iterator[Target]:
    for module, functions in KNOWN.items():
        for attribute, reader in functions.items():
            for target in _resolve(module, attribute, reader):
                yield replace(target, reader=_by_name(target.original, reader))
    interface = getattr(sys.modules.get(_REGISTRY), "AttentionInterface", None)
    registered = dict(getattr(interface, "_global_mapping", {}))
    named = [(f"transformers {n}", n, f) for n, f in registered.items() if _REGISTERED.search(n)]
    for name, loaded in list(sys.modules.items()):
        eager = getattr(loaded, "__dict__", {}).get(_EAGER)
        named.append((f"{name}.{_EAGER}", "eager", eager))
    for title, name, function in named:
        if callable(function):
            reader = partial(modules.read_transformers, name)
            yield Target(title, function, _by_name(function, reader))
    yield from find_named(extra)  # whoever has named a function that is known reads it as it says


def _by_name(function: Callable[..., Any], reader: Reader) -> Reader:
    """Return the reader as one that gets arguments by the names that a function gives them.

    Versions of a library differ in the order of their arguments, and in their default layout.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin
        return reader
    if any(
        part.kind in (part.VAR_POSITIONAL, part.POSITIONAL_ONLY) for part in parameters.values()
    ):
        return reader
    layout = {k: v.default for k, v in parameters.items() if k == "tensor_layout"}
    return lambda *args, **kwargs: reader(
        **layout | dict(zip(parameters, args, strict=False)) | kwargs
    )


def _resolve(module: str, attribute: str, reader: Reader) -> Iterator[Target]:
    owner: Any = None
    found: Any = sys.modules.get(module)
    for part in attribute.split("."):
        owner, found = found, getattr(found, part, None)
    if callable(found):
        owner = owner if isinstance(owner, type) else None
        yield Target(f"{module}.{attribute}", found, reader, owner)


def find_missing(paths: Iterable[str]) -> list[str]:
    """Return the dotted paths that lead to no function of a loaded module."""
    return [path for path in paths if not list(_resolve(*split_path(path), _SDPA))]


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
        chosen = READERS.get(reader) if isinstance(reader, str) else reader
        if not callable(chosen) or "." not in path:
            raise OptionError(
                f"functions[{path!r}] is {reader!r}, expected a dotted path and a reader: a "
                f"function of the same arguments, or one of {', '.join(READERS)}"
                f"{near_miss(str(reader), READERS)}"
            )
        found[path] = chosen
    return found


def touches_target(module_name: str, module: Any, extra: Iterable[str]) -> bool:
    """Return whether a module that was just imported holds an attention function."""
    asked = any(path.startswith(f"{module_name}.") for path in extra)
    known = module_name in KNOWN or module_name == _REGISTRY
    return asked or known or _EAGER in getattr(module, "__dict__", {})
