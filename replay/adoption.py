"""What a policy would have done with the calls of another product's log: observed, decided, added up.

The agents are those of the live pipeline. A signal that needs a classifier is unknown where none is asked,
never unmatched, and a decision that hangs on it is counted as open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import orjson

from agents.admission import ENDPOINTS, Admission, Line
from agents.decision import decide, facts_of
from agents.engine.tracing import SignalUnknown
from agents.errors import Refused, Unavailable
from agents.observe import Observer
from agents.policy import Policy, PolicyBook
from agents.ports import Infer, Inference
from agents.refusal import metadata_refusal
from replay.imported import Call, ImportedLog, Place
from replay.importers import ANSWERED, Answered
from replay.previewing import Previewer
from replay.price_list import Prices, Source
from replay.probing import Truths, open_leaf
from schemas.decision import DecisionCore
from schemas.identity import Origin
from schemas.request import Request
from schemas.signal import SignalSet

CHUNK = 256
_NONE = -1
Sets = list[tuple[str, SignalSet]]


async def no_classifier(classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
    """Raise `Unavailable`: nobody is asked, so what needs *classifier* is unknown."""
    del texts, timeout_s
    raise Unavailable(f"classifier {classifier} is not asked")


@dataclass(slots=True)
class Safety:
    """Where a decision that is marked as safety matches, wins, or hangs on what is unknown."""

    matched: list[Place] = field(default_factory=list)
    won: list[Place] = field(default_factory=list)
    open: list[Place] = field(default_factory=list)


@dataclass(slots=True)
class Money:
    """USD of the calls whose price then and price now are both known.

    `written` is the part of `would` that is for the tokens of an answer that another model would give.
    """

    calls: int = 0
    paid: float = 0.0
    would: float = 0.0
    written: float = 0.0
    moved: int = 0


@dataclass(slots=True)
class Adoption:
    """The tallies over the calls of a log."""

    calls: int = 0
    models: Counter[tuple[str, str]] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    cells: dict[tuple[str, str], Money] = field(default_factory=dict)
    sources: Counter[Source] = field(default_factory=Counter)
    paid_usd: float = 0.0
    discounted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    unpriced: Counter[str] = field(default_factory=Counter)
    refused: dict[str, list[Place]] = field(default_factory=dict)
    safety: dict[str, Safety] = field(default_factory=dict)
    lacking: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    open: Counter[str] = field(default_factory=Counter)
    cut: list[Place] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Case:
    """A call that was admitted, as the pipeline sees it."""

    call: Call
    request: Request
    model: str


class Adopter:
    """Decides the calls of a log under *policy*; `found` is what came of it."""

    def __init__(self, policy: Policy, infer: Infer = no_classifier) -> None:
        """Prepare; *infer* is asked for what needs a classifier."""
        self.policy = policy
        self.prices = Prices(policy)
        self.found = Adoption()
        book = PolicyBook([policy])
        # No budget ever runs out here: a clock that stands still.
        self._observers = {role: Observer(role, book, infer, lambda: 0) for role in policy.roles}
        self._admission = Admission(policy, "whatif", 0, "whatif")
        self._previewers: dict[str, Previewer] = {}
        self._named = {name for entry in policy.entrypoints for name in entry.model_names}
        self._named |= set(policy.global_.router.auto_model_names)

    async def adopt(self, log: ImportedLog, progress: Callable[[int], None] = lambda _: None) -> Adoption:
        """Return what *policy* would have done with every call of *log*; *progress* is told how many."""
        for chunk in _chunks(log.calls()):
            cases = [case for call in chunk if (case := self._admitted(call)) is not None]
            for case, sets in zip(cases, await self._observed(cases), strict=True):
                self._decided(case, sets)
            progress(self.found.calls)
        return self.found

    def _admitted(self, call: Call) -> _Case | None:
        """Return *call* as admission stamps it, None (and a tally) if it would be refused.

        It is taken as a request to be routed, whatever model it named: that is the question. A name that
        the policy has a recipe for runs that recipe.
        """
        model = call.asked.model if call.asked.model in self._named else ""
        refused = metadata_refusal(call.asked.body)
        if refused is None:
            try:
                body = orjson.dumps({**call.asked.body, "model": model}, option=orjson.OPT_NON_STR_KEYS)
                number = call.place.file * 1_000_000_000 + call.place.line
                line = Line(number, call.key[:512] or None, ENDPOINTS[0], body, model, self._headers(call))
                return _Case(call, self._admission.batch(line), model)
            except Refused as error:
                refused = error
            except orjson.JSONEncodeError:
                refused = Refused("invalid_request", "the body is nested too deeply")
        self.found.refused.setdefault(refused.code, []).append(call.place)
        return None

    def _headers(self, call: Call) -> dict[str, str]:
        """Return who asked, in the headers that the policy reads it from."""
        names = self.policy.identity
        given = {names.user_header: call.asked.user, names.groups_header: call.asked.groups}
        return {name: value for name, value in given.items() if value}

    async def _observed(self, cases: list[_Case]) -> list[Sets]:
        found: list[Sets] = [[] for _ in cases]
        asked = [(case.request, Origin(0, case.call.place.line)) for case in cases]
        for role, observer in self._observers.items():
            for sets, seen in zip(found, await observer.observe(asked), strict=True):
                if seen is not None:
                    sets.append((role, seen))
        return found

    def _decided(self, case: _Case, sets: Sets) -> None:
        found, recipe = self.found, case.request.recipe
        core = decide(
            self.policy,
            recipe=recipe,
            request_id=case.request.request_id,
            sets=sets,
            facts=facts_of(case.model),
        )
        found.calls += 1
        found.decisions[core.decision or f"({core.failure or core.outcome})"] += 1
        if case.call.asked.cut:
            found.cut.append(case.call.place)
        self._safety(case, sets, self._unknown(core, sets, recipe))
        self._priced(case.call, core)

    def _unknown(self, core: DecisionCore, sets: Sets, recipe: str) -> Truths | None:
        """Count what is unknown and what hangs on it; return what rules come to if anything is unknown."""
        if not core.signals_missing:
            return None
        self.found.unknown += 1
        self.found.lacking.update(core.signals_missing)
        if recipe not in self._previewers:
            self._previewers[recipe] = Previewer(self.policy, recipe)
        previewer = self._previewers[recipe]
        rows = [row for _, seen in sets for row in seen.observations]
        try:
            truths = Truths(previewer, rows)
            leaf = open_leaf(previewer, rows, core.decision, truths)
        except SignalUnknown as unknown:
            self.found.open[unknown.leaf] += 1
            return None
        if leaf is not None:
            self.found.open[leaf] += 1
        return truths

    def _safety(self, case: _Case, sets: Sets, truths: Truths | None) -> None:
        """Note which decisions that are marked as safety match, whether or not they win."""
        recipe, place = case.request.recipe, case.call.place
        routing = self.policy.routing_of(recipe)
        marked = [] if routing is None else [(n, d) for n, d in enumerate(routing.decisions) if d.safety]
        if not marked:
            return
        evaluator = self.policy.evaluators[recipe]
        vector = evaluator.vector([seen.observations for _, seen in sorted(sets, key=lambda pair: pair[0])])
        try:
            winner = evaluator.choose(vector).rule
        except SignalUnknown:
            winner = _NONE
        for number, rule in marked:
            tally = self.found.safety.setdefault(rule.name, Safety())
            try:
                matched = evaluator.explain(vector, number).matched
            except SignalUnknown:
                tally.open.append(place)
                continue
            if matched:
                tally.matched.append(place)
                tally.won += [place] if winner == number else []
            elif truths is not None and truths.of(rule.rules)[0] is None:
                tally.open.append(place)

    def _priced(self, call: Call, core: DecisionCore) -> None:
        found, answered = self.found, call.answered or Answered("")
        state = "unanswered" if call.answered is None else answered.state
        then = self.prices.own_name(answered.model or call.asked.model) or "(not logged)"
        now = core.chosen or f"({core.failure or 'no model'})"
        found.models[then, now] += 1
        found.states[state] += 1
        if state != ANSWERED:
            return
        paid, source = self.prices.paid(answered)
        found.sources[source] += 1
        found.paid_usd += paid or 0.0
        found.discounted += answered.share < 1.0 and source in {"policy", "list"}
        prompt, completion = answered.prompt_tokens, answered.completion_tokens
        if paid is None:
            found.unpriced["then"] += 1
        elif prompt is None or completion is None:
            found.unpriced["tokens"] += 1
        elif (would := self.prices.would(core.chosen, prompt, completion)) is None:
            found.unpriced["now"] += 1
        else:
            cell = found.cells.setdefault((then, now), Money())
            cell.calls += 1
            cell.paid += paid
            cell.would += would
            if then != now:
                cell.moved += 1
                cell.written += self.prices.would(core.chosen, 0, completion) or 0.0


def _chunks(calls: Iterable[Call]) -> Iterator[list[Call]]:
    left = iter(calls)
    while chunk := list(islice(left, CHUNK)):
        yield chunk
