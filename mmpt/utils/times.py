"""Times of videos as they are printed."""

__all__ = ["clock", "clocks"]

#: A part that is shorter, in seconds, is told with tenths.
_SHORT = 3.0


def clock(seconds: float, tenths: bool = True) -> str:
    """Write a time as ``mm:ss.s``, or without tenths as ``mm:ss``; minutes go beyond 59."""
    if not tenths:
        return f"{round(seconds) // 60:02d}:{round(seconds) % 60:02d}"
    count = round(seconds * 10)
    return f"{count // 600:02d}:{count % 600 // 10:02d}.{count % 10}"


def clocks(start: float, end: float) -> tuple[str, str]:
    """Write where a part begins and ends, with tenths where it lasts less than three seconds."""
    tenths = end - start < _SHORT
    return clock(start, tenths), clock(end, tenths)
