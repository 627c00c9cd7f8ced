"""The page itself: one HTML file with its style, scripts, plotly.js and the charts' data inside.

Nothing is loaded from anywhere: a Content-Security-Policy in the page forbids every request, and
lets run no script but the two whose hashes it names. So a hole in the escaping of a record's text
could neither run code nor send anything.

The charts come in two versions, light and dark; the page shows the one that fits the reader's
setting, and the light one on paper.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import TYPE_CHECKING

from selfinstruct.core.errors import MissingDependency
from selfinstruct.steps.charts.markup import text
from selfinstruct.steps.charts.theme import CONFIG, THEMES, Theme

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Drawing = Callable[[Theme], "Figure"]


class Page:
    """Sections in order, and the drawings of their charts.

    Args:
        title: the run's name.
        lead: finished HTML under the title.
        kind: what the page is, above the title.
    """

    def __init__(self, title: str, lead: str, kind: str = "run report") -> None:
        self.title = title
        self.lead = lead
        self.kind = kind
        self._sections: list[tuple[str, str, str]] = []
        self._drawings: dict[str, Drawing] = {}

    def add(self, anchor: str, title: str, *body: str) -> None:
        """Add a section of finished HTML."""
        self._sections.append((anchor, title, "".join(body)))

    def chart(self, anchor: str, label: str, height: str, draw: Drawing, kind: str = "") -> str:
        """A place of CSS `height` for a chart; `label` says what it shows to who cannot see it."""
        self._drawings[anchor] = draw
        return (
            f'<div class="chart {text(kind)}" id="chart-{text(anchor)}" role="img"'
            f' aria-label="{text(label)}" style="height:{height}"></div>'
        )

    def html(self) -> str:
        """The finished page.

        Raises `MissingDependency` where there are charts to draw and plotly is not installed.
        """
        scripts = [plotly_js(), _asset("report.js")] if self._drawings else []
        contents = "".join(
            f'<li><a href="#{anchor}">{text(title)}</a></li>' for anchor, title, _ in self._sections
        )
        body = "".join(
            f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
            f'<h2 id="{anchor}-title">{text(title)}</h2>{content}</section>'
            for anchor, title, content in self._sections
        )
        return (
            "<!doctype html>\n"
            '<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            '<meta name="referrer" content="no-referrer">'
            f"<title>{text(self.title)} - selfinstruct report</title>"
            f"<style>{_asset('report.css')}</style></head><body>"
            '<a class="skip" href="#content">Skip to the report</a>'
            f'<header class="top"><p class="eyebrow">selfinstruct {text(self.kind)}</p>'
            f"<h1>{text(self.title)}</h1>{self.lead}</header>"
            f'<div class="columns"><nav aria-label="Sections"><ol>{contents}</ol></nav>'
            f'<main id="content">{body}</main></div>'
            "<noscript><p class='todo'>The charts need JavaScript; every number is in the tables."
            "</p></noscript>"
            f'<script type="application/json" id="charts">{self._figures()}</script>'
            + "".join(f"<script>{script}</script>" for script in scripts)
            + "</body></html>\n"
        )

    def _figures(self) -> str:
        """All charts in both themes as JSON that cannot end its script element."""
        drawn = {
            anchor: {
                theme.name: json.loads(draw(theme).to_json(remove_uids=True)) for theme in THEMES
            }
            for anchor, draw in self._drawings.items()
        }
        for versions in drawn.values():
            for version in versions.values():
                version["layout"].pop("template", None)  # 7 KB of defaults that layout() sets
        data = json.dumps({"config": CONFIG, "figures": drawn}, separators=(",", ":"))
        return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def plotly_js() -> str:
    """The whole of plotly.js, as the plotly package carries it.

    Raises `MissingDependency` where plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingDependency("plotly", "report", "The report") from None
    return str(get_plotlyjs())


def _policy(scripts: Iterable[str]) -> str:
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("selfinstruct.steps.charts") / name).read_text("utf-8")
