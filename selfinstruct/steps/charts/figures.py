"""The report's charts as Plotly figures, each drawn for one theme.

Every function takes plain numbers and returns a validated `plotly.graph_objects.Figure` (plotly 7).
Labels are escaped here: Plotly reads a little HTML in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from selfinstruct.steps.charts.numbers import count, figure, percent
from selfinstruct.steps.charts.theme import Theme, layout, mix

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

VERBS = 20  # as in Self-Instruct's Figure 3
NOUNS = 4
BARS = 36
POINTS = 600
# A curve over so many steps, or fewer, has a tick at each.
WHOLE_TICKS = 8


def _draw(
    theme: Theme, height: int | None, traces: Sequence[Mapping[str, Any]], **more: Any
) -> Figure:
    from plotly.graph_objects import Figure

    return Figure(data=list(traces), layout=layout(theme, height, **more))


CLEAR = "rgba(0,0,0,0)"
# Of the candidates: the share of a flow that is drawn for its node's place alone, and is not seen.
NO_FLOW = 1e-6


def flow(theme: Theme, kept: int, beyond: int, rejected: Mapping[str, int]) -> Figure:
    """Candidates to what became of them, as a Sankey diagram; `rejected` by reason."""
    total = kept + beyond + sum(rejected.values())
    nodes = [("Candidates", total, theme.quiet), ("Kept", kept, theme.accent)]
    links: list[tuple[int, int, float, str]] = [(0, 1, kept, theme.accent)]
    hub = 0
    if beyond:
        nodes.append(("Beyond the target", beyond, theme.quiet))
        links.append((0, 2, beyond, theme.quiet))
    if rejected:
        hub = len(nodes)
        nodes.append(("Rejected", sum(rejected.values()), theme.second))
        links.append((0, hub, sum(rejected.values()), theme.second))
        for reason, number in rejected.items():
            links.append((hub, len(nodes), number, theme.second))
            nodes.append((reason.replace("_", " "), number, theme.second))
    # Plotly writes the labels of the last column over the flows that come in, and all others to
    # the right of their node. So a last column stands there that is not seen.
    ends = [at for at in range(1, len(nodes)) if at != hub]
    links += [(at, len(nodes), NO_FLOW * total, "") for at in ends]
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "node": {
            "label": [*(f"{escape(name)}  {count(n)}" for name, n, _ in nodes), ""],
            "color": [*(colour for _, _, colour in nodes), CLEAR],
            "customdata": [
                *(
                    f"{escape(name)}  {count(n)} ({percent(n, total)} of all candidates)"
                    for name, n, _ in nodes
                ),
                "",
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
            "align": "right",
            "line": {"width": 0},
            "pad": 16,
            "thickness": 14,
        },
        "link": {
            "source": [source for source, _, _, _ in links],
            "target": [target for _, target, _, _ in links],
            "value": [number for _, _, number, _ in links],
            "color": [
                mix(colour, theme.surface, 0.72) if colour else CLEAR for _, _, _, colour in links
            ],
            "hovertemplate": "%{target.customdata}<extra></extra>",
        },
        "textfont": {"color": theme.ink, "size": 12.5, "shadow": "none"},
    }
    return _draw(theme, max(220, 60 + 34 * len(rejected)), [trace])


def verb_wheel(theme: Theme, verbs: Mapping[str, Mapping[str, int]]) -> Figure:
    """The top root verbs (inside) and the top objects of each (outside), as a sunburst.

    It fills its container. As in the paper's figure, a verb's sector stands for the pairs shown,
    not for all its uses.
    """
    wheel = top_verbs(verbs)
    total = sum(number for _, _, nouns in wheel for _, number in nouns)
    rows: list[tuple[str, str, str, int, str, str]] = []
    for n, (verb, _, nouns) in enumerate(wheel):
        colour = theme.wheel[n % len(theme.wheel)]
        if n // len(theme.wheel) % 2:
            colour = mix(colour, "#ffffff" if theme.name == "dark" else "#000000", 0.2)
        rows.append((verb, verb, "", sum(number for _, number in nouns), colour, theme.on_wheel))
        pale = mix(colour, theme.surface, 0.62)
        rows += [(f"{verb} {noun}", noun, verb, k, pale, theme.ink) for noun, k in nouns]
    ids, labels, parents, values, colours, fonts = zip(*rows, strict=True) if rows else [()] * 6
    trace = {
        "type": "sunburst",
        "ids": ids,
        "labels": [escape(label) for label in labels],
        "parents": parents,
        "values": values,
        "customdata": [percent(value, total) for value in values],
        "branchvalues": "total",
        "insidetextorientation": "radial",
        "insidetextfont": {"color": fonts},
        "sort": False,
        "rotation": 90,
        "marker": {"colors": colours, "line": {"color": theme.surface, "width": 1}},
        "hovertemplate": "%{id}: %{value:,} (%{customdata} of these)<extra></extra>",
        "leaf": {"opacity": 1},
    }
    return _draw(theme, None, [trace], margin={"l": 0, "r": 0, "t": 0, "b": 0})


def top_verbs(
    verbs: Mapping[str, Mapping[str, int]],
) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """The `VERBS` most common verbs with an object: uses with one, and the `NOUNS` top nouns.

    Ordered by the uses of the nouns given.
    """
    found = []
    for verb, nouns in verbs.items():
        named = {noun: number for noun, number in nouns.items() if noun}
        if verb and named:
            ranked = sorted(named.items(), key=lambda item: (-item[1], item[0]))
            found.append((verb, sum(named.values()), ranked[:NOUNS]))
    top = sorted(found, key=lambda item: (-item[1], item[0]))[:VERBS]
    return sorted(top, key=lambda item: (-sum(n for _, n in item[2]), item[0]))


def lengths(theme: Theme, words: Mapping[int, int]) -> Figure:
    """How many records have how many words; the longest 1% in the last bar."""
    bars = binned(words)
    width = bars[0].size if bars else 1
    trace = {
        "type": "bar",
        "x": [bar.start + (width - 1) / 2 for bar in bars],
        "y": [bar.records for bar in bars],
        "width": 0.92 * width,
        "customdata": [bar.label for bar in bars],
        "marker": {"color": theme.accent, "line": {"width": 0}},
        "hovertemplate": "%{customdata}: %{y:,}<extra></extra>",
    }
    return _draw(
        theme,
        200,
        [trace],
        xaxis={"nticks": 7, "tickformat": ",d"},
        yaxis=_counts([bar.records for bar in bars]),
    )


def _counts(values: Sequence[int]) -> dict[str, Any]:
    """An axis of whole numbers, also where there are few."""
    most = max(values, default=0)
    return {"nticks": 5, "tickformat": "~s"} if most >= 8 else {"dtick": 1 if most < 4 else 2}


class Bar(NamedTuple):
    """Records with `start` to ``start + size - 1`` words; the last bar has no upper end."""

    start: int
    size: int
    records: int
    label: str


def binned(words: Mapping[int, int]) -> list[Bar]:
    """At most `BARS` bars of equal width up to the 99th percentile, and one for what is longer."""
    total = sum(words.values())
    end, seen = 0, 0
    for length in sorted(words):
        end, seen = length, seen + words[length]
        if seen >= 0.99 * total:
            break
    start = min(words, default=0)
    size = max(1, -(-(end - start + 1) // BARS))
    places = list(range(start, end + 1, size)) if words else []
    last = start + len(places) * size
    counts = dict.fromkeys(places, 0)
    for length, number in words.items():
        place = min(start + (length - start) // size * size, last)
        counts[place] = counts.get(place, 0) + number
    return [
        Bar(place, size, number, f"{place} words or more" if place == last
            else f"{place} words" if size == 1 else f"{place} to {place + size - 1} words")
        for place, number in sorted(counts.items())
    ]  # fmt: skip


def similarity(theme: Theme, scores: Sequence[float], threshold: float | None) -> Figure:
    """Scores from 0 to 1 in bars of 0.05, with a line where the filter's threshold is."""
    bars = [0] * 20
    for score in scores:
        bars[min(19, int(score * 20 + 1e-9))] += 1
    trace = {
        "type": "bar",
        "x": [0.025 + 0.05 * n for n in range(20)],
        "y": bars,
        "width": 0.045,
        "marker": {"color": theme.accent, "line": {"width": 0}},
        "customdata": [f"{0.05 * n:.2f} to {0.05 * (n + 1):.2f}" for n in range(20)],
        "hovertemplate": "%{customdata}: %{y:,}<extra></extra>",
    }
    more: dict[str, Any] = {}
    if threshold is not None:
        more["shapes"] = [
            {"type": "line", "x0": threshold, "x1": threshold, "yref": "paper", "y0": 0, "y1": 1,
             "line": {"color": theme.second, "width": 1.5, "dash": "dash"}}
        ]  # fmt: skip
        side = "right" if threshold > 0.5 else "left"
        more["annotations"] = [
            {"x": threshold, "yref": "paper", "y": 1, "xanchor": side, "yanchor": "top",
             "text": f" rejected above {threshold:g} ", "showarrow": False,
             "font": {"color": theme.second, "size": 12}}
        ]  # fmt: skip
    axis = {"range": [0, 1], "tickformat": ".1f", "title": {"text": "ROUGE-L F1"}}
    return _draw(theme, 240, [trace], xaxis=axis, yaxis=_counts(bars), **more)


def curve(
    theme: Theme, steps: Sequence[float], values: Sequence[float], *, smoothed: bool
) -> Figure:
    """A measured value over optimizer steps; `smoothed` draws its moving average over it."""
    x, y = thinned(steps, values)
    smooth = moving_average(y) if smoothed and len(y) >= 40 else None
    raw = {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 30 else "lines",
        "x": x,
        "y": y,
        "line": {"color": theme.quiet if smooth else theme.accent, "width": 1 if smooth else 2.2},
        "marker": {"size": 5},
        "hovertemplate": "step %{x:,}: %{y:.4g}<extra></extra>",
    }
    average = raw | {
        "y": smooth,
        "line": {"color": theme.accent, "width": 2.2},
        "hovertemplate": "step %{x:,}: %{y:.4g}, moving average<extra></extra>",
    }
    few = len(x) > 1 and max(x) - min(x) <= WHOLE_TICKS
    ticks = {"dtick": 1} if few else {"nticks": 7}  # no step has a fraction
    return _draw(
        theme,
        240,
        [raw, average] if smooth else [raw],
        xaxis={"title": {"text": "optimizer step"}, "tickformat": ",d", **ticks},
        yaxis={"nticks": 6, "tickformat": "~g" if max(y, default=1) >= 0.01 else ".1e"},
    )


def thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most `POINTS` points: means of equal shares of the series."""
    size = max(1, -(-len(steps) // POINTS))
    x = [max(steps[n : n + size]) for n in range(0, len(steps), size)]
    y = [
        sum(part) / len(part)
        for part in (values[n : n + size] for n in range(0, len(values), size))
    ]
    return x, y


def moving_average(values: Sequence[float]) -> list[float]:
    """Mean over about a thirtieth of the series around each point, narrower at both ends."""
    reach = max(2, len(values) // 60)
    sums = [0.0, *accumulate(values)]
    smooth = []
    for n in range(len(values)):
        near = min(reach, n, len(values) - 1 - n)
        smooth.append((sums[n + near + 1] - sums[n - near]) / (2 * near + 1))
    return smooth


def before_after(theme: Theme, before: float, after: float) -> Figure:
    """Two bars: the base's value and the student's."""
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": ["student", "base"],
        "x": [after, before],
        "text": [figure(after), figure(before)],
        "textposition": "outside",
        "cliponaxis": False,
        "textfont": {"color": theme.ink, "size": 13},
        "marker": {"color": [theme.accent, theme.quiet], "line": {"width": 0}},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }
    wide = 1.22 * max(before, after, 1e-9)
    return _draw(
        theme,
        110,
        [trace],
        bargap=0.35,
        margin={"l": 4, "r": 8, "t": 2, "b": 2},
        xaxis={"visible": False, "range": [0, wide]},
        yaxis={"showgrid": False, "tickfont": {"size": 12.5, "color": theme.ink}},
    )
