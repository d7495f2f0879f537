"""Sizes and times as people read them."""

from __future__ import annotations


def format_size(count: float) -> str:
    """A number of bytes for people: ``4.2 GiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def format_sizes(first: float, *others: float) -> list[str]:
    """Several numbers of bytes: ``12.0 GiB``, ``11.8``, ``0.2``, ``3.0 MiB``.

    The unit of the first is said once, and goes for all that say something in it.
    """
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    sizes = [format_size(first)]
    unit = units.index(sizes[0].partition(" ")[2])
    for other in others:
        number, _, own = format_size(other).partition(" ")
        scaled = f"{other / 1024**unit:.1f}" if unit else number
        if units.index(own) > unit or (other and scaled == "0.0"):
            sizes.append(f"{number} {own}")
        else:
            sizes.append(scaled if other else "0")
    return sizes


def format_duration(seconds: float) -> str:
    """A duration for people: ``8ms``, ``0.25s``, ``4.2s``, ``42s``, ``3m12s``, ``2h05m``."""
    if seconds < 0.1:
        return f"{max(0.0, seconds) * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.2g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
