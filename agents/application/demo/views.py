"""The page's own parts as HTML, in which every word from data is escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from agents.application.demo.game import Position
    from agents.application.demo.steer import Steered
    from agents.application.report.tokens import Episode

Baseline = Literal["best", "mean"]
MOST_BUTTONS = 60
"""Legal tokens that are shown as buttons; where there are more, a field searches them."""


@dataclass(frozen=True)
class Chip:
    """A token as it is shown.

    Attributes:
        text: Its text.
        value: What colours it and stands under it; None for nothing.
        facts: Names and values that are read on hovering or focus.
        alternatives: Text and Q of the best tokens there, and whether it is this one.
        reply: What the environment wrote after it.
        slip: Whether it was drawn at random.
    """

    text: str
    value: float | None
    facts: tuple[tuple[str, str], ...] = ()
    alternatives: tuple[tuple[str, float, bool], ...] = ()
    reply: str = ""
    slip: bool = False


def number(value: float) -> str:
    """Three digits behind the point, with a real minus."""
    return f"{value:.3f}".replace("-", "−") if abs(value) >= 5e-4 else "0.000"


def signed(value: float) -> str:
    """The same, with a plus."""
    return ("+" if value >= 5e-4 else "") + number(value)


def episode_chips(episode: Episode, baseline: Baseline = "best") -> list[Chip]:
    """An agent's tokens, by what each is thought to gain over the best, or the mean, legal token."""
    return [
        Chip(
            step.text,
            step.advantage if baseline == "best" else step.advantage_over_mean,
            (
                ("Q", number(step.q)),
                ("best Q", number(step.v)),
                ("mean Q", number(step.mean)),
                ("reward", number(step.reward)),
            ),
            tuple((text, q, token == step.token) for token, text, q in step.alternatives),
            step.reply,
            step.slip,
        )
        for step in episode.steps
    ]


def steered_chips(steered: Steered, baseline: Baseline = "best") -> list[Chip]:
    """A language model's tokens, likewise; one that was no candidate has no value."""
    return [
        Chip(
            one.text,
            None if one.q is None else one.q - (one.v if baseline == "best" else one.mean),
            (
                ("Q", "not a candidate" if one.q is None else number(one.q)),
                ("probability, model alone", number(one.alone)),
                ("probability, as written", number(one.steered)),
            ),
            tuple((text, q, token == one.token) for token, text, q in one.alternatives),
        )
        for one in steered.choices
    ]


def tokens(chips: Sequence[Chip], label: str, format_value: bool = True) -> str:
    """A strip of tokens, coloured by their values: warm above 0, cold below.

    Args:
        chips: The tokens.
        label: What the strip is, for screen readers.
        format_value: Whether the values carry their sign.
    """
    largest = max((abs(chip.value) for chip in chips if chip.value is not None), default=0.0)
    parts = []
    for place, chip in enumerate(chips):
        share = 0.0 if not chip.value or largest < 5e-4 else min(1.0, abs(chip.value) / largest)
        tone = "" if share == 0 else f" tg-{'warm' if (chip.value or 0) > 0 else 'cold'}"
        small = "–" if chip.value is None else (signed if format_value else number)(chip.value)
        parts.append(
            f'<li class="tg-token{tone}{" tg-slip" if chip.slip else ""}" tabindex="0" style="--share:{share:.2f}" '
            f'aria-label="{escape(_spoken(chip, place, small))}"><bdi>{escape(chip.text)}</bdi><small>{small}</small>'
            f"{_tip(chip, place)}</li>"
        )
        if chip.reply:
            parts.append(f'<li class="tg-reply"><bdi>{escape(chip.reply)}</bdi></li>')
    empty = "" if parts else '<li class="tg-reply">nothing yet</li>'
    return f'<ol class="tg-tokens" aria-label="{escape(label)}">{"".join(parts)}{empty}</ol>'


def _spoken(chip: Chip, place: int, small: str) -> str:
    return f"Token {place + 1}: {chip.text}, {small}" + (", a random slip" if chip.slip else "")


def _tip(chip: Chip, place: int) -> str:
    """What a token says on hovering: facts and alternatives."""
    if not chip.facts and not chip.alternatives:
        return ""
    facts = "".join(f"<span>{escape(name)} <b>{escape(value)}</b></span>" for name, value in chip.facts)
    rows = "".join(
        f'<span class="tg-row{" tg-chosen" if chosen else ""}"><bdi>{escape(text)}</bdi><b>{number(q)}</b></span>'
        for text, q, chosen in chip.alternatives
    )
    slip = " (a random slip)" if chip.slip else ""
    return (
        f'<span class="tg-tip" role="tooltip"><span class="tg-head">Token {place + 1}: <bdi>{escape(chip.text)}</bdi>'
        f'{slip}</span><span class="tg-facts">{facts}</span><span class="tg-head">Best tokens here, Q</span>{rows}'
        "</span>"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Large figures: name and value."""
    inner = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="tg-figures">{inner}</dl>'


def prompt(text: str) -> str:
    """A prompt."""
    return f'<p class="tg-prompt"><span>Prompt</span> <bdi>{escape(text)}</bdi></p>'


def board(position: Position) -> str:
    """The prompt, the tokens so far with their rewards, and the score of a game."""
    chips = [Chip(one.text, one.reward, reply=one.reply) for one in position.played]
    last = number(position.played[-1].reward) if position.played else "–"
    state = "over" if position.ended else f"{position.left} left"
    pairs = [("reward of the last token", last), ("return", number(position.total)), ("tokens", state)]
    text = f'<p class="tg-text"><span>Text</span> <bdi>{escape(position.text)}</bdi></p>'
    strip = tokens(chips, "Your tokens and their rewards", format_value=False)
    return f'<div class="tg-card" aria-live="polite">{prompt(position.prompt)}{text}{strip}{facts(pairs)}</div>'


def legal_tokens(position: Position) -> str:
    """A button for each legal token, or a field to search many; a sentence where the episode is over."""
    if position.ended:
        return f'<p class="tg-note tg-end">The episode is over: return {number(position.total)}.</p>'
    if len(position.legal) > MOST_BUTTONS:
        return _search(position.legal)
    buttons = "".join(
        f'<button type="button" data-token="{token}" title="token {token}"><bdi>{escape(text)}</bdi></button>'
        for token, text in position.legal
    )
    return f'<div class="tg-legal" role="group" aria-label="Legal tokens">{buttons}</div>'


def _search(legal: Sequence[tuple[int, str]]) -> str:
    """A field that suggests tokens; those with the same text are told apart by their numbers."""
    times = Counter(text for _, text in legal)
    options = "".join(
        f'<option data-token="{token}" value="{escape(text if times[text] == 1 else f"{text} ({token})")}"></option>'
        for token, text in legal
    )
    return (
        f'<label class="tg-search">Next token, one of {len(legal):,}<input type="text" list="tg-words" '
        'autocomplete="off" autocapitalize="off" spellcheck="false" placeholder="Type to search, Enter takes it">'
        f'<datalist id="tg-words">{options}</datalist></label>'
    )


def written(episode: Episode, name: str, baseline: Baseline = "best") -> str:
    """What an agent wrote."""
    chips = episode_chips(episode, baseline)
    pairs = [("return", number(episode.total)), ("tokens", str(len(chips)))]
    label = f"What {name} wrote"
    return (
        f'<div class="tg-card"><h3><bdi>{escape(name)}</bdi></h3>{prompt(episode.prompt)}{tokens(chips, label)}'
        f"{facts(pairs)}</div>"
    )


def continued(steered: Steered, title: str, baseline: Baseline = "best") -> str:
    """What a language model wrote."""
    chips = steered_chips(steered, baseline)
    pairs = [("divergence from the model", f"{number(steered.divergence)} nats"), ("tokens", str(len(chips)))]
    return (
        f'<div class="tg-card"><h3>{escape(title)}</h3><p class="tg-text"><bdi>{escape(steered.text)}</bdi></p>'
        f"{tokens(chips, title)}{facts(pairs)}</div>"
    )
