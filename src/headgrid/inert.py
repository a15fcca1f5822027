"""JSON -> JSON that can stand in a script element, also where altair puts it there.

altair writes a chart's specification into ``<script>`` as it is, so that a prompt
with ``</script>`` in it would run what follows. Escaped, it is the same JSON.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

# `<` could end the script, `>` and `&` matter in XHTML, and the two separators were no
# part of a text in older JavaScript. In JSON they only occur inside texts.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def make_inert(text: str) -> str:
    """Return JSON with everything escaped that means something in HTML or JavaScript."""
    return text.translate(_ESCAPES)


def make_altair_inert() -> None:
    """Let altair escape every specification that it writes into HTML.

    What altair composes of our charts is altair's own, and holds our texts. All its HTML comes
    from one function, which finds ``json`` in its module; what it writes is the same JSON.
    """
    from altair.utils import html

    def dumps(*args: Any, **options: Any) -> str:
        return make_inert(json.dumps(*args, **options))

    vars(html)["json"] = SimpleNamespace(**{**vars(json), "dumps": dumps})
