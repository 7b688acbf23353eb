"""How much a viewer that tells what it has got may have on its way, by a clock of the test's own."""

from backend.harness.viewers.window import FIRST, LEAST, LEAST_QUEUED, MOST, Window

MOST_QUEUED = 262_144


class Link:
    """Takes so many bytes a second, and `trip` seconds more to bring them and the answer. A little has come already."""

    def __init__(self, window: Window, trip: float, rate: float = 1e9) -> None:
        self.window, self.trip = window, trip
        self.now = self.free = 100 / rate + trip
        self.total = 100
        self.under_way: list[tuple[float, int, float]] = []
        window.sent(self.total, 0.0)
        window.got(self.total, self.now)

    def flood(self, rate: float, seconds: float, frame: int = 1024) -> float:
        """Send whatever the window takes; how long the last bytes took."""
        end, delay = self.now + seconds, 0.0
        while self.now < end:
            while not self.window.full and len(self.under_way) < 2000:
                self.window.sent(frame, self.now)
                self.total += frame
                self.free = max(self.free, self.now) + frame / rate
                self.under_way.append((self.free + self.trip, self.total, self.now))
            arrival, got, sent_at = self.under_way.pop(0)
            self.now = max(self.now, arrival)
            delay = self.now - sent_at
            self.window.got(got, self.now)
        return delay


def test_who_tells_nothing_is_sent_everything() -> None:
    window = Window()
    window.sent(10 * MOST, 0.0)
    assert not window.full
    assert window.queue_limit(MOST_QUEUED) == MOST_QUEUED


def test_over_a_thin_link_little_is_on_its_way() -> None:
    window = Window()
    assert Link(window, 0.01, 15_000).flood(15_000, 60) < 0.5
    assert LEAST <= window.size < FIRST
    assert window.queue_limit(MOST_QUEUED) == LEAST_QUEUED


def test_over_a_fast_link_the_window_opens_and_nothing_is_skipped_for_it() -> None:
    window = Window()
    Link(window, 0.001).flood(100e6, 0.1)
    assert window.size == MOST
    assert window.queue_limit(MOST_QUEUED) == MOST_QUEUED


def test_a_long_way_is_no_thin_link() -> None:
    window = Window()
    Link(window, 0.4).flood(10e6, 3)
    assert window.size >= FIRST


def test_a_thin_link_that_becomes_fast_again() -> None:
    window = Window()
    link = Link(window, 0.01, 15_000)
    link.flood(15_000, 60)
    link.flood(10e6, 5)
    assert window.size >= FIRST


def test_impossible_figures_change_nothing() -> None:
    window = Window()
    window.sent(10, 0.0)
    window.got(10, 0.01)
    for total in (-5, 0, 10, 10**18):
        window.got(total, 1.0)
    window.sent(FIRST, 2.0)
    assert window.full
    window.got(10**18, 2.1)
    assert not window.full
