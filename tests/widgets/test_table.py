"""The live table: order, filter, a cursor that stays with its entity, and a cost that does not grow with the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from textual.pilot import Pilot

from lapconsole.app import LapConsole
from lapconsole.client.models import Event, Session
from lapconsole.screens.sessions import FAULTS, SessionsScreen
from lapconsole.widgets.table import HEADER, Table
from tests.screens.scene import NOW, PAYMENTS, REVIEWER, Clock, console, session


def table_of(app: LapConsole) -> Table[Session]:
    assert isinstance(app.screen, SessionsScreen)
    return app.screen.table


def line(table: Table[Session], y: int) -> str:
    return table.render_line(y).text


def ids(table: Table[Session]) -> list[str]:
    return list(table.view)


def number(session_id: str | None) -> int:
    return int((session_id or "0").rpartition("-")[2])


async def settle(app: LapConsole, pilot: Pilot[None]) -> None:
    app.model.flush()
    await pilot.pause()


@contextmanager
def drawn_rows(table: Table[Session]) -> Iterator[list[str]]:
    """The ids of rows drawn anew meanwhile."""
    drawn: list[str] = []
    original = table._draw

    def draw(row: Session, *args: object) -> object:
        drawn.append(row.id)
        return original(row, *args)  # type: ignore[arg-type]

    table._draw = draw  # type: ignore[method-assign, assignment]
    yield drawn
    table._draw = original  # type: ignore[method-assign]


async def test_title_counts_and_faults_come_first() -> None:
    app = console()
    async with app.run_test(size=(80, 24)):
        table = table_of(app)
        assert line(table, 0).startswith("─ Sessions(all)[33] ─")
        assert "faults first" in line(table, 0)
        assert [line(table, HEADER + row)[2:12].strip() for row in range(4)] == [
            "✗ failed",
            "▲ creating",
            "◐ creating",
            "● ready",
        ]


async def test_lines_fill_the_width_exactly_at_every_size() -> None:
    for width in (40, 80, 97, 120, 200, 233):
        app = console()
        async with app.run_test(size=(width, 24)):
            table = table_of(app)
            for y in range(table.size.height):
                assert table.render_line(y).cell_length == table.scrollable_content_region.width


async def test_cursor_stays_on_its_entity_and_the_screen_still_when_rows_come_above() -> None:
    app = console(rows=[session(number, PAYMENTS, age=100.0 * number) for number in range(1, 60)])
    async with app.run_test(size=(80, 24)) as pilot:
        table = table_of(app)
        await pilot.press(*["down"] * 30)
        chosen, before = table.cursor_id, [line(table, y) for y in range(HEADER, 20)]
        app.model.update_sessions([session(100 + number, REVIEWER, age=1) for number in range(5)])
        await settle(app, pilot)
        assert table.cursor_id == chosen
        assert [line(table, y) for y in range(HEADER, 20)] == before


async def test_at_the_top_new_rows_are_seen() -> None:
    app = console(rows=[session(number, PAYMENTS, age=100.0 * number) for number in range(1, 60)])
    async with app.run_test(size=(80, 24)) as pilot:
        app.model.update_sessions([session(100, REVIEWER, age=1)])
        await settle(app, pilot)
        assert "code-reviewer" in line(table_of(app), HEADER)
        assert number(table_of(app).cursor_id) == 1


async def test_the_row_that_takes_the_place_of_a_removed_one_gets_the_cursor() -> None:
    rows = [session(number, PAYMENTS, age=100.0 * number) for number in range(1, 5)]
    app = console(rows=rows)
    async with app.run_test(size=(80, 24)) as pilot:
        table = table_of(app)
        await pilot.press("down")
        app.model.apply(Event("session.deleted", session_id=table.cursor_id))
        await settle(app, pilot)
        assert number(table.cursor_id) == 3
        for row in rows:
            app.model.apply(Event("session.deleted", session_id=row.id))
        await settle(app, pilot)
        assert table.cursor_id is None
        await pilot.press("down", "up", "home", "end", "pagedown", "pageup", "enter", "x", "r", "D", "a")
        assert isinstance(app.screen, SessionsScreen)
        assert "No sessions yet." in "\n".join(line(table, y) for y in range(20))


async def test_a_row_holds_still_while_somebody_moves_and_then_goes_where_it_belongs() -> None:
    rows = [session(number, PAYMENTS, age=100.0 * number) for number in range(1, 20)]
    app = console(rows=rows)
    async with app.run_test(size=(80, 24)) as pilot:
        table = table_of(app)
        await pilot.press("down")
        app.model.update_sessions([replace(rows[9], status="failed", phase="pod_pending")])
        await settle(app, pilot)
        table.tick()
        assert ids(table).index(rows[9].id) == 9
        assert "✗ failed" in line(table, HEADER + 9)
        await pilot.press("full_stop")
        assert ids(table)[0] == rows[9].id
        assert number(table.cursor_id) == 2


async def test_only_what_changed_is_drawn() -> None:
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        table = table_of(app)
        changed = app.model.sessions[ids(table)[5]]
        with drawn_rows(table) as drawn:
            app.model.update_sessions([replace(changed, viewers=7)])
            await settle(app, pilot)
            await pilot.press("down", "down", "up")
            assert drawn == [changed.id]


async def test_the_clock_redraws_only_ages_that_read_differently() -> None:
    clock = Clock()
    app = console()
    app.clock = clock
    async with app.run_test(size=(80, 24)) as pilot:
        table = table_of(app)
        before = [line(table, y) for y in range(HEADER, 22)]
        with drawn_rows(table) as drawn:
            app._tick()
            await pilot.pause()
            assert drawn == []
            clock.now = NOW + timedelta(seconds=1)
            app._tick()
            await pilot.pause()
        changed = [
            id for id, then, y in zip(ids(table), before, range(HEADER, 22), strict=False) if then != line(table, y)
        ]
        assert drawn == changed
        assert changed


async def test_sort_cycles_through_the_columns_and_turns_round() -> None:
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        table = table_of(app)
        assert table.view.sort == FAULTS
        seen = []
        for _ in range(7):
            await pilot.press("s")
            seen.append(table.view.sort)
        assert seen == ["status", "agent", "title", "harness", "doing", "created", "seen"]
        await pilot.press("s", "s")
        before = ids(table)
        assert "AGENT ↑" in line(table, 1)
        await pilot.press("S")
        assert "AGENT ↓" in line(table, 1)
        assert ids(table) == before[::-1]
        await pilot.press("z")
        assert table.view.sort == FAULTS


async def test_filter_narrows_while_typed_and_escape_clears_it() -> None:
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        table = table_of(app)
        await pilot.press("slash", *"claude !dead")
        assert "[16 of 33]" in line(table, 0)
        await pilot.press("enter")
        assert app.focused is table
        assert "/claude !dead" in line(table, 0)
        await pilot.press("slash", *" zzz", "enter")
        assert 'Nothing matches "claude !dead zzz".' in "\n".join(line(table, y) for y in range(12))
        await pilot.press("escape")
        assert len(table.view) == 33
        await pilot.press("slash", *"q1", "escape")
        assert len(table.view) == 33
        assert app.is_running


async def test_hostile_names_cannot_drive_the_terminal() -> None:
    app = console(rows=[Session.from_json({"id": "1", "agent_name": "a\x1b[31mb\nc\u202e", "status": "ready\x07"})])
    async with app.run_test(size=(80, 24)):
        assert all(line(table_of(app), y).isprintable() for y in range(6))


@pytest.mark.parametrize("status", ["", "paused"])
async def test_unknown_statuses_are_shown_as_they_are(status: str) -> None:
    app = console(rows=[Session("1", status=status)])
    async with app.run_test(size=(80, 24)):
        assert (status or "unknown") in line(table_of(app), HEADER)


async def test_a_hundred_thousand_rows_stay_cheap() -> None:
    """Counted, not timed: an update and a key touch a handful of rows, however many there are."""
    rows = [session(number, PAYMENTS, age=float(number)) for number in range(100_000)]
    app = console(rows=rows)
    async with app.run_test(size=(80, 24)) as pilot:
        table = table_of(app)
        with drawn_rows(table) as drawn:
            app.model.update_sessions([replace(rows[50_000], viewers=3), replace(rows[3], viewers=3)])
            await settle(app, pilot)
            await pilot.press("end")
            assert number(table.cursor_id) == 99_999
            await pilot.press("up", "home")
            assert number(table.cursor_id) == 0
            assert len(drawn) < 3 * 24
