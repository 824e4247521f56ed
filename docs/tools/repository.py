"""What lies outside docs/ and is part of the site: README's sections, other pages, and files that pages link to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

ROOT = Path(__file__).parents[2]
#: Pages at the top level of the repository, which lie at the top level of the site too.
PAGES = ("CHANGELOG.md", "BUILD.md", "SECURITY.md")
#: Files that pages link to, each of which becomes a page that shows it.
SHOWN = ("flags/*.cfg", "examples/*.py", "examples/*.ipynb", "LICENSE", ".ci/run")
#: Sections of README that end the first page of the site; the others have pages of their own.
_LAST = ("tests-and-contributing", "reference", "licence")
_FENCE = re.compile(r"^( *)```[^\n]*\n.*?^\1```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?\[(?:[^\]\\]|\\.)*\]\()([^)\s]+)(\))")
_LANGUAGES = {".py": "python", ".cfg": "ini"}


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub makes it.

    >>> slug("From `Python`, and more")
    'from-python-and-more'
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def sections(text: str) -> dict[str, tuple[str, str]]:
    """The sections of README by anchor, each with its title and its text, without those inside it; the first is ''."""
    found, hidden = {}, [range(*match.span()) for match in _FENCE.finditer(text)]
    starts = [
        match
        for match in re.finditer(r"^#{2,3} (.*)$", text, re.MULTILINE)
        if not any(match.start() in fence for fence in hidden)
    ]
    found[""] = ("", text[: starts[0].start()])
    for match, after in zip(starts, [*starts[1:], None], strict=True):
        body = text[match.end() : after.start() if after else len(text)]
        found[slug(match[1])] = (match[1], body.strip() + "\n")
    return found


def readme_pages() -> dict[str, str]:
    """The pages of the site that README's sections make, by path: the first page and the handbook."""
    parts = sections((ROOT / "README.md").read_text(encoding="utf-8"))
    last = "\n".join(f"## {parts[name][0]}\n\n{parts[name][1]}" for name in _LAST)
    pages = {"index.md": f"{parts[''][1]}\n{last}"}
    for name, (title, body) in parts.items():
        if name and name not in _LAST:
            pages[f"handbook/{name}.md"] = f"# {title}\n\n{body}"
    return pages


def shown_pages() -> dict[str, str]:
    """Pages that show the files which other pages link to, by path in the site."""
    return {place_of(str(path.relative_to(ROOT))): _as_page(path) for path in _shown()}


def _shown() -> Iterator[Path]:
    for pattern in SHOWN:
        yield from sorted(ROOT.glob(pattern))


def _as_page(path: Path) -> str:
    if path.suffix == ".ipynb":
        return notebook_page(json.loads(path.read_text(encoding="utf-8")))
    name = path.relative_to(ROOT)
    text = path.read_text(encoding="utf-8").rstrip()
    return f"# {name}\n\n````{_LANGUAGES.get(path.suffix, 'text')}\n{text}\n````\n"


def notebook_page(notebook: Mapping[str, Any]) -> str:
    """A notebook as a page: texts, code, and what the code shows, images as part of the page.

    Args:
        notebook: Content of the notebook's file.
    """
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"````python\n{text}\n````")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                parts.append(f"![Figure](data:image/png;base64,{''.join(data['image/png']).strip()})")
            elif shown := "".join(data["text/plain"]).strip():
                parts.append(f"````text\n{shown}\n````")
    return "\n\n".join(parts) + "\n"


def place_of(name: str, anchor: str = "") -> str:
    """Where a file of the repository is in the site.

    Args:
        name: Path in the repository.
        anchor: Part of the file that is meant.

    Raises:
        ValueError: It isn't part of the site.
    """
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if name in PAGES:
        return name
    if name == "README.md":
        return f"handbook/{anchor}.md" if anchor and anchor not in _LAST else "index.md"
    if ROOT / name in set(_shown()):
        return f"files/{name.removeprefix('.')}.md"
    raise ValueError(f"{name} isn't part of the site. Add it to docs/tools/repository.py.")


def origin_of(place: str) -> str:
    """The file of the repository that a page of the site is made from."""
    if place in PAGES:
        return place
    return "README.md" if place == "index.md" or place.startswith("handbook/") else f"docs/{place}"


def with_links(text: str, place: str) -> str:
    """Rewrites links between files of the repository as links between pages of the site.

    Args:
        text: The page as it is in the repository.
        place: The page's path in the site.

    Raises:
        ValueError: A link leads to a file that isn't part of the site.
    """
    origin = origin_of(place)

    def rewritten(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if ":" in target or (not target and origin != "README.md"):
            return match[0]
        name = normpath(PurePosixPath(origin).parent / target) if target else origin
        there = place_of(name, anchor)
        ends = anchor and not there.startswith("handbook/")
        return f"{match[1]}{relpath(there, PurePosixPath(place).parent)}{'#' + anchor if ends else ''}{match[3]}"

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(rewritten, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(rewritten, text[end:])])
