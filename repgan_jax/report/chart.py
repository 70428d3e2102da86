"""Line charts as SVG text that a page can hold, in the colours of the page around it."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

# Units of the drawing; the page scales it.
_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 20, 12, 34
_POINTS = 150  # drawn at most: more is noise at this size


def line_chart(
    x: Sequence[float], y: Sequence[float], *, title: str, x_label: str, log: bool = False
) -> str:
    """Returns an `<svg>` of `y` [P] over `x` [P]; with `log`, `y` > 0 on a logarithmic axis.

    Of more than 150 points, means of neighbours are drawn.
    """
    xs, ys = _thin(np.asarray(x, float)), _thin(np.asarray(y, float))
    x_ticks = _ticks(xs.min(), xs.max(), whole=True)
    y_ticks = _log_ticks(ys.min(), ys.max()) if log else _ticks(ys.min(), ys.max())
    place_x = _scale(x_ticks[0], max(xs.max(), x_ticks[-1]), _LEFT, _WIDTH - _RIGHT)
    bottom, top = (math.log10(t) if log else t for t in (y_ticks[0], y_ticks[-1]))
    place_y = _scale(bottom, top, _HEIGHT - _BOTTOM, _TOP)
    heights = np.log10(ys) if log else ys
    points = [(place_x(a), place_y(b)) for a, b in zip(xs, heights, strict=True)]
    parts = [_text(place_x(t), _HEIGHT - _BOTTOM + 15, f"{t:g}", "middle") for t in x_ticks]
    for t in y_ticks:
        height = place_y(math.log10(t) if log else t)
        parts.append(f'<path class="grid" d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, height + 4, f"{t:g}", "end"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 3, x_label, "middle"))
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    parts.append(f'<path class="line" d="M{path}"/>')
    if len(points) <= 20:
        parts += [f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in points]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _thin(values: np.ndarray) -> np.ndarray:
    groups = np.array_split(values, min(len(values), _POINTS))
    return np.array([group.mean() for group in groups])


def _scale(low: float, high: float, start: float, end: float):
    """Returns the function that takes `low` to `start` and `high` to `end`."""
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Returns some five round numbers around `low` to `high`."""
    rough = max((high - low) / 4, 1 if whole else 1e-6)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9) if whole else math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, max(last, first + 1) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2, 5 times powers of ten around `low` to `high`; many decades: powers alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 2:
        return [10.0**d for d in range(first, last + 1)]
    ticks = [k * 10.0**d for d in range(first, last + 1) for k in (1, 2, 5)]
    below, above = max(t for t in ticks if t <= low), min(t for t in ticks if t >= high)
    return [t for t in ticks if below <= t <= above]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
