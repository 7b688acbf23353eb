"""How columns share the width."""

from typing import Any

import pytest

from lapconsole.widgets.columns import GAP, Column, lay_out


def column(id: str, width: int, **fields: Any) -> Column[Any]:
    return Column(id, id, lambda row, look: ((str(row), "plain"),), width, **fields)


COLUMNS = (
    column("status", 10),
    column("agent", 12, grow=2, most=20),
    column("title", 14, grow=3, fold=3),
    column("harness", 11, fold=2),
    column("age", 4, fold=1),
)


@pytest.mark.parametrize(
    ("available", "shown"),
    [
        (200, ["status", "agent", "title", "harness", "age"]),
        (58, ["status", "agent", "harness", "age"]),
        (40, ["status", "agent", "age"]),
        (25, ["status", "agent"]),
        (3, ["status", "agent"]),
    ],
)
def test_the_least_important_fold_first(available: int, shown: list[str]) -> None:
    layout, folded = lay_out(COLUMNS, available)
    assert [column.id for column, _ in layout] == shown
    assert {column.id for column in folded} == {column.id for column in COLUMNS} - set(shown)


@pytest.mark.parametrize("available", range(60, 240, 7))
def test_what_is_left_over_is_shared_out_to_the_last_cell(available: int) -> None:
    layout, _ = lay_out(COLUMNS, available)
    assert sum(width for _, width in layout) + GAP * (len(layout) - 1) == available
    assert all(column.width <= width <= column.most for column, width in layout)


def test_nothing_grows_beyond_its_most() -> None:
    layout, _ = lay_out(COLUMNS[:2], 200)
    assert [width for _, width in layout] == [10, 20]
