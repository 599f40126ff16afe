"""The same act on many nodes at once, each with an end of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from toolkit.errors import RackproofError


def side_by_side(nodes: Collection[str], do: Callable[[str], object], most: int) -> dict[str, RackproofError]:
    """Calls `do` for every node, at most so many at once. Answers those it failed for, each with why."""
    failed: dict[str, RackproofError] = {}

    def one(node: str) -> None:
        try:
            do(node)
        except RackproofError as failure:
            failed[node] = failure

    if nodes:
        with ThreadPoolExecutor(min(len(nodes), most), thread_name_prefix="node") as threads:
            list(threads.map(one, nodes))
    return failed
