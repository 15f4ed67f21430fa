"""The page: plain HTML whose every word from data is escaped, and which may load nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

from agents.application.report import svg
from agents.application.report.charts import COLOURS, Chart, Style, Table

MOST_SHOWN = 6
"""Figures of a grid that are there from the start."""


def page(title: str, lede: str, sections: Sequence[tuple[str, str, str]], tiles: str = "", footer: str = "") -> str:
    """The whole page.

    Args:
        title: Its title, as text.
        lede: What it is about, as text.
        sections: Id, title (text) and content (HTML) of each section.
        tiles: HTML of the figures at the top.
        footer: HTML at the end.
    """
    script = files(__package__).joinpath("page.js").read_text("utf-8")
    # The policy allows this one script by its hash, and no request: what slipped in through data could do nothing.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    links = "".join(f'<li><a href="#{escape(key)}">{escape(name)}</a></li>' for key, name, _ in sections)
    nav = f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 1 else ""
    body = "".join(
        f'<section id="{escape(key)}" aria-labelledby="{escape(key)}-title">'
        f'<h2 id="{escape(key)}-title">{escape(name)}</h2>{content}</section>'
        for key, name, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style_sheet()}</style></head><body>"
        '<a class="skip" href="#main">Skip to the content</a>'
        f'<header class="top"><h1>{escape(title)}</h1><p class="lede">{escape(lede)}</p>'
        f"{nav}</header>"
        f'<main id="main">{tiles}{body}</main><footer>{footer}</footer><script>{script}</script></body></html>\n'
    )


def style_sheet() -> str:
    """The whole style sheet, with the colours of :data:`agents.application.report.charts.COLOURS`."""
    light, dark = (" ".join(f"--c{slot}: {pair[mode]};" for slot, pair in enumerate(COLOURS)) for mode in (0, 1))
    slots = "\n".join(
        f".c{slot} {{ stroke: var(--c{slot}); fill: var(--c{slot}); }} .hide-{slot} .s{slot} {{ display: none; }}"
        for slot in range(len(COLOURS))
    )
    rules = files(__package__).joinpath("page.css").read_text("utf-8")
    return slots + "\n" + rules.replace("@LIGHT@", light).replace("@DARK@", dark)


def paragraph(text: str, css: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{css}">{escape(text)}</p>' if css else f"<p>{escape(text)}</p>"


def bullet_list(items: Iterable[str]) -> str:
    """A list of plain texts."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def tiles(facts: Sequence[tuple[str, str, str]]) -> str:
    """Large figures: name, value and a remark for each."""
    inner = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(remark)}</small></dd></div>"
        for name, value, remark in facts
    )
    return f'<dl class="tiles">{inner}</dl>'


def figure(chart: Chart, caption: str = "", css: str = "", panel: str = "", hidden: bool = False) -> Figure:
    """A chart with its title.

    Args:
        chart: What to draw.
        caption: Plain text below.
        css: Classes.
        panel: Choices of the switches around it with which it is shown; none for always.
        hidden: Whether those are not the first choices.
    """
    under = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    attributes = (f' class="{css}"' if css else "") + (f' data-panel="{escape(panel)}"' if panel else "")
    attributes += " hidden" if hidden else ""
    return Figure(attributes, f"<h3>{escape(chart.title)}</h3>{svg.draw(chart)}{under}", hidden)


class Figure(NamedTuple):
    """A figure's attributes and content, and whether it is hidden at first."""

    attributes: str
    content: str
    hidden: bool

    def __str__(self) -> str:
        return f"<figure{self.attributes}>{self.content}</figure>"

    def packed(self) -> str:
        """The figure with its content as text, which the page's script unpacks when it comes near the window.

        A report on many tasks has hundreds of figures, and a browser would build and lay out all of them before it
        shows one. As text in a script that is none, they cost next to nothing; ``</script`` can't be in them, because
        whatever comes from data is escaped.
        """
        return f'<figure{self.attributes}><script type="text/plain">{self.content}</script></figure>'


def grid(figures: Iterable[Figure]) -> str:
    """Figures side by side, where there is room; those that nobody sees at first are packed."""
    parts, shown = [], 0
    for one in figures:
        shown += not one.hidden
        parts.append(one.packed() if one.hidden or shown > MOST_SHOWN else str(one))
    return f'<div class="grid">{"".join(parts)}</div>'


def switches(*groups: tuple[str, str, Mapping[str, str]]) -> str:
    """Groups of radio buttons, the first of each chosen.

    Args:
        *groups: Name of the group (unique in the page), its title, and value → label of its choices.
    """
    parts = []
    for name, title, choices in groups:
        buttons = "".join(
            f'<label><input type="radio" name="{escape(name)}" value="{escape(value)}"'
            f"{' checked' if index == 0 else ''}>{escape(label)}</label>"
            for index, (value, label) in enumerate(choices.items())
        )
        parts.append(f'<fieldset class="switch"><legend>{escape(title)}</legend>{buttons}</fieldset>')
    return "".join(parts)


def legend(styles: Iterable[Style]) -> str:
    """Buttons that hide and show the agents."""
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-slot="{style.slot}">{svg.swatch(style)}'
        f"{escape(style.label)}</button>"
        for style in styles
    )
    return f'<div class="legend" role="group" aria-label="Agents to show">{buttons}</div>'


def switched(bar: str, content: str) -> str:
    """Content whose panels answer to the switches in ``bar``, which stays in sight."""
    return f'<div data-switches><div class="bar-top">{bar}</div>{content}</div>'


def table(content: Table, caption: str = "") -> str:
    """A table that scrolls by itself where the page is narrow."""

    def cells(tag: str, row: Sequence[str]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        return "".join(
            f"<{tag}{scope}{' class=n' if column in content.numeric else ''}>{escape(text)}</{tag}>"
            for column, text in enumerate(row)
        )

    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    rows = "".join(f"<tr>{cells('td', row)}</tr>" for row in content.rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption or "Table")}"><table>{title}'
        f"<thead><tr>{cells('th', content.header)}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """Content that opens on demand."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def preformatted(text: str) -> str:
    """Text as it is."""
    return f'<pre dir="auto">{escape(text)}</pre>'


def token_view(key: str, episodes: Sequence[Mapping[str, Any]]) -> str:
    """The interactive view of :func:`agents.application.report.tokens.as_plain`'s episodes."""
    metrics = {
        "q": "Q",
        "advantage": "advantage",
        "margin": "margin",
        "reward": "reward",
        "td": "TD error",
    }
    source = f"{key}-data"
    return (
        f'<div><div class="metric">{switches((f"{key}-metric", "Colour by", metrics))}</div>'
        f'<div class="viewer" data-source="{escape(source)}">'
        '<ul class="episodes" role="listbox" aria-label="Episodes"></ul>'
        '<div class="card"><p class="prompt"></p>'
        '<div class="tokens" role="listbox" aria-orientation="horizontal" aria-label="Tokens of the completion"></div>'
        '<div class="scale" aria-hidden="true"></div><div class="detail" aria-live="polite"></div></div></div>'
        "<noscript><p>The token view needs JavaScript.</p></noscript>"
        f'<script type="application/json" id="{escape(source)}">{json_for_script(episodes)}</script></div>'
    )


def json_for_script(value: Any) -> str:
    """JSON that may stand inside a ``<script>``: no ``<``, ``>`` or ``&``, and no line separators of JavaScript's."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
