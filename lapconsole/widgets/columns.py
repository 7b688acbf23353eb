"""Columns of a table, and how they share the width: the least important fold away first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from lapconsole.widgets.parts import Look, Parts

Row = TypeVar("Row")
GAP = 2


class Column(NamedTuple, Generic[Row]):
    """One column: what it shows, what sorting by it means, and the cells it needs.

    `width` is the least it is drawn with, `good` (if it is more) the width that others fold away for; `grow` is its
    share of what is left over, up to `most` cells in all; columns with a higher `fold` disappear first when there is no
    room, `fold` 0 never does. `sort` names a sort of the view, "" for none, and `descending` its usual direction.
    `live` cells change with the clock alone.
    """

    id: str
    title: str
    cell: Callable[[Row, Look], Parts]
    width: int
    sort: str = ""
    descending: bool = False
    grow: int = 0
    most: int = 1000
    fold: int = 0
    right: bool = False
    live: bool = False
    good: int = 0


def lay_out(columns: Sequence[Column[Row]], available: int) -> tuple[list[tuple[Column[Row], int]], list[Column[Row]]]:
    """Share `available` cells out: ([(column, width)] in order, folded columns).

    Widths and gaps fill the whole width where a column may grow; when even the columns that never fold do not fit,
    they keep their widths and the line is cut at its end.
    """
    shown = list(columns)
    while _needed(shown) > available and (foldable := [column for column in shown if column.fold]):
        shown.remove(max(reversed(foldable), key=lambda column: column.fold))
    widths = {column.id: max(column.width, column.good) for column in shown}
    spare = available - _needed(shown)
    for column in shown:  # nothing is left to fold
        less = min(max(0, -spare), widths[column.id] - column.width)
        widths[column.id] -= less
        spare += less
    growing = [column for column in shown if column.grow and column.most > widths[column.id]]
    while spare > 0 and growing:
        share = sum(column.grow for column in growing)
        for column in growing:
            extra = min(max(1, spare * column.grow // share), column.most - widths[column.id], spare)
            widths[column.id] += extra
            spare -= extra
            share = max(1, share - column.grow)
        growing = [column for column in growing if widths[column.id] < column.most]
    return [(column, widths[column.id]) for column in shown], [column for column in columns if column not in shown]


def _needed(columns: Sequence[Column[Row]]) -> int:
    return sum(max(column.width, column.good) for column in columns) + GAP * max(0, len(columns) - 1)
