"""What can go wrong while recording -> one sentence with the sizes seen and what would fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def fitting_frame_sizes(tokens: int, wanted: int) -> str:
    """Return the divisors of a token count that lie nearest to a wanted frame size.

    >>> fitting_frame_sizes(48, 10)
    '6, 8 or 12 tokens per frame would fit'
    """
    divisors = [size for size in range(1, tokens + 1) if tokens % size == 0]
    near = sorted(sorted(divisors, key=lambda size: abs(size - wanted))[:3])
    return f"{join_choices(near)} tokens per frame would fit"


def join_choices(choices: Sequence[object]) -> str:
    """Return the choices as ``a, b or c``.

    >>> join_choices([1, 2, 4])
    '1, 2 or 4'
    """
    texts = [str(choice) for choice in choices]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def list_sites(sites: Iterable[str], shown: int = 8) -> str:
    """Return the attention call sites that were seen, for the end of a message."""
    texts = list(sites)
    if not texts:
        return "no attention call was seen at all"
    more = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return f"attention calls seen: {'; '.join(texts[:shown])}{more}"
