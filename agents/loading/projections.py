"""What projections are refused for."""

from __future__ import annotations

from collections.abc import Iterator

from agents.complaints import Complaint
from agents.loading.references import Scope
from agents.projection_model import Band, Mapping, Partition, Projections, Score, ScoreInput

_MEMBERS = ("domain", "embedding")
_INPUTS = frozenset(
    [
        "keyword",
        "embedding",
        "domain",
        "fact_check",
        "user_feedback",
        "reask",
        "preference",
        "language",
        "context",
        "structure",
        "complexity",
        "modality",
        "authz",
        "jailbreak",
        "pii",
        "kb",
        "conversation",
        "event",
        "kb_metric",
        "projection",
        "safety",
        "input_modality",
    ]
)
_SOURCES = frozenset({"", "binary", "confidence", "raw"})
_AUTHZ = frozenset({"miss", "observed"})


def of_projections(found: Projections, scope: Scope) -> Iterator[Complaint]:
    """Iterate over what is wrong with *found*."""
    if found.authz_inputs not in _AUTHZ:
        yield Complaint(("authz_inputs",), "one of miss, observed is needed here")
    for place, parts in (
        ("partitions", found.partitions),
        ("scores", found.scores),
        ("mappings", found.mappings),
    ):
        yield from _names(place, [part.name for part in parts])
    for index, partition in enumerate(found.partitions):
        for complaint in _partition(partition, scope):
            yield complaint.below("partitions", index)
    for index, score in enumerate(found.scores):
        for complaint in _score(score, scope):
            yield complaint.below("scores", index)
    outputs: set[str] = set()
    for index, mapping in enumerate(found.mappings):
        for complaint in _mapping(mapping, scope, outputs):
            yield complaint.below("mappings", index)
    yield from _order(found, scope)


def _names(place: str, names: list[str]) -> Iterator[Complaint]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if not name.strip():
            yield Complaint((place, index, "name"), "it has no name")
        elif name.strip() in seen:
            yield Complaint((place,), f"{name!r} is declared twice")
        seen.add(name.strip())


def _partition(partition: Partition, scope: Scope) -> Iterator[Complaint]:
    if not partition.members:
        yield Complaint(("members",), "the partition has no members")
    if partition.semantics not in {"exclusive", "softmax_exclusive"}:
        yield Complaint(("semantics",), "the semantics are exclusive or softmax_exclusive")
    if not partition.default:
        yield Complaint(("default",), "the default is missing")
    kinds = set()
    for member in partition.members:
        kind = next((k for k in _MEMBERS if (k, member) in scope.own), None)
        if kind is None:
            yield Complaint(("member",), f"{member!r} is no declared domain or embedding")
        kinds.add(kind)
    if len(kinds) > 1:
        yield Complaint((), "the members are of different types")
    if partition.semantics == "softmax_exclusive" and partition.temperature <= 0:
        yield Complaint(("temperature",), "softmax_exclusive needs a temperature above 0")
    if partition.default and partition.default not in partition.members:
        yield Complaint(("default",), "the default is not one of the members")


def _score(score: Score, scope: Scope) -> Iterator[Complaint]:
    if score.method != "weighted_sum":
        yield Complaint(("method",), "the method is weighted_sum")
    if not score.inputs:
        yield Complaint(("inputs",), "the score has no inputs")
    for index, term in enumerate(score.inputs):
        for complaint in _input(term, scope):
            yield complaint if complaint.path != ("input",) else complaint.below("inputs", index)


def _input(term: ScoreInput, scope: Scope) -> Iterator[Complaint]:
    if term.type == "kb_metric":
        if not term.metric or term.kb not in scope.bases:
            yield Complaint((), "kb_metric needs a knowledge base of global.model_catalog.kbs and a metric")
    elif term.type == "projection":
        yield from _projected(term, scope)
    elif term.type not in _INPUTS:
        yield Complaint(("input",), f"inputs of type {term.type!r} are not supported")
    elif not scope.declares(term.type, term.name) and (term.type != "domain" or scope.has_domains()):
        yield Complaint(("input",), f"{term.type}:{term.name} is not declared")
    elif term.value_source not in _SOURCES:
        yield Complaint(("input",), "the value_source is binary, confidence or raw")


def _projected(term: ScoreInput, scope: Scope) -> Iterator[Complaint]:
    source = term.value_source.strip().lower()
    if not term.name:
        yield Complaint((), "an input of type projection needs a name")
    elif source not in {"", "score", "confidence"}:
        yield Complaint((), "the value_source of a projection is score or confidence")
    elif source == "confidence" and term.name not in scope.outputs:
        yield Complaint((), f"no mapping publishes {term.name!r}")


def _mapping(mapping: Mapping, scope: Scope, outputs: set[str]) -> Iterator[Complaint]:
    if mapping.source not in scope.scores:
        yield Complaint(("source",), f"no score {mapping.source!r} is declared")
    if mapping.method not in {"", "threshold_bands", "multi_emit"}:
        yield Complaint(("method",), "the method is threshold_bands or multi_emit")
    if not mapping.outputs:
        yield Complaint(("outputs",), "the mapping publishes nothing")
    if mapping.method == "multi_emit" and len(mapping.outputs) == 1:
        yield Complaint((), "multi_emit needs at least two outputs")
    if mapping.calibration is not None and mapping.calibration.method not in {"", "sigmoid_distance"}:
        yield Complaint(("calibration", "method"), "the method is sigmoid_distance")
    for index, band in enumerate(mapping.outputs):
        message = _band(band, outputs)
        if message:
            yield Complaint(("outputs", index), message)
        outputs.add(band.name)


def _band(band: Band, outputs: set[str]) -> str:
    """Return what is wrong with *band*, "" if nothing is."""
    if not band.name:
        return "the output has no name"
    if band.name in outputs:
        return f"{band.name!r} is published twice"
    if all(bound is None for bound in (band.gt, band.gte, band.lt, band.lte)):
        return "an output needs at least one of gt, gte, lt, lte"
    if band.gt is not None and band.gte is not None:
        return "gt and gte are both given"
    return "lt and lte are both given" if band.lt is not None and band.lte is not None else ""


def _order(found: Projections, scope: Scope) -> Iterator[Complaint]:
    """Iterate over scores that need an undeclared one, or themselves."""
    needs = {score.name: _needed(score, scope) for score in found.scores}
    settled: set[str] = set()
    for index, score in enumerate(found.scores):
        missing = [name for name in needs[score.name] if name not in needs]
        if missing:
            yield Complaint(("scores", index), f"no score {missing[0]!r} is declared")
    while True:
        ready = {name for name, inner in needs.items() if name not in settled and inner <= settled}
        if not ready:
            break
        settled |= ready
    stuck = set(needs) - settled
    if stuck and all(inner <= set(needs) for inner in needs.values()):
        yield Complaint(("scores",), f"the scores {', '.join(sorted(stuck))} need each other")


def _needed(score: Score, scope: Scope) -> set[str]:
    found = set()
    for term in score.inputs:
        if term.type == "projection":
            by_output = term.value_source.strip().lower() == "confidence"
            found.add(scope.outputs.get(term.name, term.name) if by_output else term.name)
    return found
