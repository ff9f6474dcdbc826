"""Projections as configured: partitions of signals, weighted scores, and the bands that they fall into."""

from __future__ import annotations

from agents.parts import Part


class Partition(Part):
    """Signals of which only the best is kept; `default` is taken where none contends."""

    name: str = ""
    semantics: str = ""
    temperature: float = 0.0
    members: tuple[str, ...] = ()
    default: str = ""


class ScoreInput(Part):
    """A term of a score: a signal, a metric of a knowledge base, or an earlier score or mapping.

    A `match` of 0 counts as 1 and a `value_source` of "" as binary, as in the original.
    """

    type: str = ""
    name: str = ""
    weight: float = 0.0
    value_source: str = ""
    match: float = 0.0
    miss: float = 0.0
    kb: str = ""
    metric: str = ""


class Score(Part):
    """A weighted sum of its inputs."""

    name: str = ""
    method: str = ""
    inputs: tuple[ScoreInput, ...] = ()


class Calibration(Part):
    """How far from a bound gives which confidence; a slope of 0 or less counts as 12."""

    method: str = ""
    slope: float = 0.0


class Band(Part):
    """A projection that is published where the source lies within its bounds."""

    name: str = ""
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


class Mapping(Part):
    """The bands of a score, of which the first that fits (or each, `multi_emit`) is published."""

    name: str = ""
    source: str = ""
    method: str = ""
    calibration: Calibration | None = None
    outputs: tuple[Band, ...] = ()


class Projections(Part):
    """The layer between signals and decisions.

    `authz_inputs` is ours: the original evaluates authz after the projections, so that such an input
    is always a miss (``miss``, the default); ``observed`` reads it.
    """

    partitions: tuple[Partition, ...] = ()
    scores: tuple[Score, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    authz_inputs: str = "miss"
