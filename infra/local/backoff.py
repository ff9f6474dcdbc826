"""How long to wait before a dead process is started again. Pure."""

QUICK = 10.0
FIRST = 0.5
LONGEST = 30.0


class Backoff:
    """Start again at once, unless the last lives were short.

    A life below ``QUICK`` seconds is a quick death. The first is forgiven; each further
    one in a row doubles the wait, up to ``LONGEST`` seconds.
    """

    def __init__(self) -> None:
        self.quick_deaths = 0

    def after(self, lived: float) -> float:
        """Return the seconds to wait after a life of *lived* seconds."""
        if lived >= QUICK:
            self.quick_deaths = 0
            return 0.0
        self.quick_deaths += 1
        if self.quick_deaths == 1:
            return 0.0
        # The exponent is bounded so that a very long row of deaths cannot overflow.
        return min(LONGEST, FIRST * 2.0 ** min(self.quick_deaths - 2, 16))
