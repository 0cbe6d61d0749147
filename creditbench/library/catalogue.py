"""What there is: tasks, rules and cells by id, each with its documentation."""

from __future__ import annotations

import ast
import dataclasses
import html
import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from creditbench.errors import unknown
from creditbench.library.messages import says_arguments
from creditbench.plugins import registry
from creditbench.plugins.importing import Kind, Plugin
from creditbench.trials.network import own_fields

#: What tells plug-ins of a kind apart, by the name of its column.
_TRAITS: dict[Kind, dict[str, Any]] = {
    "tasks": {
        "protocol": lambda cls: cls.protocol,
        "metric": lambda cls: f"{cls.metric} {'↓' if cls.metric_direction == 'min' else '↑'}",
        "source": lambda cls: cls.citation,
    },
    "learners": {"family": lambda cls: cls.family, "source": lambda cls: cls.paper},
    "cells": {"state": lambda cls: cls.S, "gates": lambda cls: cls.G, "source": lambda cls: cls.paper},
}


class About:
    """A task, rule or cell: what `creditbench show` says of it."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    @property
    def id(self) -> str:
        return self._plugin.id

    @property
    def name(self) -> str:
        return str(self._plugin.cls.name)

    @property
    def cls(self) -> Any:
        """Its class. Of a rule that is not shipped a stand-in, which has its fields and does not train."""
        return self._plugin.cls

    @property
    def path(self) -> Path:
        """Its file."""
        return self._plugin.path

    @cached_property
    def doc(self) -> str:
        """The equations and the source, from the head of its file, which is not run."""
        return ast.get_docstring(ast.parse(self.path.read_bytes())) or inspect.getdoc(self.cls) or ""

    @property
    def parameters(self) -> dict[str, Any]:
        """Its fields with their defaults: of a rule its hyper-parameters, of a cell its own constants."""
        cls = self.cls
        own = own_fields(cls) if self._plugin.kind == "cells" else dataclasses.fields(cls)
        return {field.name: field.default for field in own}

    @property
    def traits(self) -> dict[str, Any]:
        """What tells it apart, and its source."""
        return {name: trait(self.cls) for name, trait in _TRAITS[self._plugin.kind].items()}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        traits = ", ".join(f"{name}: {value}" for name, value in self.traits.items())
        return f"{self.id}({given}): {self.name}\n{traits}\n\n{self.doc}"


class Catalogue(Mapping[str, About]):
    """Tasks, rules or cells by id, in the order of the tables."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._found = {id: About(plugin) for id, plugin in registry.load(kind).items()}

    @says_arguments
    def __getitem__(self, id: str) -> About:
        if id not in self._found:
            raise unknown(self.kind[:-1], id, self._found, f"creditbench list {self.kind}")
        return self._found[id]

    def __contains__(self, id: object) -> bool:
        return id in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def _rows(self) -> list[list[str]]:
        """(id, name, parameters, traits)."""
        return [
            [
                *(one.id, one.name, ", ".join(f"{k}={v!r}" for k, v in one.parameters.items())),
                *map(str, one.traits.values()),
            ]
            for one in self._found.values()
        ]

    def __repr__(self) -> str:
        wide = max(map(len, self._found), default=0)
        lines = (f"  {one.id:{wide}}  {one.name}" for one in self._found.values())
        return "\n".join([f"{len(self)} {self.kind}:", *lines])

    def _repr_html_(self) -> str:
        heads = ["id", "name", "parameters", *_TRAITS[self.kind]]
        head = "".join(f"<th>{name}</th>" for name in heads)
        lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self._rows())
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def list_tasks() -> Catalogue:
    """The tasks: shipped ones, and those of installed packages.

    >>> import creditbench as cb
    >>> cb.list_tasks()["adding"].name
    'Adding problem'
    >>> "weather" in cb.list_tasks()
    True
    """
    return Catalogue("tasks")


def list_learners() -> Catalogue:
    """The rules: shipped ones, and those of installed packages.

    >>> import creditbench as cb
    >>> anp = cb.list_learners()["anp"]
    >>> anp.parameters["sigma"], anp.traits["family"]
    (0.001, 'perturbation')
    >>> print(anp.doc.splitlines()[0])
    Activity-based node perturbation: the change of activity by noise replaces the noise itself.
    """
    return Catalogue("learners")


def list_cells() -> Catalogue:
    """The cells: shipped ones, and those of installed packages.

    >>> import creditbench as cb
    >>> list(cb.list_cells())
    ['tanh', 'linear', 'gru', 'lstm', 'lru', 'lif', 'alif']
    """
    return Catalogue("cells")
