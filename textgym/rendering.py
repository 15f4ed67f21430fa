"""What a person sees of an episode: text, or an image of it."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.tasks.base import Episodes, Task

RENDER_MODES = ("ansi", "human", "rgb_array")
_COLUMNS, _MAX_LINES, _FONT_SIZE, _MARGIN = 48, 12, 18, 14


def check_render_mode(render_mode: str | None) -> str | None:
    """Return the mode if it is known, else raise a ValueError that names it."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode must be one of {list(RENDER_MODES)} or None, got {render_mode!r}")
    return render_mode


def render_row(task: Task, episodes: Episodes, row: int, total_reward: float, render_mode: str | None) -> Any:
    """Draw one row of ``episodes``.

    Returns:
        A string (``"ansi"``), an image ``(height, width, 3)`` uint8 (``"rgb_array"``), or None (``"human"``: printed).
    """
    prompt = [task.token_text(token) for token in episodes.prompt(row).tolist()]
    completion = [task.token_text(token) for token in episodes.completion(row).tolist()]
    if render_mode == "rgb_array":
        return _image(task, prompt, completion, total_reward)
    written, last = task.join(completion[:-1]), completion[-1] if completion else ""
    text = f"{task.join(prompt)} | {written}{' ' if written else ''}[{last}]  return {total_reward:.3f}"
    if render_mode == "human":
        print(text, flush=True)
        return None
    return text


def _image(task: Task, prompt: list[str], completion: list[str], total_reward: float) -> NDArray[np.uint8]:
    """Prompt in grey, completion in black, the last token on yellow; the size does not depend on the text."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_SIZE)
    line_height = _FONT_SIZE + 8
    size = (_COLUMNS * 11 + 2 * _MARGIN, (_MAX_LINES + 1) * line_height + 2 * _MARGIN)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    # A long text shows its end, where the action is.
    lines = textwrap.wrap(task.join(prompt), _COLUMNS)[-(_MAX_LINES // 2) :]
    y = _MARGIN
    for line in lines:
        draw.text((_MARGIN, y), line, fill="gray", font=font)
        y += line_height
    lines = textwrap.wrap(task.join(completion), _COLUMNS)[-(_MAX_LINES - len(lines)) :]
    for number, line in enumerate(lines, 1):
        if number == len(lines):
            last = completion[-1].strip()
            start = _MARGIN + draw.textlength(line[: max(len(line) - len(last), 0)], font=font)
            end = _MARGIN + draw.textlength(line, font=font)
            draw.rectangle((start - 2, y - 1, end + 2, y + _FONT_SIZE + 4), fill="#ffe680")
        draw.text((_MARGIN, y), line, fill="black", font=font)
        y += line_height
    draw.text((_MARGIN, size[1] - line_height - 4), f"return {total_reward:.3f}", fill="#2060a0", font=font)
    return np.asarray(image)
