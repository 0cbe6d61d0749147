"""The documentation, without building it: links, anchors, the table of contents, docstrings."""

from __future__ import annotations

import doctest
import functools
import importlib
import importlib.util
import inspect
import json
import re
from pathlib import Path

import pytest

from creditbench.plugins import registry
from tests.cli.test_cli import VERBS, text_of

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "*.ipynb")
    for path in DOCS.rglob(pattern)
    if "_build" not in path.parts and ".ipynb_checkpoints" not in path.parts
)

pytestmark = pytest.mark.skipif(not PAGES, reason="no documentation here: this is no checkout")


def load_parts():
    spec = importlib.util.spec_from_file_location("pages", DOCS / "extensions" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parts = load_parts()
INCLUDE = re.compile(r"^```\{include\} (\S+)\n((?::.*\n)*)```$", re.MULTILINE)


def included(page, found):
    """What an include brings, with the links that a build gives it."""
    path = (page.parent / found[1]).resolve()
    text = parts.relinked(path.read_text(encoding="utf-8"), path, page)
    for name, value in re.findall(r"^:([a-z-]+): (.*)$", found[2], re.MULTILINE):
        mark = json.loads(value) if value.startswith('"') else value
        before, cut, after = text.partition(mark)
        assert cut, f"{page}: {path} has no {mark!r}"
        text = {"start-after": after, "end-before": before}[name]
    return text


@functools.cache
def built(page):
    """A page as a build reads it."""
    text = parts.relinked(parts.expanded(text_of(page)), page, page)
    return INCLUDE.sub(lambda found: included(page, found), text)


def plain(text):
    """The text without blocks of code and without code within a line."""
    return re.sub(r"`[^`\n]+`", "code", re.sub(r"^(```+)[^`\n]*\n.*?^\1$", "", text, flags=re.M | re.S))


@functools.cache
def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found: list[str] = []
    for title in re.findall(
        r"^#{1,4} (.+)$", re.sub(r"^(```+)[^`\n]*\n.*?^\1$", "", built(page), flags=re.M | re.S), re.M
    ):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()).replace(
            " ", "-"
        )
        number = sum(known == slug or known.startswith(f"{slug}-") for known in found)
        found.append(f"{slug}-{number}" if slug in found else slug)
    return found


def faults(text, page):
    """Links of a page that lead nowhere."""
    wrong = []
    for _, _, target in parts.LINK.findall(plain(text)):
        name, _, anchor = target.removeprefix("path:").partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and (path not in PAGES or anchor not in anchors(path))):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_every_link_and_anchor_of_a_page_leads_somewhere(page):
    assert faults(built(page), page) == []
    # As the repository shows it, before a build.
    targets = [target.partition("#")[0] for _, _, target in parts.LINK.findall(plain(text_of(page)))]
    files = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert [name for name in files if not (page.parent / name).exists()] == []


def test_a_link_that_leads_nowhere_is_found():
    page = DOCS / "index.md"
    text = (
        "[a](no_such.md) [b](get-started.md#no-such) [c](get-started.md#read-the-table) [d](board/index.md)"
    )
    assert faults(text, page) == ["no_such.md", "get-started.md#no-such"]


def test_links_of_an_included_file_lead_to_the_pages_that_include_it(monkeypatch):
    page, readme = DOCS / "reference" / "contributing.md", ROOT / "CONTRIBUTING.md"
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    text = (
        "[a](learners/README.md#as-published) [b](tasks/adding.py) [c](grids/board) ![d](results/quick.png)"
    )
    assert parts.relinked(text, readme, page) == (
        "[a](rules.md#as-published) [b](path:../../tasks/adding.py) c ![d](../../results/quick.png)"
    )
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    monkeypatch.setenv("GITHUB_SHA", "abc")
    assert parts.relinked("[c](grids/board)", readme, page) == (
        "[c](https://github.com/owner/name/tree/abc/grids/board)"
    )


def test_every_page_is_in_a_table_of_contents():
    reached, new = set(), {DOCS / "index.md"}
    while new:
        page = new.pop()
        reached.add(page)
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", text_of(page), re.M | re.S):
            for name in re.findall(r"^([\w./-]+)$", block, re.M):
                found = [page.parent / f"{name}{suffix}" for suffix in (".md", ".ipynb")]
                (path,) = (path.resolve() for path in found if path.is_file())
                if path not in reached:
                    new.add(path)
    assert reached == set(PAGES)


def test_every_part_that_is_made_is_on_a_page_and_complete():
    text = "\n".join(built(page) for page in PAGES)
    assert "{generated}" not in text
    assert [verb for verb in VERBS if f"## creditbench {verb}\n" not in text] == []
    for kind in ("learners", "tasks", "cells"):
        assert [name for name in registry.builtin(kind) if f"\n## {name}\n" not in text] == []


def test_sections_and_examples_of_a_docstring_are_markdown():
    text = "Say it.\n\n    a = b\n\nArgs:\n    one: the first,\n        still. `two`: more.\n\n>>> f()\n1\n"
    assert parts.markdown(text) == (
        "Say it.\n\n    a = b\n\n\n**Args**\n\n- `one`: the first,\n  still. `two`: more.\n\n\n"
        "```python\n>>> f()\n1\n```"
    )


MODULES = [
    found for page in PAGES for found in re.findall(r"^```\{generated\} api (\S+)$", text_of(page), re.M)
]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring_of_its_own(name):
    module = importlib.import_module(name)
    own = [key for key, thing in vars(module).items() if getattr(thing, "__module__", None) == name]
    names = getattr(module, "__all__", [key for key in own if not key.startswith("_")])
    assert names
    for key in names:
        thing = getattr(module, key)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert parts.described(thing), f"{name}.{key}"


def public():
    """(module, name) of every class and function that a contributed file may import."""
    for name in MODULES:
        if name == "creditbench":
            continue
        module = importlib.import_module(name)
        own = [key for key, thing in vars(module).items() if getattr(thing, "__module__", None) == name]
        for key in getattr(module, "__all__", [key for key in own if not key.startswith("_")]):
            if callable(thing := getattr(module, key)) and getattr(thing, "__module__", "").startswith(name):
                yield name, key


@pytest.mark.parametrize(("name", "key"), list(public()))
def test_the_example_of_a_public_name_runs(name, key, tmp_path, monkeypatch):
    """After that of its module, if there is one. The library's own are run by tests/library."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path / "cache"))
    module = importlib.import_module(name)
    names = dict(vars(module))
    names |= vars(importlib.import_module(getattr(module, key).__module__))
    runner = doctest.DocTestRunner()
    said: list[str] = []
    own = parts.described(getattr(module, key))
    assert ">>> " in own
    for text in (inspect.getdoc(module), own):
        case = doctest.DocTestParser().get_doctest(text, names, key, name, 0)
        assert runner.run(case, out=said.append, clear_globs=False).failed == 0, "".join(said)
        names = case.globs
