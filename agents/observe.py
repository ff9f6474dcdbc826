"""Compute the signals that a request demands of one role: the one loop that all signals share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from agents.battery import BAD_CONTENT, Battery
from agents.content import Content
from agents.draw import unit
from agents.errors import Unavailable
from agents.policy import Policy, PolicyBook
from agents.policy_model import Beside, leaf_key
from agents.ports import Infer
from agents.signals import Classified, SignalConfig
from schemas.identity import Origin
from schemas.request import Request
from schemas.sealed import unseal
from schemas.signal import Observation, Observations, SignalSet

Clock = Callable[[], int]
"""Microseconds since the epoch; the driver's."""

Vectors = NDArray[np.float32]

_Compared = tuple[str, str, tuple[str, ...]]
"""Classifier, its version, and the texts that an observation is compared with."""

SHADOW_DRAW = "shadow_signals"
"""Salt and tag of the draw that says which shadow signals of a request are observed."""
ELSEWHERE = "the body is kept elsewhere"
SEALED = "the request is sealed with a key that is not held here"
"""Why nothing can be observed of a body."""
_MAX_REFERENCES = 10_000
_MAX_MATRICES = 1_000
_MAX_BATTERIES = 1_000
_LEAST_S = 0.001


@dataclass(frozen=True, slots=True)
class _Cell:
    """An observation that needs a classifier: its place in the rows, and the text to look at."""

    row: int
    column: int
    config: Classified
    text: str


class Observer:
    """Observes requests for one role, under the policy that each is stamped with."""

    def __init__(self, role: str, book: PolicyBook, infer: Infer, clock: Clock) -> None:
        self._role = role
        self._book = book
        self._infer = infer
        self._clock = clock
        # By classifier, version and text: vectors of other weights are never compared with each other.
        self._references: dict[tuple[str, str, str], Vectors] = {}
        self._matrices: dict[_Compared, Vectors] = {}
        self._versions: dict[str, str] = {}
        self._batteries: dict[tuple[str, str, int], Battery] = {}

    async def observe(self, asked: Sequence[tuple[Request, Origin]]) -> list[SignalSet | None]:
        """Return one set per request, None where its recipe demands nothing of this role.

        Raises `agents.errors.PolicyMissing` if a stamped policy has not been read yet.
        """
        began = self._clock()
        requests = [request for request, _ in asked]
        contents = [_content(request, self._book[request.policy_hash]) for request in requests]
        batteries = [self._battery(request) for request in requests]
        drawn = [self._beside(request) for request in requests]
        demanded = self._rows(requests, batteries, contents)
        if any(drawn):
            # In a pass of their own, at the same time: a classifier that is slow for them, or away, must
            # not make what decisions wait for late.
            shadows = [self._shadow_battery(*pair) for pair in zip(requests, drawn, strict=True)]
            shadowed = self._rows(requests, shadows, contents)
            (rows, versions), (more, others) = await asyncio.gather(demanded, shadowed)
            rows, versions = [[*one, *two] for one, two in zip(rows, more, strict=True)], others | versions
        else:
            rows, versions = await demanded
        elapsed = self._clock() - began
        return [
            self._set(request, origin, (observed, beside), (began, elapsed), _used(battery, beside, versions))
            if battery.configs or beside
            else None
            for (request, origin), battery, beside, observed in zip(
                asked, batteries, drawn, rows, strict=True
            )
        ]

    async def _rows(
        self, requests: Sequence[Request], batteries: Sequence[Battery], contents: Sequence[Content | str]
    ) -> tuple[list[list[Observation]], dict[str, str]]:
        """Return what *batteries* observe, and the version of each classifier that was asked."""
        rows = [battery.observe(content) for battery, content in zip(batteries, contents, strict=True)]
        budgets = [self._book[request.policy_hash].deadlines.infer_s for request in requests]
        versions: dict[str, str] = {}
        for classifier, cells in _cells(batteries, contents).items():
            budget = min(budgets[cell.row] for cell in cells)
            versions[classifier] = await self._classify(classifier, cells, rows, budget)
        return rows, versions

    def failed(self, request: Request, origin: Origin, reason: str) -> SignalSet | None:
        """Return a set that says that nothing could be observed, so that nobody waits for it."""
        rows = [config.unobserved("failed", reason) for config in self._demand(request)]
        return self._set(request, origin, (rows, ()), (self._clock(), 0), {}) if rows else None

    def _demand(self, request: Request) -> Sequence[SignalConfig]:
        return self._book[request.policy_hash].demand(request.recipe).get(self._role, ())

    def _beside(self, request: Request) -> tuple[Beside, ...]:
        """Return the shadow signals of this role that are drawn for *request*.

        One draw a request, whatever the policy: of two signals with one rate both are observed or none,
        so that a policy that needs both finds them together.
        """
        policy = self._book[request.policy_hash]
        own = tuple(pair for pair in policy.beside(request.recipe) if pair[0].role == self._role)
        if not own:
            return ()
        draw = unit(SHADOW_DRAW, request.request_id, 0, SHADOW_DRAW)
        return tuple((config, rate) for config, rate in own if draw < rate)

    def _battery(self, request: Request) -> Battery:
        """Return what observes the demand of a request's recipe, compiled once a policy."""
        return self._compiled((request.policy_hash, request.recipe, -1), lambda: self._demand(request))

    def _shadow_battery(self, request: Request, drawn: tuple[Beside, ...]) -> Battery:
        # Of one policy and recipe the drawn ones are those of the highest rates: their number names them.
        key = (request.policy_hash, request.recipe, len(drawn))
        return self._compiled(key, lambda: [config for config, _ in drawn])

    def _compiled(self, key: tuple[str, str, int], configs: Callable[[], Sequence[SignalConfig]]) -> Battery:
        battery = self._batteries.get(key)
        if battery is None:
            if len(self._batteries) >= _MAX_BATTERIES:
                self._batteries.clear()
            battery = self._batteries[key] = Battery(configs())
        return battery

    async def _classify(
        self, classifier: str, cells: Sequence[_Cell], rows: list[list[Observation]], budget: float
    ) -> str:
        """Fill in the rows of *cells* by one inference for all; return the version that answered."""
        compared = list(dict.fromkeys(text for cell in cells for text in cell.config.references()))
        texts = list(dict.fromkeys(cell.text for cell in cells))
        try:
            version, vectors, known = await self._infer_all(classifier, texts, compared, budget)
        except Unavailable as error:
            for cell in cells:
                rows[cell.row][cell.column] = cell.config.unobserved("failed", type(error).__name__)
            return ""
        for cell in cells:
            vector = vectors[cell.text]
            references = self._matrix((classifier, version, tuple(cell.config.references())), known)
            if references is None:
                references = np.zeros((0, len(vector)), np.float32)
            rows[cell.row][cell.column] = _decoded(cell.config, vector, references)
        return version

    def _matrix(self, key: _Compared, known: Mapping[str, Vectors]) -> Vectors | None:
        """Return the references of *key* as one matrix, None if it has none.

        Stacked anew for each observation they cost a tenth of the role.
        """
        matrix = self._matrices.get(key)
        if matrix is None and key[2]:
            if len(self._matrices) >= _MAX_MATRICES:
                self._matrices.clear()
            matrix = self._matrices[key] = np.stack([known[text] for text in key[2]])
        return matrix

    async def _infer_all(
        self, classifier: str, texts: Sequence[str], references: Sequence[str], budget: float
    ) -> tuple[str, Mapping[str, Vectors], Mapping[str, Vectors]]:
        """Return version, text -> vector and reference -> vector, all of the same weights.

        Other chunks may be under way, so nothing of the cache is relied on across an inference. If the
        classifier comes back with other weights, all is inferred once more, within the same budget.
        """
        until = self._clock() + int(budget * 1_000_000)
        version = self._versions.get(classifier, "")
        known = self._known(classifier, version, references)
        new = [text for text in references if text not in known]
        inference = await self._infer(classifier, [*texts, *new], budget)
        if known and inference.version != version:
            known, new = {}, list(references)
            left = max((until - self._clock()) / 1_000_000, _LEAST_S)
            inference = await self._infer(classifier, [*texts, *new], left)
        if len(inference.vectors) != len(texts) + len(new):
            raise Unavailable(f"classifier {classifier!r} answered with another number of rows than texts")
        vectors = dict(zip(texts, inference.vectors, strict=False))
        known |= dict(zip(new, inference.vectors[len(texts) :], strict=True))
        self._remember(classifier, inference.version, known)
        return inference.version, vectors, known

    def _known(self, classifier: str, version: str, references: Sequence[str]) -> dict[str, Vectors]:
        found = ((text, self._references.get((classifier, version, text))) for text in references)
        return {text: vector for text, vector in found if vector is not None}

    def _remember(self, classifier: str, version: str, known: Mapping[str, Vectors]) -> None:
        changed = version != self._versions.get(classifier, version)
        if changed or len(self._references) + len(known) > _MAX_REFERENCES:
            self._references.clear()
        self._versions[classifier] = version
        self._references |= {(classifier, version, text): vector for text, vector in known.items()}

    def _set(
        self,
        request: Request,
        origin: Origin,
        found: tuple[list[Observation], tuple[Beside, ...]],
        timing: tuple[int, int],
        versions: Mapping[str, str],
    ) -> SignalSet:
        rows, beside = found
        return SignalSet(
            request_id=request.request_id,
            origin=origin,
            role=self._role,
            policy_hash=request.policy_hash,
            recipe=request.recipe,
            observations=Observations.of(rows),
            started_at=timing[0] // 1000,
            elapsed_us=timing[1],
            classifiers=tuple(versions),
            versions=tuple(versions.values()),
            shadow=tuple(":".join(leaf_key(config)) for config, _ in beside),
            shadow_rate=tuple(rate for _, rate in beside),
        )


def _content(request: Request, policy: Policy) -> Content | str:
    """Return the request's content, or why there is none to look at."""
    if request.body.sealed is None:
        return ELSEWHERE
    try:
        headers = orjson.loads(unseal(request.headers)) if request.headers is not None else {}
        return Content(unseal(request.body.sealed), headers, policy.identity)
    except ValueError:
        return SEALED


def _cells(batteries: Sequence[Battery], contents: Sequence[Content | str]) -> dict[str, list[_Cell]]:
    """Return classifier -> what it is to look at; content that cannot be read is left out."""
    cells: dict[str, list[_Cell]] = {}
    for row, (battery, content) in enumerate(zip(batteries, contents, strict=True)):
        for column, config in battery.classified:
            if isinstance(content, str):
                continue
            text = _encoded(config, content)
            if text is not None:
                cells.setdefault(config.classifier, []).append(_Cell(row, column, config, text))
    return cells


def _encoded(config: Classified, content: Content) -> str | None:
    try:
        return config.encode(content)
    except BAD_CONTENT:
        return None


def _decoded(config: Classified, vector: Vectors, references: Vectors) -> Observation:
    if not (np.isfinite(vector).all() and np.isfinite(references).all()):
        return config.unobserved("failed", "the classifier answered with no finite vector")
    return config.decode(vector, references)


def _used(battery: Battery, beside: tuple[Beside, ...], versions: Mapping[str, str]) -> dict[str, str]:
    """Return classifier -> version of what was asked for, "" where it did not answer."""
    configs = (*battery.configs, *(config for config, _ in beside))
    asked = dict.fromkeys(config.classifier for config in configs if isinstance(config, Classified))
    return {classifier: versions.get(classifier, "") for classifier in asked}
