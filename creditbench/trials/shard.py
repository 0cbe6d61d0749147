"""A share of a grid, for runs that know nothing of each other, such as the tasks of an array job."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from creditbench.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """One of `count` shares: it has every `count`-th group from the `number`-th on, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of a text as "3/8". Raises `UsageError`.

        >>> Shard.parse("3/8")
        Shard(number=3, count=8)
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        if found is None:
            raise UsageError(f"--shard is {text!r}: give its number and how many there are, as in 3/8")
        number, count = map(int, found.groups())
        if not 1 <= number <= count:
            count = max(1, count)
            raise UsageError(f"--shard is {text}: shards count from 1; give 1/{count} to {count}/{count}")
        return cls(number, count)

    def share(self, items: Iterable[Item], group: Callable[[Item], Hashable]) -> tuple[Item, ...]:
        """The items of every `count`-th group, in their order. Groups count in the order of first items.

        >>> Shard(1, 2).share(["a1", "b1", "c1", "a2"], lambda item: item[0])
        ('a1', 'c1', 'a2')
        """
        place: dict[Hashable, int] = {}
        return tuple(
            item
            for item in items
            if place.setdefault(group(item), len(place)) % self.count == self.number - 1
        )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
