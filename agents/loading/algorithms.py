"""What the algorithm of a decision is refused for: its type, and the block of settings beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agents.complaints import Complaint
from agents.policy_model import Decision, ModelRef
from agents.selectors import selector

BLOCKLESS = frozenset({"static", "knn", "kmeans", "svm", "mlp"})
WITH_BLOCK = frozenset(
    [
        "confidence",
        "ratings",
        "remom",
        "fusion",
        "workflows",
        "router_dc",
        "automix",
        "hybrid",
        "latency_aware",
        "multi_factor",
        "prompt",
    ]
)
KNOWN = BLOCKLESS | WITH_BLOCK
"""The algorithms of the original; those of ours that it does not have are told apart."""
_FEWEST_CHOICES, _WHOLE = 2, 100


def of_algorithm(decision: Decision) -> Iterator[Complaint]:
    """Iterate over what is wrong with the algorithm of *decision*."""
    algorithm = decision.algorithm
    kind = algorithm.get("type")
    text = kind.strip() if isinstance(kind, str) else ""
    here = ("algorithm", "type")
    if text not in KNOWN:
        ours = text in selector
        yield Complaint(here, f"no algorithm has the type {kind!r}", portable=ours)
        if not ours:
            return
    minimum = algorithm.get("minimum_candidates")
    if isinstance(minimum, int) and minimum < 0:
        yield Complaint(("algorithm", "minimum_candidates"), "at least one candidate is needed")
    for key in sorted(WITH_BLOCK & set(algorithm)):
        if not isinstance(algorithm[key], dict | None):
            yield Complaint(("algorithm", key), "a mapping is needed here")
    given = [key for key in algorithm if key in WITH_BLOCK and isinstance(algorithm[key], dict)]
    if len(given) > 1 or (given and given[0] != text):
        yield Complaint(here, f"the settings of {text} cannot stand beside those of {', '.join(given)}")
    elif text in WITH_BLOCK:
        yield from _settings(text, algorithm, decision.modelRefs)


def _settings(kind: str, algorithm: Mapping[str, Any], refs: tuple[ModelRef, ...]) -> Iterator[Complaint]:
    block = algorithm.get(kind)
    if not isinstance(block, dict):
        if kind in {"latency_aware", "prompt"}:
            yield Complaint(("algorithm", "type"), f"{kind} needs settings under {kind!r}")
        return
    message = ""
    if kind == "latency_aware":
        message = _percentiles(block)
    elif kind == "prompt":
        message = _prompt(block, refs)
    elif kind == "remom":
        schedule = block.get("breadth_schedule")
        valid = isinstance(schedule, list) and all(isinstance(n, int) and n > 0 for n in schedule)
        message = "" if schedule and valid else "breadth_schedule needs numbers of at least 1"
    if message:
        where = "type" if kind == "prompt" and "modelRefs" in message else kind
        yield Complaint(("algorithm", where), message)


def _percentiles(block: Mapping[str, Any]) -> str:
    asked = [block.get(key) or 0 for key in ("tpot_percentile", "ttft_percentile")]
    numbers = [value for value in asked if isinstance(value, int) and value > 0]
    if not numbers:
        return "tpot_percentile or ttft_percentile is needed"
    return "" if max(numbers) <= _WHOLE else "a percentile is at most 100"


def _prompt(block: Mapping[str, Any], refs: tuple[ModelRef, ...]) -> str:
    names = [ref.lora_name or ref.model for ref in refs]
    if len(names) < _FEWEST_CHOICES or len(set(names)) < len(names):
        return "prompt needs at least two different modelRefs"
    if not str(block.get("model") or "").strip() or not str(block.get("instructions") or "").strip():
        return "prompt needs a model and instructions"
    timeout = block.get("timeout_seconds")
    return "timeout_seconds is not negative" if isinstance(timeout, int) and timeout < 0 else ""
