"""The learning curves behind the table, as one SVG: mean over seeds, and the range of seeds as a band.

python -m benchmarks.curves      # reads results/learning.jsonl, writes results/learning.svg
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning import COOPERATIVE, FILE, Row
from benchmarks.trials import RESULTS, read

PICTURE = RESULTS / "learning.svg"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 380, 250, 46, 34, 38
COLOURS = {"mappo": "#1f6fb4", "maddpg": "#c2571a", "matd3": "#2a8a4a"}
Curves = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""algorithm -> steps (P,), returns (seeds, P)."""


def longest(rows: Sequence[Row], entries: Sequence[dict[str, Any]]) -> dict[str, Curves]:
    """For each task, every algorithm's curves of its largest budget."""
    tasks: dict[str, Curves] = {}
    for row in sorted(rows, key=lambda row: row.steps):
        key = (row.task, row.algo, row.steps)
        curves = [e["curve"] for e in entries if (e["task"], e["variant"], e["total_steps"]) == key and "curve" in e]
        if curves:
            length = min(map(len, curves))
            points = np.array([curve[:length] for curve in curves], dtype=np.float64)  # (seeds, P, 2)
            tasks.setdefault(row.task, {})[row.algo] = (points[0, :, 0], points[:, :, 1])
    return tasks


def panel(title: str, curves: Curves) -> str:
    """One task."""
    most = max(float(steps.max()) for steps, _ in curves.values())
    low = min(float(returns.min()) for _, returns in curves.values())
    high = max(float(returns.max()) for _, returns in curves.values())
    low, high = np.floor(low), np.ceil(high)

    def at(steps: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 12) * steps / most
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>']
    for value in np.linspace(low, high, 5):
        x, y = at(0, value).split(",")
        parts.append(f'<path d="M{x},{y}H{WIDTH - 12}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4}" text-anchor="end">{value:.3g}</text>')
    for steps in np.linspace(0, most, 5):
        x = at(steps, low).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{steps / 1e6:.2g}M</text>')
    for i, (algo, (steps, returns)) in enumerate(curves.items()):
        colour = COLOURS[algo]
        upper = [at(s, v) for s, v in zip(steps, returns.max(0), strict=True)]
        lower = [at(s, v) for s, v in zip(steps, returns.min(0), strict=True)]
        middle = [at(s, v) for s, v in zip(steps, returns.mean(0), strict=True)]
        parts.append(f'<polygon points="{" ".join(upper + lower[::-1])}" fill="{colour}" opacity="0.2"/>')
        parts.append(f'<polyline points="{" ".join(middle)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        told = f"{algo}, {len(returns)} seed{'s' if len(returns) > 1 else ''}"
        parts.append(
            f'<text x="{WIDTH - 16}" y="{HEIGHT - BOTTOM - 8 - 14 * i}" text-anchor="end" fill="{colour}">{told}</text>'
        )
    return "\n".join(parts)


def main() -> None:
    """Write the picture."""
    tasks = longest(COOPERATIVE, list(read(FILE)))
    columns = 2
    lines = -(-len(tasks) // columns)
    panels = [
        f'<g transform="translate({WIDTH * (i % columns)},{HEIGHT * (i // columns)})">{panel(title, curves)}</g>'
        for i, (title, curves) in enumerate(tasks.items())
    ]
    size = f'width="{WIDTH * columns}" height="{HEIGHT * lines}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    PICTURE.write_text("\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *panels, "</svg>"]) + "\n")
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
