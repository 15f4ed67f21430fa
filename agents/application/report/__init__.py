"""``textgym report``: one HTML file about benchmark results and training runs, which opens without a network."""

from agents.application.report.command import report

__all__ = ["report"]
