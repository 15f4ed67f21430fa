"""Options that several commands share, and the command line that they stand on."""

from __future__ import annotations

from typing import Annotated

import typer

EnvArgs = Annotated[
    list[str] | None, typer.Option("--env-arg", metavar="KEY=VALUE", help="Argument of the environment (YAML value).")
]
SetArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Argument of DoubleDQN (YAML value); dots reach inside: policy_kwargs.features_dim=32.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Open a .zip, or import the reward that a run names, although code runs when it is done."
    ),
]
TrustReward = Annotated[
    bool, typer.Option("--trust", help="Import the reward that a run folder, or --config, names, which runs its code.")
]
Device = Annotated[str | None, typer.Option(help="Torch device: auto, cpu, cuda …")]
command_line: list[str] = []
"""What was typed behind ``textgym``, for the record in a run's configuration."""
