"""Compute the signals that a request demands of one role: the one loop that all signals share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from agents.content import Content
from agents.errors import InvalidRecord, Unavailable
from agents.policy import PolicyBook
from agents.ports import Infer
from agents.signals import Classified, Heuristic, SignalConfig
from schemas.identity import Origin
from schemas.request import Request
from schemas.sealed import unseal
from schemas.signal import Observation, Observations, SignalSet

Clock = Callable[[], int]
"""Microseconds since the epoch; the driver's."""

_MAX_REFERENCES = 10_000


class Observer:
    """Observes requests for one role, under the policy that each is stamped with."""

    def __init__(self, role: str, book: PolicyBook, infer: Infer, clock: Clock) -> None:
        self._role = role
        self._book = book
        self._infer = infer
        self._clock = clock
        self._references: dict[tuple[str, str], NDArray[np.float32]] = {}
        self._versions: dict[str, str] = {}

    async def observe(self, asked: Sequence[tuple[Request, Origin]]) -> list[SignalSet | None]:
        """Return one set per request, None where its recipe demands nothing of this role.

        Raises `agents.errors.PolicyMissing` if a stamped policy has not been read yet.
        """
        began = self._clock()
        demands = [self._book[r.policy_hash].demand(r.recipe).get(self._role, ()) for r, _ in asked]
        contents = [_content(request) for request, _ in asked]
        rows: list[list[Observation]] = [
            [
                _evaluated(config, content)
                if isinstance(config, Heuristic)
                else config.unobserved("failed", "")
                for config in demand
            ]
            for demand, content in zip(demands, contents, strict=True)
        ]
        used = await self._classify(asked, demands, contents, rows)
        elapsed = self._clock() - began
        return [
            self._set(request, origin, observed, (began, elapsed), used) if demand else None
            for (request, origin), demand, observed in zip(asked, demands, rows, strict=True)
        ]

    def failed(self, request: Request, origin: Origin, reason: str) -> SignalSet | None:
        """Return a set that says that nothing could be observed, so that nobody waits for it."""
        demand = self._book[request.policy_hash].demand(request.recipe).get(self._role, ())
        rows = [config.unobserved("failed", reason) for config in demand]
        return self._set(request, origin, rows, (self._clock(), 0), ()) if rows else None

    async def _classify(
        self,
        asked: Sequence[tuple[Request, Origin]],
        demands: Sequence[Sequence[SignalConfig]],
        contents: Sequence[Content | str],
        rows: list[list[Observation]],
    ) -> tuple[str, ...]:
        """Fill in the classified rows, one inference per classifier for all requests together."""
        cells = [
            (row, column, config)
            for row, demand in enumerate(demands)
            for column, config in enumerate(demand)
            if isinstance(config, Classified)
        ]
        classifiers = tuple(dict.fromkeys(config.classifier for _, _, config in cells))
        for classifier in classifiers:
            mine = [cell for cell in cells if cell[2].classifier == classifier]
            budget = min(self._book[asked[row][0].policy_hash].deadlines.infer_s for row, _, _ in mine)
            await self._classify_with(classifier, mine, contents, rows, budget)
        return classifiers

    async def _classify_with(
        self,
        classifier: str,
        cells: Sequence[tuple[int, int, Classified]],
        contents: Sequence[Content | str],
        rows: list[list[Observation]],
        budget: float,
    ) -> None:
        texts: dict[str, int] = {}
        wanted: list[tuple[int, int, Classified, str]] = []
        for row, column, config in cells:
            content = contents[row]
            text = _encoded(config, content) if isinstance(content, Content) else None
            if text is None:
                reason = content if isinstance(content, str) else "the content could not be read"
                rows[row][column] = config.unobserved("failed", reason)
                continue
            texts.setdefault(text, len(texts))
            wanted.append((row, column, config, text))
        unknown = self._unknown_references(classifier, [config for _, _, config, _ in wanted])
        try:
            vectors = await self._infer_all(classifier, [*texts, *unknown], budget)
        except Unavailable as error:
            for row, column, config, _ in wanted:
                rows[row][column] = config.unobserved("failed", _unavailable(error))
            return
        for text, vector in zip(unknown, vectors[len(texts) :], strict=True):
            self._references[classifier, text] = vector
        for row, column, config, text in wanted:
            references = np.stack([self._references[classifier, r] for r in config.references()])
            rows[row][column] = config.decode(vectors[texts[text]], references)

    def _unknown_references(self, classifier: str, configs: Sequence[Classified]) -> list[str]:
        if len(self._references) > _MAX_REFERENCES:
            self._references.clear()
        wanted = dict.fromkeys(text for config in configs for text in config.references())
        return [text for text in wanted if (classifier, text) not in self._references]

    async def _infer_all(self, classifier: str, texts: Sequence[str], budget: float) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, 0), np.float32)
        inference = await self._infer(classifier, texts, budget)
        if inference.version != self._versions.get(classifier, inference.version):
            # Other weights: vectors of the old ones cannot be compared with new ones.
            self._references.clear()
            self._versions[classifier] = inference.version
            message = f"classifier {classifier!r} changed its weights"
            raise Unavailable(message)
        self._versions[classifier] = inference.version
        return inference.vectors

    def _set(
        self,
        request: Request,
        origin: Origin,
        rows: list[Observation],
        timing: tuple[int, int],
        classifiers: tuple[str, ...],
    ) -> SignalSet:
        return SignalSet(
            request_id=request.request_id,
            origin=origin,
            role=self._role,
            policy_hash=request.policy_hash,
            recipe=request.recipe,
            observations=Observations.of(rows),
            started_at=timing[0] // 1000,
            elapsed_us=timing[1],
            classifiers=classifiers,
            versions=tuple(self._versions.get(c, "") for c in classifiers),
        )


def _content(request: Request) -> Content | str:
    """Return the request's content, or why there is none to look at."""
    if request.body.sealed is None:
        return "the body is kept elsewhere"
    headers = orjson.loads(unseal(request.headers)) if request.headers is not None else {}
    return Content(unseal(request.body.sealed), headers)


def _evaluated(config: Heuristic, content: Content | str) -> Observation:
    if isinstance(content, str):
        return config.unobserved("failed", content)
    try:
        return config.evaluate(content)
    except (InvalidRecord, TypeError, ValueError, KeyError, AttributeError) as error:
        return config.unobserved("failed", type(error).__name__)


def _encoded(config: Classified, content: Content) -> str | None:
    try:
        return config.encode(content)
    except (InvalidRecord, TypeError, ValueError, KeyError, AttributeError):
        return None


def _unavailable(error: Unavailable) -> str:
    return type(error).__name__
