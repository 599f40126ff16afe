"""Which answer is right, and which SM is to blame when one is not. Decides from what was seen; touches no GPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ALL_SMS = "all"
_NONE = "none"
_NAMED = 32  # more SMs than this in one word help nobody


@dataclass(frozen=True)
class Vote:
    """A tile that was computed on `sm`, its digest, and whether it was proven right (None: not examined)."""

    tile: int
    sm: int
    digest: int
    right: bool | None


@dataclass(frozen=True)
class Reference:
    """The digest that a tile is compared with from now on, and the votes that were wrong."""

    digests: tuple[int, ...]
    wrong: tuple[Vote, ...]
    refuted: tuple[int, ...]  # tiles on whose digest all agree, and which are wrong all the same


def settle(votes: Iterable[Vote], tiles: int) -> Reference:
    """The digest of each tile: proven right if any is, then the one that most SMs say, then the first said.

    Raises ValueError when nobody computed some tile.
    """
    by_tile: dict[int, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_tile[vote.tile].append(vote)
    digests, wrong, refuted = [], [], []
    for tile in range(tiles):
        cast = by_tile[tile]
        if not cast:
            raise ValueError(f"no block computed tile {tile} of {tiles}")
        digest = _chosen(cast)
        disproven = any(v.right is False for v in cast if v.digest == digest)
        digests.append(digest)
        wrong += [v for v in cast if disproven or v.digest != digest]
        if disproven:
            refuted.append(tile)
    return Reference(tuple(digests), tuple(wrong), tuple(refuted))


def _chosen(cast: list[Vote]) -> int:
    def weight(digest: int) -> tuple[bool, bool, int]:
        said = [v for v in cast if v.digest == digest]
        proven = any(v.right for v in said)
        disproven = any(v.right is False for v in said)
        return proven, not disproven, len({v.sm for v in said})

    return max(dict.fromkeys(v.digest for v in cast), key=weight)  # of equals, the first


def suspects(wrong_by_sm: Mapping[int, int], sms: int) -> str:
    """The SMs that were wrong, as one word of a record: their numbers, `all`, or `none`.

    When more than half of the SMs are wrong, it is something that they share.
    """
    guilty = sorted(sm for sm, count in wrong_by_sm.items() if count)
    if not guilty:
        return _NONE
    if len(guilty) > sms // 2:
        return ALL_SMS
    more = f" and {len(guilty) - _NAMED} more" if len(guilty) > _NAMED else ""
    return " ".join(str(sm) for sm in guilty[:_NAMED]) + more
