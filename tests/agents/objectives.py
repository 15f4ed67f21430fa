"""Objectives for studies that take no time; a module of their own, so that workers need not import torch."""

import math
import os
import signal
import time

from agents.hyperparam_opt import Study

VALLEY = {"rate": {"low": 1e-5, "high": 1.0, "log": True}, "net.width": {"low": 1, "high": 64, "log": True}}


def valley(arguments, seed, report):
    """Best at rate 1e-2, width 16; the seed adds a little noise that repeats."""
    distance = math.log10(arguments["rate"]) + 2, math.log2(arguments["net"]["width"]) - 4
    return -math.hypot(*distance) + 1e-3 * math.sin(seed + 7 * distance[0])


def slow_valley(arguments, seed, report):
    time.sleep(0.03)
    return valley(arguments, seed, report)


def fragile(arguments, seed, report):
    """Fails in three ways, depending on the argument."""
    x = arguments["x"]
    if x == 1:
        raise RuntimeError("two\nlines")
    if x == 2:
        report(1, math.nan)
    return math.nan if x == 3 else float(x)


def deadly(arguments, seed, report):
    if arguments["x"] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return float(arguments["x"])


def learner(arguments, seed, report):
    """Rises linearly to its end; reports at three steps, and once more if nobody stops it."""
    for step in (1, 2, 4):
        report(step, arguments["x"] * step / 8)
    return arguments["x"]


def killed_study(path):
    """A study that a test kills."""
    return Study(VALLEY, slow_valley, path, n_initial=4, batch=2, seeds=2)
