"""Colours of the charts, for light and dark pages, and the layout that all charts share.

The page's own colours are in report.css; the two agree. Ordinary text has a contrast of at least
4.5 to 1 on `surface` in both themes.
"""

from __future__ import annotations

from typing import Any

import msgspec

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# No mode bar, no logo, no link out; scrolling the page never zooms a chart.
CONFIG: dict[str, Any] = {
    "displayModeBar": False,
    "responsive": True,
    "scrollZoom": False,
    "showTips": False,
}


class Theme(msgspec.Struct, frozen=True):
    """The colours of one theme, as #rrggbb.

    `accent` stands for what was kept and for the student, `second` for what was rejected, `quiet`
    for what it is compared with. `wheel` colours the sectors of the verb chart in turn, and
    `on_wheel` what is written on them.
    """

    name: str
    surface: str
    ink: str
    muted: str
    line: str
    accent: str
    second: str
    quiet: str
    wheel: tuple[str, ...]
    on_wheel: str


LIGHT = Theme(
    name="light",
    surface="#ffffff",
    ink="#1c2733",
    muted="#5a6775",
    line="#e3e8ed",
    accent="#1f6f8b",
    second="#a4581f",
    quiet="#9aa7b4",
    wheel=(
        "#1f6f8b", "#2c7a74", "#48773f", "#6f7426", "#8f6a1a",
        "#a4581f", "#a94f4a", "#95527f", "#6d5a9e", "#48699f",
    ),
    on_wheel="#ffffff",
)  # fmt: skip

DARK = Theme(
    name="dark",
    surface="#171d24",
    ink="#e6ebf0",
    muted="#9fabb8",
    line="#2b343e",
    accent="#5fb3cf",
    second="#dc9a62",
    quiet="#6b7885",
    wheel=(
        "#5fb3cf", "#62b8b0", "#86b682", "#b3b665", "#d6ae5c",
        "#dc9a62", "#dc8a84", "#c98ab6", "#a596d4", "#7fa2d6",
    ),
    on_wheel="#10161c",
)  # fmt: skip

THEMES = (LIGHT, DARK)


def mix(colour: str, other: str, share: float) -> str:
    """`colour` with `share` (0..1) of `other` in it."""
    a, b = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (colour, other))
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in zip(a, b, strict=True))


def layout(theme: Theme, height: int | None, **more: Any) -> dict[str, Any]:
    """A chart's layout: transparent, with a fine grid, `height` pixels or as high as its place."""
    axis = {
        "gridcolor": theme.line,
        "linecolor": theme.line,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        "ticks": "",
        "title": {"font": {"size": 12, "color": theme.muted}, "standoff": 10},
        "tickfont": {"size": 11.5, "color": theme.muted},
    }
    base: dict[str, Any] = {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12.5, "color": theme.ink},
        "hoverlabel": {
            "bgcolor": theme.ink,
            "bordercolor": theme.ink,
            "font": {"family": FONT, "size": 12.5, "color": theme.surface},
        },
        "showlegend": False,
        "dragmode": False,
        "bargap": 0.08,
        "xaxis": axis | {"showgrid": False},
        "yaxis": axis,
    }
    return _merged(base, more)


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `more`, dictionaries within dictionaries merged alike."""
    merged = dict(base)
    for key, value in more.items():
        known = base.get(key)
        both = isinstance(known, dict) and isinstance(value, dict)
        merged[key] = _merged(known, value) if known is not None and both else value
    return merged
