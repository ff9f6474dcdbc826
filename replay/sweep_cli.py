"""``replay sweep``: thresholds over logged raw scores, the front of their points, and a proposed policy."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console

from agents.errors import ConfigError, RouterError
from replay.comparison_cli import UNKNOWN_LIMIT
from replay.exit_codes import code_of
from replay.policy_cli import Environment, read_policy, read_text
from schemas.logdir import LogDirError

if TYPE_CHECKING:
    from agents.policy import Policy

OK, USAGE, NOT_ENOUGH = 0, 2, 4


def register(commands: typer.Typer, environment: Environment) -> None:
    """Add ``sweep`` to the replay *commands*; *environment* is what configurations may refer to."""

    @commands.command("sweep")
    def _sweep(  # noqa: PLR0913 - a command's options
        log: Annotated[str, typer.Option("--log", help="A directory that --keep-log wrote, or an archive.")],
        policy: Annotated[
            Path, typer.Option("--policy", help="The configuration whose thresholds are swept.")
        ],
        threshold: Annotated[
            list[str], typer.Option("--threshold", help="type:name=low:high[:steps]; several make a grid.")
        ],
        out: Annotated[
            Path, typer.Option("--out", help="A folder for points, numbers, diff and new policy.")
        ],
        *,
        labels: Annotated[
            Path | None,
            typer.Option("--labels", help="request_id,label[,cluster][,signal]: CSV, JSON, Parquet."),
        ] = None,
        false_alarms: Annotated[
            float | None,
            typer.Option("--false-alarms", help="The most false alarms that will do, as a share."),
        ] = None,
        seed: Annotated[int, typer.Option(min=0, help="Seed of the halves and of the bootstrap.")] = 0,
        as_json: Annotated[bool, typer.Option("--json", help="Print the numbers.")] = False,
    ) -> None:
        """Tell what other thresholds would route, cost, catch and raise falsely, and propose one.

        Near misses are in the log with their scores, so nothing is asked of a classifier. Exits 2 for what
        cannot be used, 4 if the log lacks signals or the labels are too few for a proposal.
        """
        try:
            chosen = read_policy(policy, environment())
            found = _swept(log, chosen, threshold, _Judging(labels, false_alarms, seed))
            _write(found, policy, chosen, out)
        except (RouterError, LogDirError, OSError) as error:
            typer.echo(f"replay sweep: {error}", err=True)
            raise typer.Exit(code_of(error, log)) from None
        raise typer.Exit(_told(found, out, as_json=as_json))


class _Judging:
    """Which labels judge, and by which rule."""

    def __init__(self, labels: Path | None, most_alarms: float | None, seed: int) -> None:
        if most_alarms is not None and not 0.0 <= most_alarms <= 1.0:
            raise ConfigError(f"--false-alarms {most_alarms:g} is no share; give a number from 0 to 1")
        self.labels, self.most_alarms, self.seed = labels, most_alarms, seed


def _swept(log: str, policy: Policy, thresholds: list[str], judging: _Judging) -> dict[str, Any]:
    from replay.comparison import compare  # noqa: PLC0415 - heavy
    from replay.logged import logged_at  # noqa: PLC0415 - heavy
    from replay.sweeping.axes import axis_of  # noqa: PLC0415 - beside the others
    from replay.sweeping.labels import Labels, labels_in  # noqa: PLC0415 - heavy
    from replay.sweeping.points import sweep  # noqa: PLC0415 - heavy
    from replay.sweeping.report import judged, report  # noqa: PLC0415 - heavy

    axes = [axis_of(written, policy) for written in thresholds]
    if len({axis.leaf for axis in axes}) < len(axes):
        raise ConfigError("a signal is swept twice; give each --threshold once")
    leaves = [axis.leaf for axis in axes]
    labels = Labels({}) if judging.labels is None else labels_in(judging.labels, leaves)
    logged = logged_at(log)
    with Console(stderr=True, highlight=False).status("sweeping") as status:
        compared = compare(logged, policy)
        swept = sweep(
            logged, policy, axes, labels.among, lambda count: status.update(f"sweeping: {count} decisions")
        )
    found = None if judging.labels is None else judged(swept, labels, judging.most_alarms, judging.seed)
    return report(swept, policy, compared, found)


def _write(found: dict[str, Any], path: Path, policy: Policy, out: Path) -> None:
    """Write numbers and points to *out*, and with a proposal the new policy and the diff to it."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "sweep.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    with (out / "points.csv").open("w", encoding="utf-8", newline="") as sink:
        _points(csv.writer(sink), found["points"])
    for name in ("policy.yaml", "policy.diff"):
        (out / name).unlink(missing_ok=True)
    thresholds = _proposed(found)
    if thresholds:
        from replay.policy_edit import diff_of, with_thresholds  # noqa: PLC0415 - heavy

        text = read_text(path)
        new = with_thresholds(text, policy, thresholds)
        (out / "policy.yaml").write_text(new, encoding="utf-8")
        (out / "policy.diff").write_text(diff_of(text, new, path.name), encoding="utf-8")


def _proposed(found: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Return type and name of each signal that a threshold is proposed for."""
    rows = {} if found["proposal"] is None else found["proposal"]["signals"]
    chosen = {leaf: row["threshold"]["value"] for leaf, row in rows.items() if row["threshold"] is not None}
    return {(leaf.partition(":")[0], leaf.partition(":")[2]): value for leaf, value in chosen.items()}


def _points(sink: Any, points: list[dict[str, Any]]) -> None:  # noqa: ANN401 - csv names no type
    numbers = ("caught", "false_alarms", "card_quality", "cost_usd", "current", "on_front")
    leaves = list(points[0]["thresholds"])
    sink.writerow([*leaves, *numbers])
    for point in points:
        sink.writerow([*(point["thresholds"][leaf] for leaf in leaves), *(point[name] for name in numbers)])


def _told(found: dict[str, Any], out: Path, *, as_json: bool) -> int:
    """Print *found* and return the exit code."""
    from replay.sweeping.report import lines_of  # noqa: PLC0415 - heavy

    written = ", ".join(sorted(path.name for path in out.iterdir() if path.name in _FILES))
    typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2) if as_json else "\n".join(lines_of(found)))
    if not as_json:
        typer.echo(f"{out}: {written}")
    if not found["decisions"]:
        typer.echo("replay sweep: the log holds no decision, so there is nothing to sweep", err=True)
        return NOT_ENOUGH
    if found["unknown_share"] > UNKNOWN_LIMIT:
        names = ", ".join(list(found["unknown_signals"])[:5])
        typer.echo(f"replay sweep: {found['unknown_share']:.2%} of decisions lack signals: {names}", err=True)
        return NOT_ENOUGH
    proposal = found["proposal"]
    lacking = proposal is not None and any(row["threshold"] is None for row in proposal["signals"].values())
    return NOT_ENOUGH if lacking else OK


_FILES = frozenset({"sweep.json", "points.csv", "policy.yaml", "policy.diff"})
