"""Makes blocks of code of the doctests in docstrings, which Markdown would take for quotations and links."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1\S.*|\n\1 +\S.*)*", re.MULTILINE)


class Examples(Extension):
    """Puts fences around doctests."""

    def on_object(self, *, obj: Object, **others: Any) -> None:
        """Changes the docstring of an object that was read.

        Args:
            obj: The object.
            others: What else griffe tells.
        """
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Puts fences around the doctests of a docstring."""
    return _DOCTEST.sub(lambda match: f"{match[1]}```pycon\n{match[0]}\n{match[1]}```", text)
