"""A program that redraws the whole screen, each cell in a colour of its own, until it has done so COUNT times."""

import os
import sys
import time

FRAMES_PER_SECOND = 20


def main() -> None:
    count, columns, lines = int(sys.argv[1]), *os.get_terminal_size()
    for frame in range(count):
        cells = [
            f"\x1b[38;2;{x * 2 % 256};{y * 5 % 256};{frame * 8 % 256};48;2;{y * 3 % 256};{frame % 256};{x % 256}m#"
            for y in range(lines)
            for x in range(columns)
        ]
        sys.stdout.write("\x1b[?2026h\x1b[H" + "".join(cells) + "\x1b[m\x1b[?2026l")
        sys.stdout.flush()
        time.sleep(1 / FRAMES_PER_SECOND)


if __name__ == "__main__":
    main()
