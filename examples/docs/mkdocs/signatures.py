"""Parameters that share a line of a docstring -> each with the type and the default of its own.

Griffe, which reads the docstrings, gives all of them those of the first.
"""

import griffe


class OwnTypes(griffe.Extension):
    """Look types and defaults up in the signature, unless the docstring names the type."""

    def on_function(self, *, func, **_):
        if func.docstring is None:
            return
        own = {part.name: part for part in func.parameters}
        for section in func.docstring.parsed:
            if section.kind is not griffe.DocstringSectionKind.parameters:
                continue
            for told in section.value:
                if told.name in own:
                    told.default = own[told.name].default
                    if any(told.annotation is part.annotation for part in func.parameters):
                        told.annotation = own[told.name].annotation
