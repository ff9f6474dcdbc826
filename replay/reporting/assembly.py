"""Gathers what a report tells from a log, a policy and a table, and writes page and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from agents.policy import Policy
from replay.archived_cases import archived_evidence
from replay.bandit import Floats
from replay.choices import Wanted, choices
from replay.comparison import compare
from replay.comparison_report import report as compared
from replay.decide import Evidence, decide_again
from replay.evaluate_report import Origin, reported
from replay.evaluation import Method
from replay.logged import is_archive, logged_at
from replay.measures import prices_of
from replay.reporting.document import Sources, document_of
from replay.reporting.page import page_of
from replay.reporting.plots import Judged
from replay.reward_model import cross_fitted
from replay.table import Table, read_table, table_of
from schemas.logdir import LogDir
from schemas.topics import DECISIONS

Json = dict[str, Any]
OUTCOME = "outcome:"
"""Begins the column of an action's reward, whatever was taken: a bench knows them all."""


@dataclass(frozen=True)
class Wish:
    """What is to be reported on; `log` and `policy` go together, `table` may stand alone."""

    log: str | None
    policy: Policy | None
    table: Path | None
    method: Method
    command: Sequence[str]
    slices: Sequence[str] = ()
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
        _add_table(sources, wish, (read_table(wish.table), None), wish.table.name)
    elif wish.log is not None and wish.policy is not None:
        rated = _rated(wish.log, wish.policy)
        if rated is not None:
            _add_table(sources, wish, rated, "from the log, with its feedback")
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
    if is_archive(where):
        found = archived_evidence(where)
    else:
        kept = LogDir(Path(where))
        found = Evidence.of(kept)
        sources["identity"] |= {"cluster": kept.manifest.cluster_id, "offsets": _offsets(kept)}
    sources["identity"] |= {"topic": DECISIONS, "schema_ids": sorted(found.schemas)}
    if reproduce:
        sources["reproduction"] = decide_again(found).as_json()
        sources["integrity"]["unreadable"] = sources["reproduction"]["unreadable"]


def _offsets(kept: LogDir) -> dict[str, str]:
    """Return the first and last offset of each partition that holds decisions."""
    found = {}
    for partition in range(kept.topics().get(DECISIONS, 0)):
        offsets = [envelope.offset for envelope in kept.read(DECISIONS, partition)]
        if offsets:
            found[f"partition {partition}:"] = f"{offsets[0]} to {offsets[-1]}"
    return found


def _add_table(sources: Json, wish: Wish, given: tuple[Table, Origin | None], name: str) -> None:
    (table, origin), method = given, wish.method
    model = table.model or cross_fitted(table.log, method.model, folds=method.folds, seed=method.seed)
    report = reported(table, method, wish.slices, origin)
    sources["evaluation"] = report.as_json()
    sources["identity"]["choices"] = name
    cost = table.measures.get("cost_usd")
    sources["judged"] = Judged(
        table.log,
        report.found,
        method,
        model,
        table.observation_known,
        cost=cost,
        outcomes=_outcomes(table),
    )


def _outcomes(table: Table) -> Floats | None:
    """Return every action's reward (n, k) where the table has a column for each, as a bench's may."""
    names = [f"{OUTCOME}{action}" for action in table.log.actions]
    if any(name not in table.source.column_names for name in names):
        return None
    columns = [table.source[name].to_numpy(zero_copy_only=False) for name in names]
    found: Floats = np.stack(columns, axis=1).astype(np.float64)
    return found if bool(np.isfinite(found).all()) else None


def _rated(where: str, policy: Policy) -> tuple[Table, Origin] | None:
    """Return the choices of the log at *where* with its feedback, None if nobody rated anything."""
    logged = logged_at(where)
    found = choices(logged, Wanted(policy))
    if not found.counts.rated:
        return None
    table = table_of(found.table, where)
    texts = logged.policies()
    acted = [Policy.loads(texts[name]) for name in found.logging_policies if name in texts]
    return table, Origin(found, prices_of([*acted, policy], table.log.actions))
