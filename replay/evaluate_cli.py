"""``replay evaluate``: the value of a target policy from a flat table of logged choices, or from a log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from agents.errors import ConfigError
from replay.policy_cli import read_policy

USAGE = 2
UNITS = ("subject", "tenant", "request")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+)([smhd])")


TableFile = Annotated[
    Path | None, typer.Option("--table", help="A Parquet file; docs/evaluation.md lists columns.")
]
Log = Annotated[
    str | None, typer.Option("--log", help="In its place, a directory that --keep-log wrote, or an archive.")
]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="With --log: the target policy.")]
Metric = Annotated[str, typer.Option(help="With --log: the metric of feedback that counts.")]
Source = Annotated[str, typer.Option(help="With --log: whose feedback counts.")]
Ratings = Annotated[
    Path | None,
    typer.Option(help="With --log: ratings that are not in it, one JSON object a line; docs/feedback.md."),
]
Horizon = Annotated[
    str | None, typer.Option(help="With --log: how long feedback may take, such as 24h or 7d.")
]
Failed = Annotated[
    float | None, typer.Option(help="With --log: the reward of a request that nobody answered.")
]
Cluster = Annotated[
    str, typer.Option(help="With --log: whose requests may depend on each other: subject, tenant or request.")
]
Save = Annotated[
    Path | None, typer.Option("--save-table", help="With --log: write the table here, for --table.")
]
Slices = Annotated[
    list[str] | None,
    typer.Option("--slice", help="A verdict for each value of this column too; may be given again."),
]
RewardModel = Annotated[str, typer.Option(help="Reward model: ridge or boosting.")]
How = Annotated[str, typer.Option(help="clustered_t, bootstrap, bootstrap_t or confidence_sequence.")]
Detect = Annotated[float, typer.Option(help="Smallest difference that matters, in reward units.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the folds.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(commands: typer.Typer) -> None:
    """Add ``evaluate`` to the replay *commands*."""
    commands.command("evaluate")(_evaluate)


def _evaluate(  # noqa: PLR0913 - a command's options
    table: TableFile = None,
    log: Log = None,
    policy: PolicyFile = None,
    *,
    reward: Metric = "",
    source: Source = "",
    ratings: Ratings = None,
    horizon: Horizon = None,
    failed_reward: Failed = None,
    cluster: Cluster = "subject",
    save_table: Save = None,
    slices: Slices = None,
    model: RewardModel = "ridge",
    interval: How = "clustered_t",
    detect: Detect = 0.01,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Estimate what the target policy is worth, and whether it is better than the logging policy.

    Exits 0 with a verdict (better or worse), 4 if the log cannot tell, 2 if the table or log cannot be used.
    """
    # The estimators' libraries take a second and 150 MB to import, which a worker must not pay.
    from replay import evaluate_report as report  # noqa: PLC0415

    if model not in report.KINDS or interval not in report.METHODS or not detect > 0.0:
        raise _refused(
            f"--model is one of {', '.join(report.KINDS)}; --interval one of {', '.join(report.METHODS)}; "
            "--detect is positive"
        )
    if slices and interval != "clustered_t":
        raise _refused(
            "--slice judges by clustered_t alone, whose p-values are adjusted; leave out --interval"
        )
    method = report.Method(interval=interval, model=report.KINDS[model], detect=detect, seed=seed)
    _check_places(table, log, policy, ratings)
    if table is not None:
        raise typer.Exit(report.evaluate_table(table, method, slices or (), as_json=as_json))
    assert log is not None and policy is not None  # noqa: S101, PT018 - as checked
    if cluster not in UNITS:
        raise _refused(f"--cluster is one of {', '.join(UNITS)}")
    try:
        wanted = report.Wanted(
            read_policy(policy),
            reward,
            source,
            _milliseconds(horizon),
            failed_reward,
            report.unit_named(cluster),
        )
    except ConfigError as error:
        raise _refused(str(error)) from None
    raise typer.Exit(
        report.evaluate_log(
            log, wanted, method, slices or (), ratings=ratings, save=save_table, as_json=as_json
        )
    )


def _check_places(table: Path | None, log: str | None, policy: Path | None, ratings: Path | None) -> None:
    if (table is None) == (log is None) or (log is None) != (policy is None):
        raise _refused("give --table FILE, or --log LOG and --policy FILE")
    if ratings is not None and log is None:
        raise _refused("--ratings goes with --log; the rewards of a table are in its column `reward`")


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise _refused(
            f"--horizon {text!r} is no duration; write a whole number and s, m, h or d, such as 24h"
        )
    return int(found[1]) * _SECONDS[found[2]] * 1000


def _refused(message: str) -> typer.Exit:
    typer.echo(f"replay evaluate: {message}", err=True)
    return typer.Exit(USAGE)
