"""What MkDocs calls while it builds the site: adds generated pages, rewrites links, and turns formulas into MathML."""

from __future__ import annotations

import html
import logging
import re
import sys
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # MkDocs runs hooks from wherever it is called

from reference import api_pages, reference_pages
from repository import PAGES, readme_pages, shown_pages, with_links

_LOG = logging.getLogger("mkdocs.hooks.docs")
_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> None:
    """Lists the pages that are made while the site is built."""
    made = {
        "handbook/": [name for name in readme_pages() if name.startswith("handbook/")],
        "reference/api/": [*api_pages()],
    }
    config.nav = _filled(config.nav, made)


def _filled(nav: list, made: dict[str, list[str]]) -> list:
    entries = []
    for entry in nav:
        ((title, value),) = entry.items()
        entries.append({title: _filled(value, made) if isinstance(value, list) else made.get(value, value)})
    return entries


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages."""
    pages = {
        **readme_pages(),
        **{name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES},
        **reference_pages(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for name, text in shown_pages().items():
        files.append(File.generated(config, name, content=text, inclusion=InclusionLevel.NOT_IN_NAV))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links into the repository as links into the site."""
    place = page.file.src_uri
    if place.startswith(("reference/", "files/")):
        return markdown
    try:
        return with_links(markdown, place)
    except ValueError as error:
        _LOG.warning("%s: %s", place, error)
        return markdown


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns formulas into MathML, which browsers draw without a program or a font."""

    def as_mathml(match: re.Match[str]) -> str:
        try:
            return convert(html.unescape(match[2]), display="block" if match[1] == "div" else "inline")
        except Exception as error:
            _LOG.warning("%s: %s in the formula %s", page.file.src_uri, error, match[2])
            return match[0]

    return _MATH.sub(as_mathml, content)
