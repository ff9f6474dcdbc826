"""Gathers what a report tells from a log, a policy and a table, and writes page and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

import replay.estimators
from agents.errors import InvalidRecord
from agents.policy import Policy
from replay.comparison import compare
from replay.comparison_report import report as compared
from replay.decide import decide_again
from replay.estimators import Model, estimator
from replay.evaluation import Evaluation, Method, evaluate
from replay.logged import logged_at
from replay.reporting.document import Sources, document_of
from replay.reporting.page import page_of
from replay.reporting.plots import Judged
from replay.reward_model import cross_fitted
from replay.table import Table, read_table
from schemas.logdir import LogDir, LogDirError
from schemas.topics import DECISIONS

Json = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """What is to be reported on; `log` and `policy` go together, `table` may stand alone."""

    log: str | None
    policy: Policy | None
    table: Path | None
    method: Method
    command: Sequence[str]
    reproduce: bool = True


def told(wish: Wish) -> Json:
    """Return the report of *wish* as plain values; raises `InvalidRecord`, `ConfigError`, `LogDirError`."""
    identity: Json = {
        "code_version": _code_version(),
        "target_policy": None if wish.policy is None else wish.policy.hash,
        "prices": None if wish.policy is None else f"of the target policy {wish.policy.hash[:12]}",
        "seed": wish.method.seed,
    }
    sources: Json = {"identity": identity, "command": list(wish.command), "notes": []}
    if wish.log is not None and wish.policy is not None:
        _add_log(sources, wish.log, wish.policy, reproduce=wish.reproduce)
    if wish.table is not None:
        _add_table(sources, wish.table, wish.method)
    return document_of(Sources(**sources))


def write(told_: Json, html: Path) -> Path:
    """Write the page of *told_* to *html* and its numbers beside it; return where those are."""
    html.parent.mkdir(parents=True, exist_ok=True)
    numbers = html.with_suffix(".json")
    numbers.write_bytes(orjson.dumps(told_, option=orjson.OPT_INDENT_2))
    html.write_text(page_of(told_), encoding="utf-8")
    return numbers


def _code_version() -> str | None:
    try:
        return version("signalbox")
    except PackageNotFoundError:
        return None


def _add_log(sources: Json, where: str, policy: Policy, *, reproduce: bool) -> None:
    logged = logged_at(where)
    comparison = compared(compare(logged, policy), policy)
    sources["comparison"] = comparison
    sources["identity"] |= {"log": Path(where).name, "logging_policies": sorted(logged.policies())}
    sources["integrity"] = {
        "decisions": comparison["decisions"],
        "duplicates_collapsed": comparison["repeats_collapsed"],
        "never_decided": comparison["never_decided"],
        "chain_verified": None,
    }
    try:
        kept = LogDir(Path(where)) if "://" not in where else None
    except LogDirError:
        kept = None
    if kept is None:
        sources["notes"].append("Decisions are not made again from an archive: give the kept log for that.")
        return
    sources["identity"] |= {
        "cluster": kept.manifest.cluster_id,
        "topic": DECISIONS,
        "offsets": _offsets(kept),
        "schema_ids": sorted(kept.schemas()),
    }
    if reproduce:
        sources["reproduction"] = decide_again(kept).as_json()
        sources["integrity"]["unreadable"] = sources["reproduction"]["unreadable"]


def _offsets(kept: LogDir) -> dict[str, str]:
    """Return the first and last offset of each partition that holds decisions."""
    found = {}
    for partition in range(kept.topics().get(DECISIONS, 0)):
        offsets = [envelope.offset for envelope in kept.read(DECISIONS, partition)]
        if offsets:
            found[f"partition {partition}:"] = f"{offsets[0]} to {offsets[-1]}"
    return found


def _add_table(sources: Json, path: Path, method: Method) -> None:
    estimator.load(replay.estimators)
    table = read_table(path)
    model = table.model or cross_fitted(table.log, method.model, folds=method.folds, seed=method.seed)
    try:
        found = evaluate(table.log, method, model=model, observation_known=table.observation_known)
    except ValueError as error:
        raise InvalidRecord(f"{path}: {error}") from None
    sources["identity"]["table"] = path.name
    sources["evaluation"] = {**found.as_json(), "duplicates": table.duplicates}
    sources["judged"] = _judged(table, found, method, model)


def _judged(table: Table, found: Evaluation, method: Method, model: Model) -> Judged:
    return Judged(table.log, found, method, model, table.observation_known)
