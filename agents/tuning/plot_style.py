"""How figures look: one style for all that matplotlib draws here."""

from typing import Any

PLOT_STYLE: Any = {  # matplotlib types the names one by one
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "svg.hashsalt": "textgym",  # the same figure is the same file
}
"""Arguments of ``matplotlib.rc_context``."""
