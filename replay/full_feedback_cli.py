"""``bench outcomes``: a full outcome table as bandit logs, and whether intervals hold its known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from agents.errors import InvalidRecord

if TYPE_CHECKING:
    from replay.full_feedback import Outcomes

OK, NO, USAGE = 0, 1, 2
File = Annotated[Path, typer.Argument(help="Parquet or CSV: question, model, score, cost?, x_*?")]
Models = Annotated[str, typer.Option(help="Models to look at, comma-separated; default: all.")]
Most = Annotated[int, typer.Option(help="At most so many models, evenly by rank; 0 is all.")]
Epsilons = Annotated[str, typer.Option(help="Shares of traffic that explore, comma-separated.")]
Rows = Annotated[int, typer.Option(help="Rows of each log.")]
Draws = Annotated[int, typer.Option(help="Logs drawn at each epsilon; 0 draws none.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Write one log at the first epsilon, for replay evaluate --table."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the draws.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(bench: typer.Typer) -> None:
    """Add ``outcomes`` to the group *bench*."""
    bench.command("outcomes")(_outcomes)


def _outcomes(  # noqa: PLR0913 - a command's options
    table: File,
    *,
    models: Models = "",
    most: Most = 5,
    epsilons: Epsilons = "0.8,0.6,0.4",
    rows: Rows = 3000,
    draws: Draws = 0,
    out: Out = None,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Show best single model, random and oracle of a table of every model's score on every question.

    With --draws, logs are drawn of it and the router's value is estimated from each: exits 1 if the coverage
    of the 95 % interval of the paired difference cannot lie in 93 to 97 %. Exits 2 for what is no such table.
    """
    from replay import full_feedback as feedback  # noqa: PLC0415 - heavy
    from replay import full_feedback_bench as bench  # noqa: PLC0415 - heavy

    try:
        shares = [float(each) for each in epsilons.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0.0 < each <= 1.0 for each in shares) or rows < 1 or draws < 0 or most < 0:
        raise _refused(
            "--epsilons are numbers in (0, 1]; --rows is at least 1; --draws and --most are not negative"
        )
    try:
        found = feedback.read_outcomes(table, [each for each in models.split(",") if each])
        found = found.evenly(most) if most and not models else found
    except InvalidRecord as error:
        raise _refused(str(error)) from None
    if out is not None:
        _write(found, out, (shares[0], rows, seed))
    trials = [bench.Trial(rows, share) for share in shares]
    cells = bench.covered(found, trials, draws, seed) if draws else []
    answer = bench.summary(found) | {"rows": rows, "draws": draws, "coverage": bench.plain(cells)}
    typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2) if as_json else "\n".join(_lines(answer)))
    raise typer.Exit(NO if any(cell.failed for cell in cells) else OK)


def _write(found: Outcomes, out: Path, how: tuple[float, int, int]) -> None:
    import numpy as np  # noqa: PLC0415 - heavy
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

    from replay.full_feedback import drawn, flat  # noqa: PLC0415 - heavy

    epsilon, rows, seed = how
    drawing = drawn(found, found.exploring(epsilon), found.router, rows, np.random.default_rng(seed))
    pq.write_table(flat(found, drawing), out)


def _lines(answer: dict[str, Any]) -> list[str]:
    left_out = (
        f"left out: {answer['incomplete']:,} questions without every score, {answer['copies']:,} copies, "
        f"{len(answer['models_left_out'])} models"
    )
    lines = [f"{answer['questions']:,} questions, {len(answer['models'])} models; {left_out}"]
    lines.append(f"best single model: {answer['best_single_model']}")
    for name, value in answer["value"].items():
        cost = answer["cost"][name]
        lines.append(f"  {name:12} {value:.4f}" + ("" if cost is None else f"  at a mean cost of {cost:.6g}"))
    for cell in answer["coverage"]:
        word = "outside" if cell["failed"] else "ok" if cell["judged"] else "reported only"
        if cell["covered"] is None:
            lines.append(f"  {cell['overlap']}: every log refused")
            continue
        lines.append(
            f"  {cell['overlap']}: coverage {cell['covered']:.4f} [{cell['low']:.4f}, {cell['high']:.4f}], "
            f"mean width {cell['width']:.4f}, bias {cell['bias']:+.4f}, {cell['refused']} refused: {word}"
        )
    return lines


def _refused(message: str) -> typer.Exit:
    typer.echo(f"bench outcomes: {message}", err=True)
    return typer.Exit(USAGE)
