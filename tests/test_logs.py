"""Log lines: one for each record, whatever is in it."""

import json
import logging
import sys

from backend.logs import JsonLine, TextLine


def record(message: str, *arguments: object, error: bool = False) -> logging.LogRecord:
    info = None
    if error:
        try:
            raise ValueError("the cause")
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("backend.x", logging.WARNING, "x.py", 1, message, arguments, info)


def test_text_is_one_line() -> None:
    line = TextLine().format(record("session %s failed: %s", "s1", "no clone.\n\n  fatal: not found\r\nend"))
    assert line.endswith(" WARNING backend.x: session s1 failed: no clone. | fatal: not found | end")
    assert line[:20].endswith(".") and line[23] == "Z"


def test_text_tells_an_error_below_its_line() -> None:
    first, *others = TextLine().format(record("it broke", error=True)).splitlines()
    assert first.endswith("backend.x: it broke")
    assert others[-1] == "ValueError: the cause"


def test_json_is_one_line_with_all_of_it() -> None:
    line = JsonLine().format(record("a\nb “%s”", "c", error=True))
    assert "\n" not in line
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("WARNING", "backend.x", "a\nb “c”")
    assert told["error"].endswith("ValueError: the cause")
