"""Control sequences that only move the cursor or change cells: functions of the screen and their parameters."""

from __future__ import annotations

from collections.abc import Callable

from lapconsole.terminal.screen import Screen

Parameters = tuple[int, ...]
Control = Callable[[Screen, Parameters], None]


def _count(params: Parameters) -> int:
    return params[0] or 1


def cursor_position(screen: Screen, params: Parameters) -> None:
    y = (params[0] or 1) - 1
    x = (params[1] or 1) - 1 if len(params) > 1 else 0
    if screen.origin:
        screen.y = min(screen.top + y, screen.bottom)
        screen.x = min(screen.left + x, screen.right)
    else:
        screen.y = y if y < screen.lines else screen.lines - 1
        screen.x = x if x < screen.columns else screen.columns - 1
    screen.pending_wrap = False


def cursor_up(screen: Screen, params: Parameters) -> None:
    limit = screen.top if screen.y >= screen.top else 0
    screen.y = max(limit, screen.y - _count(params))
    screen.pending_wrap = False


def cursor_down(screen: Screen, params: Parameters) -> None:
    limit = screen.bottom if screen.y <= screen.bottom else screen.lines - 1
    screen.y = min(limit, screen.y + _count(params))
    screen.pending_wrap = False


def cursor_forward(screen: Screen, params: Parameters) -> None:
    limit = screen.right if screen.x <= screen.right else screen.columns - 1
    screen.x = min(limit, screen.x + _count(params))
    screen.pending_wrap = False


def cursor_back(screen: Screen, params: Parameters) -> None:
    limit = screen.left if screen.x >= screen.left else 0
    count = _count(params)
    while screen.reverse_wrap and count > screen.x - limit and screen.y > screen.top:
        count -= screen.x - limit + 1
        screen.x = screen.right
        screen.y -= 1
    screen.x = max(limit, screen.x - count)
    screen.pending_wrap = False


def cursor_next_line(screen: Screen, params: Parameters) -> None:
    cursor_down(screen, params)
    carriage_return(screen)


def cursor_previous_line(screen: Screen, params: Parameters) -> None:
    cursor_up(screen, params)
    carriage_return(screen)


def cursor_column(screen: Screen, params: Parameters) -> None:
    x = _count(params) - 1
    screen.x = min(screen.left + x, screen.right) if screen.origin else min(x, screen.columns - 1)
    screen.pending_wrap = False


def cursor_row(screen: Screen, params: Parameters) -> None:
    y = _count(params) - 1
    screen.y = min(screen.top + y, screen.bottom) if screen.origin else min(y, screen.lines - 1)
    screen.pending_wrap = False


def cursor_forward_relative(screen: Screen, params: Parameters) -> None:
    screen.x = min(screen.columns - 1, screen.x + _count(params))
    screen.pending_wrap = False


def cursor_down_relative(screen: Screen, params: Parameters) -> None:
    screen.y = min(screen.lines - 1, screen.y + _count(params))
    screen.pending_wrap = False


def carriage_return(screen: Screen) -> None:
    screen.x = screen.left if screen.x >= screen.left else 0
    screen.pending_wrap = False


def tab_forward(screen: Screen, params: Parameters) -> None:
    limit = screen.right if screen.x <= screen.right else screen.columns - 1
    x = screen.x
    for _ in range(min(_count(params), screen.columns)):
        x += 1
        while x < limit and x not in screen.tabs:
            x += 1
    screen.x = min(x, limit)


def tab_back(screen: Screen, params: Parameters) -> None:
    x = screen.x
    for _ in range(min(_count(params), screen.columns)):
        x -= 1
        while x > 0 and x not in screen.tabs:
            x -= 1
    screen.x = max(x, 0)
    screen.pending_wrap = False


def tab_clear(screen: Screen, params: Parameters) -> None:
    if params[0] == 0:
        screen.tabs.discard(screen.x)
    elif params[0] == 3:
        screen.tabs.clear()


def erase_in_line(screen: Screen, params: Parameters) -> None:
    what = params[0]
    if what == 0:
        screen.erase(screen.y, screen.x, screen.columns)
    elif what == 1:
        screen.erase(screen.y, 0, screen.x + 1)
    elif what == 2:
        screen.erase(screen.y, 0, screen.columns)
    screen.pending_wrap = False


def erase_in_display(screen: Screen, params: Parameters) -> None:
    what = params[0]
    if what == 0:
        screen.erase(screen.y, screen.x, screen.columns)
        screen.erase_rows(screen.y + 1, screen.lines)
    elif what == 1:
        screen.erase_rows(0, screen.y)
        screen.erase(screen.y, 0, screen.x + 1)
    elif what == 2:
        screen.erase_rows(0, screen.lines)
    elif what == 3:
        screen.history.clear()
    screen.pending_wrap = False


def erase_characters(screen: Screen, params: Parameters) -> None:
    screen.erase(screen.y, screen.x, min(screen.x + _count(params), screen.columns))
    screen.pending_wrap = False


def insert_characters(screen: Screen, params: Parameters) -> None:
    screen.insert_cells(_count(params))
    screen.pending_wrap = False


def delete_characters(screen: Screen, params: Parameters) -> None:
    screen.delete_cells(_count(params))
    screen.pending_wrap = False


def insert_lines(screen: Screen, params: Parameters) -> None:
    if screen.top <= screen.y <= screen.bottom and screen.left <= screen.x <= screen.right:
        screen.scroll_down(screen.y, _count(params))
        screen.x = screen.left
        screen.pending_wrap = False


def delete_lines(screen: Screen, params: Parameters) -> None:
    if screen.top <= screen.y <= screen.bottom and screen.left <= screen.x <= screen.right:
        screen.delete_rows(screen.y, _count(params))
        screen.x = screen.left
        screen.pending_wrap = False


def scroll_up(screen: Screen, params: Parameters) -> None:
    screen.scroll_up(_count(params))


def scroll_down(screen: Screen, params: Parameters) -> None:
    # With five parameters this is highlight mouse tracking, which nobody should use.
    if len(params) < 5:
        screen.scroll_down(screen.top, _count(params))


def repeat(screen: Screen, params: Parameters) -> None:
    """Repeat the last character. At most a row of it: a short sequence must not cost a whole screen of work."""
    screen.put_again(min(_count(params), screen.columns))


def set_rows_margin(screen: Screen, params: Parameters) -> None:
    top = _count(params) - 1
    bottom = min(params[1] or screen.lines, screen.lines) - 1 if len(params) > 1 else screen.lines - 1
    if top < bottom or (top == bottom == 0 and screen.lines == 1):
        screen.set_rows_margin(top, bottom)
        home(screen)


def set_columns_margin(screen: Screen, params: Parameters) -> None:
    left = _count(params) - 1
    right = min(params[1] or screen.columns, screen.columns) - 1 if len(params) > 1 else screen.columns - 1
    if left < right:
        screen.left, screen.right = left, right
        home(screen)


def home(screen: Screen) -> None:
    cursor_position(screen, (1, 1))


CSI_CONTROLS: dict[str, Control] = {
    "@": insert_characters,
    "A": cursor_up,
    "B": cursor_down,
    "C": cursor_forward,
    "D": cursor_back,
    "E": cursor_next_line,
    "F": cursor_previous_line,
    "G": cursor_column,
    "H": cursor_position,
    "I": tab_forward,
    "J": erase_in_display,
    "K": erase_in_line,
    "L": insert_lines,
    "M": delete_lines,
    "P": delete_characters,
    "S": scroll_up,
    "T": scroll_down,
    "X": erase_characters,
    "Z": tab_back,
    "`": cursor_column,
    "a": cursor_forward_relative,
    "b": repeat,
    "d": cursor_row,
    "e": cursor_down_relative,
    "f": cursor_position,
    "g": tab_clear,
    "r": set_rows_margin,
    # Selective erase: no cell is ever protected here, so it is the plain one.
    "?J": erase_in_display,
    "?K": erase_in_line,
}
