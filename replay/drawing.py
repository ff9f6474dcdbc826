"""An explanation drawn as a tree for the terminal, from the same records as its JSON form."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from rich.text import Text
from rich.tree import Tree

from replay.explain import RuleNode, hops, outcome, rule_tree
from replay.trail import Found, Trail
from schemas.completion import Completion
from schemas.dead_letter import DeadLetter
from schemas.decision import DecisionCore
from schemas.feedback import Feedback
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.signal import Observation

_MARK = {"match": "✓", "no_match": "✗", "unknown": "?", "unknown_match": "?✓"}
_STYLE = {"match": "green", "no_match": "dim", "unknown": "yellow", "unknown_match": "yellow"}


def drawn(trail: Trail) -> Tree:
    """Return the whole explanation as a tree."""
    tree = Tree(Text(_headline(trail), style="bold"))
    _draw_request(tree, trail)
    _draw_signals(tree, trail)
    _draw_decision(tree, trail)
    _draw_work(tree, trail)
    _draw_end(tree, trail)
    timing = tree.add("timing")
    for hop in hops(trail):
        _add(timing, f"{hop.after_ms:>8} ms  {hop.what}")
    return tree


def _add(tree: Tree, text: str, style: str = "") -> Tree:
    # Text, never markup: ids and labels are the users' own and may hold brackets.
    return tree.add(Text(text, style=style))


def _headline(trail: Trail) -> str:
    text = f"request {trail.request_id.hex()}: {outcome(trail)}"
    if trail.result and not trail.result.record.error_code:
        r = trail.result.record
        text += f" by {r.model} at {r.provider}, {r.finished_at - r.accepted_at} ms{_cost(r.cost_usd)}"
    elif trail.result:
        text += f" with {trail.result.record.error_code} ({trail.result.record.status})"
    return text


def _draw_request(tree: Tree, trail: Trail) -> None:
    if trail.request is None:
        _add(tree, "request: not in this log", "yellow")
        return
    r = trail.request.record
    branch = _add(tree, f"request  {_where(trail.request)}")
    _add(branch, f"tenant {r.tenant}, from {r.source}, accepted {_clock(r.accepted_at)}")
    named = [f"run {r.run}"] if r.run else []
    named += [f"line {r.line}"] if r.line is not None else []
    named += [f"custom id {r.custom_id}"] if r.custom_id is not None else []
    _add(branch, f"asked for {r.requested_model or 'any model'}" + "".join(f", {n}" for n in named))
    _add(branch, f"policy {r.policy_hash[:12]}, recipe {r.recipe or '(root)'}")


def _draw_signals(tree: Tree, trail: Trail) -> None:
    for found in trail.signals:
        s = found.record
        branch = _add(tree, f"signals of {s.role}  {_where(found)}, {s.elapsed_us / 1000:.1f} ms")
        for name, version in zip(s.classifiers, s.versions, strict=False):
            _add(branch, f"classifier {name}, version {version}", "dim")
        for observation in s.observations:
            _draw_observation(branch, observation)


def _draw_observation(branch: Tree, o: Observation) -> None:
    state = "unknown" if o.status != "ok" else "match" if o.matched else "no_match"
    numbers = [
        f"{name} {x:.4g}"
        for name, x in (("confidence", o.confidence), ("value", o.value))
        if not math.isnan(x)
    ]
    label = f" = {o.label}" if o.label else ""
    why = f" {o.status}: {o.reason}" if o.status != "ok" else ""
    _add(
        branch,
        f"{_MARK[state]} {o.type}:{o.name}{label}{why}" + "".join(f", {n}" for n in numbers),
        _STYLE[state],
    )


def _draw_decision(tree: Tree, trail: Trail) -> None:
    if trail.decision is None:
        _add(tree, "decision: none in this log", "yellow")
        return
    core: DecisionCore = trail.decision.record.core
    meta = trail.decision.record.meta
    name = f" {core.decision}" if core.decision else ""
    failure = f" ({core.failure})" if core.failure else ""
    branch = _add(tree, f"decision{name}: {core.outcome}{failure}  {_where(trail.decision)}")
    root = rule_tree(core.rule)
    if root is not None:
        _draw_rule(branch.add("rule"), root)
    _draw_candidates(branch, core)
    if core.plan:
        steps = " → ".join(f"{s.model} at {s.provider} (≤ {s.attempts} attempts)" for s in core.plan)
        _add(branch, f"plan: {steps}")
    _add(branch, f"made of: {', '.join(f'{i.role}@{i.offset}' for i in meta.inputs) or 'no signals'}")
    for title, names in (("missing", core.signals_missing), ("late roles", meta.late_roles)):
        if names:
            _add(branch, f"{title}: {', '.join(names)}", "yellow")


def _draw_candidates(branch: Tree, core: DecisionCore) -> None:
    if not core.candidates:
        return
    drawn_by = f" by {core.selector}, draw {core.draw:.6f} (salt {core.salt})" if core.selector else ""
    candidates = _add(branch, f"chosen: {core.chosen}{drawn_by}")
    for model, score, propensity in zip(core.candidates, core.scores, core.propensities, strict=False):
        chosen = model == core.chosen
        text = f"{'●' if chosen else '○'} {model}  score {score:.4g}, propensity {propensity:.4g}"
        _add(candidates, text, "green" if chosen else "dim")
    tried = core.explored
    if tried.epsilon > 0.0:
        how = "explored" if tried.draw < tried.epsilon else "not explored"
        text = f"{how}: draw {tried.draw:.6f}, epsilon {tried.epsilon:g} (salt {tried.salt})"
        _add(candidates, f"{text}, incumbent {tried.incumbent}{_cost(tried.extra_usd)} more")


def _draw_rule(branch: Tree, node: RuleNode) -> None:
    text = f"{_MARK[node.state]} {node.leaf or node.kind}"
    below = _add(branch, f"{text}, confidence {node.confidence:.4g}", _STYLE[node.state])
    for child in node.children:
        _draw_rule(below, child)


def _draw_work(tree: Tree, trail: Trail) -> None:
    ended = {f.record.key: f.record for f in trail.of(AttemptEnded)}
    for found in trail.of(Job):
        job = found.record
        branch = _add(tree, f"job {job.key}: {job.model} at {job.provider}  {_where(found)}")
        for start in (f.record for f in trail.of(AttemptStarted) if f.record.key == job.key):
            end = ended.get(start.key)
            how = "no end in this log" if end is None else _ending(end, end.ended_at - start.started_at)
            _add(branch, f"attempt by {start.worker}: {how}", "" if end and end.outcome == "ok" else "yellow")
    for found in trail.of(Completion):
        c = found.record
        tokens = f"{_count(c.prompt_tokens)} + {_count(c.completion_tokens)} tokens"
        text = f"completion: {c.executed_model or c.model}, {tokens}, {c.latency_ms:.0f} ms"
        _add(tree, f"{text}{_cost(c.cost_usd)}, finish {c.finish_reason or '-'}  {_where(found)}")


def _ending(end: AttemptEnded, took: int) -> str:
    code = f" {end.code}" if end.code else ""
    return f"{end.outcome}, status {end.status}{code}, {took} ms"


def _draw_end(tree: Tree, trail: Trail) -> None:
    if trail.result:
        r = trail.result.record
        _add(
            tree,
            f"result: status {r.status}{' ' + r.error_code if r.error_code else ''}  {_where(trail.result)}",
        )
    for found in trail.of(DeadLetter):
        d = found.record
        _add(tree, f"dead letter of {d.stage}: {d.error_class}, {d.reason}  {_where(found)}", "red")
    for found in trail.of(Feedback):
        f = found.record
        _add(tree, f"feedback of {f.source}: {f.metric} {f.reward:.4g}  {_where(found)}")
    for found in trail.collapsed:
        kind = type(found.record).__name__
        _add(tree, f"a repeated {kind} counts for nothing  {_where(found)}", "dim")


def _where(found: Found) -> str:
    return f"[{found.topic} {found.partition}@{found.offset}]"


def _clock(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat(sep=" ", timespec="milliseconds")


def _cost(usd: float) -> str:
    return f", ${usd:.6f}" if not math.isnan(usd) else ""


def _count(tokens: int) -> str:
    return str(tokens) if tokens >= 0 else "?"
