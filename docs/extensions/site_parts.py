"""What the site asks of Sphinx beyond its extensions.

- generated parts and links of included files (`pages`)
- docstrings that are Markdown, for autodoc
- a built page that asks for anything outside of the site is a warning, and so is a link that leads nowhere
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pages
from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, new_document

LOG = logging.getLogger(__name__)


class Markdown(SphinxDirective):
    """Markdown within reStructuredText."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The nodes of the text."""
        own = new_document(self.get_source_info()[0], self.state.document.settings)
        MystParser().parse("\n".join(self.content), own)
        return own.children


def read(app: Sphinx, name: str, content: list[str]) -> None:
    """A page before it is parsed."""
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md":
        content[0] = pages.relinked(pages.expanded(content[0]), path, path)


def included(app: Sphinx, path: Path, _: str, content: list[str]) -> None:
    """A file that a page includes."""
    page = Path(app.env.doc2path(app.env.docname))
    content[0] = pages.relinked(content[0], (Path(app.srcdir) / path).resolve(), page)


def docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A docstring as a directive with the same text."""
    said = pages.described(thing) if what == "class" else "\n".join(lines)
    text = pages.markdown(re.sub(r" *# noqa.*", "", said)).splitlines()
    lines[:] = [".. markdown::", "", *(f"   {line}" for line in text), ""]


class Page(HTMLParser):
    """The anchors of a built page, its links, and what a browser would fetch for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names."""
        given = dict(attrs)
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        elif tag == "link" and given.get("rel") in ("canonical", "author", "license"):
            return
        else:
            self.fetched += [given[name] or "" for name in ("src", "href", "data") if given.get(name)]


def checked(app: Sphinx, exception: Exception | None) -> None:
    """Warn of each link and picture of the built pages that leads nowhere or outside."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    # asv makes its own page, whose scripts come from the network.
    own = [path for path in sorted(out.rglob("*.html")) if path.relative_to(out).parts[0] != "asv"]
    built = {path.resolve(): Page(path) for path in own}
    for path, page in built.items():
        for url in page.fetched + page.links:
            parts, where = urlsplit(url), path.relative_to(out.resolve())
            if parts.scheme or parts.netloc:
                if url in page.fetched and parts.scheme != "data":
                    LOG.warning("%s fetches %.80s", where, url)
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = place / "index.html" if place.is_dir() else place
            if not place.is_file():
                LOG.warning("%s links to %s, which is not there", where, url)
            elif parts.fragment and place in built and unquote(parts.fragment) not in built[place].anchors:
                LOG.warning("%s links to %s, an anchor that is not there", where, url)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the parts above."""
    app.add_directive("markdown", Markdown)
    app.connect("source-read", read)
    app.connect("include-read", included)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("build-finished", checked)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
