"""The fenced blocks of the documentation: where they are, what they say, and why some aren't run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tas_tf.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
#: Everything that users read.
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
    if "runs" not in path.relative_to(ROOT).parts
)
_BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>.+?) -->\n\n?)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: Path of the page in the repository.
        line: Number of its first line.
        language: What the fence says.
        text: The block itself.
        reason: Why it isn't run; `None` if it is.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """The commands of this project in a shell block: name and arguments of each."""
        names = {command.module: name for name, command in COMMANDS.items()}
        for line in re.sub(r"\\\n\s*", " ", self.text).splitlines():
            found = re.search(r"(?:^|\s)(?:tas-tf|python -m) (?P<name>[\w.]+)(?P<rest> .*)?$", line)
            name = found and names.get(found["name"], found["name"] if "tas-tf" in found[0] else None)
            if name in COMMANDS:
                yield name, shlex.split(found["rest"] or "", comments=True)


def blocks(*languages: str) -> list[Block]:
    """All blocks in some languages.

    Args:
        languages: What the fences say.
    """
    found = []
    for path in PAGES:
        text = path.read_text()
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("language")) + 1
            page = str(path.relative_to(ROOT))
            found.append(Block(page, line, match["language"], match["text"], match["reason"]))
    return [block for block in found if block.language in languages]
