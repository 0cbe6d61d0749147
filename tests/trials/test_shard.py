"""Shares of a grid: together they are the whole, none has a trial of another, and a family stays together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditbench.errors import UsageError
from creditbench.trials.shard import Shard


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12))
def test_shards_part_the_whole_and_no_group(items, count):
    pairs = list(enumerate(items))
    shares = [Shard(number, count).share(pairs, lambda pair: pair[1]) for number in range(1, count + 1)]
    assert sorted(pair for share in shares for pair in share) == pairs
    assert all(list(share) == sorted(share) for share in shares)
    groups = [{group for _, group in share} for share in shares]
    assert sum(map(len, groups)) == len(set(items))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--shard is '': give its number and how many there are, as in 3/8"),
        ("3", "--shard is '3': give its number"),
        ("1/2/3", "give its number"),
        ("-1/3", "give its number"),
        ("1.0/3", "give its number"),
        ("٣/٨", "give its number"),
        ("0/3", "--shard is 0/3: shards count from 1; give 1/3 to 3/3"),
        ("4/3", "--shard is 4/3: shards count from 1; give 1/3 to 3/3"),
        ("1/0", "shards count from 1; give 1/1 to 1/1"),
    ],
)
def test_what_is_no_shard_is_refused(text, said):
    with pytest.raises(UsageError) as caught:
        Shard.parse(text)
    assert said in str(caught.value)


def test_a_shard_is_read_as_it_is_written():
    assert Shard.parse(" 3/8 ") == Shard(3, 8) and str(Shard(3, 8)) == "3/8"
