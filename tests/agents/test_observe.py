"""The loop that all signals share: batching, caching, and what a failing classifier leaves behind."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from agents.errors import PolicyMissing, Unavailable
from agents.observe import Observer
from agents.policy import PolicyBook
from agents.ports import Inference
from agents.testing import vector_of
from schemas.identity import Origin
from schemas.request import Request
from schemas.sealed import Sealed, seal_plainly
from schemas.signal import SignalSet
from tests.agents.samples import SECRET, policy, request

UNDER = policy()
REFERENCES = ["contract law", "court case"]


@dataclass
class Encoder:
    """A classifier whose vectors depend on its version; keeps what it was asked."""

    version: str = "1"
    asked: list[list[str]] = field(default_factory=list)
    budgets: list[float] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    vectors: Callable[[Sequence[str]], np.ndarray] | None = None
    pause: asyncio.Event | None = None

    async def __call__(self, classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
        """Return one vector per text."""
        assert classifier == "encoder"
        self.asked.append(list(texts))
        self.budgets.append(timeout_s)
        self.before()
        version = self.version
        if self.pause is not None:
            await self.pause.wait()
        rows = np.stack([vector_of(text if version == "1" else version + text) for text in texts])
        return Inference(rows if self.vectors is None else self.vectors(texts), version)


@dataclass
class Ticks:
    """A clock in microseconds that moves by a second at every look."""

    now: int = 1_800_000_000_000_000

    def __call__(self) -> int:
        """Return the time."""
        self.now += 1_000_000
        return self.now


def observer(role: str, infer: Encoder) -> Observer:
    """Return an observer of *role* that knows the sample policy."""
    return Observer(role, PolicyBook([UNDER]), infer, Ticks())


def asked(*texts: str) -> list[tuple[Request, Origin]]:
    """Return a request for each of *texts*, at origins from 0."""
    requests = [request(text, under=UNDER, number=n) for n, text in enumerate(texts)]
    return [(found, Origin(0, n)) for n, found in enumerate(requests)]


def matched(found: SignalSet | None) -> dict[str, tuple[bool, str]]:
    """Return signal -> match and status."""
    assert found is not None
    return {o.name: (o.matched, o.status) for o in found.observations}


async def test_one_inference_serves_all_requests() -> None:
    """Texts are sent once each, with the policy's phrases; afterwards the phrases are known."""
    infer = Encoder()
    observing = observer("embedding", infer)
    sets = await observing.observe(asked("court case", "weather", "weather"))
    await observing.observe(asked("another"))

    assert infer.asked == [["court case", "weather", *REFERENCES], ["another"]]
    assert [matched(s)["law"][0] for s in sets] == [True, False, False]
    assert infer.budgets == [2.0, 2.0]


async def test_a_set_says_who_observed_what_and_how_long() -> None:
    """A set names request, origin, policy, classifier and version, and takes its times from the clock."""
    [(found, origin)] = asked("court case")
    [seen] = await observer("embedding", Encoder()).observe([(found, origin)])

    assert seen is not None
    assert (seen.request_id, seen.origin, seen.policy_hash) == (found.request_id, origin, UNDER.hash)
    assert (seen.classifiers, seen.versions) == (("encoder",), ("1",))
    assert seen.started_at == 1_800_000_001_000
    assert seen.elapsed_us >= 1_000_000


async def test_a_recipe_that_demands_nothing_gets_no_set() -> None:
    """A request whose recipe needs nothing of the role yields None, and no classifier is asked for it."""
    infer = Encoder()
    lab = request("hi", under=UNDER, model="lab-model")
    sets = await observer("embedding", infer).observe([(lab, Origin(0, 0))])

    assert sets == [None]
    assert infer.asked == []


async def test_heuristics_look_in_declaration_order_without_a_classifier() -> None:
    """The heuristics role observes its demanded signals and names no classifier."""
    [seen] = await observer("heuristics", Encoder()).observe(asked("urgent"))

    assert matched(seen) == {"urgent": (True, "ok"), "unused": (False, "ok"), "paying": (False, "ok")}
    assert seen is not None
    assert seen.classifiers == ()


@pytest.mark.parametrize("body", [b"not json", b"[1]", b'{"messages": 5, "metadata": 3}'])
async def test_a_body_that_cannot_be_read_fails_its_own_signals_only(body: bytes) -> None:
    """A broken body is recorded as failed or observed empty; the requests beside it are not touched."""
    (broken, origin), good = asked("court case", "court case")
    broken = replace(broken, body=replace(broken.body, sealed=seal_plainly(body)))
    sets = await observer("embedding", Encoder()).observe([(broken, origin), good])

    assert matched(sets[0])["law"][0] is False
    assert matched(sets[1])["law"] == (True, "ok")


@pytest.mark.parametrize("role", ["embedding", "heuristics"])
@pytest.mark.parametrize("sealed", [None, Sealed("key-7", "aes", b"", b"x")])
async def test_a_body_that_is_not_at_hand_is_a_failed_signal(role: str, sealed: Sealed | None) -> None:
    """A claim check, or a key that is not held, is recorded as the reason."""
    [(found, origin)] = asked("court case")
    found = replace(found, body=replace(found.body, sealed=sealed))
    [seen] = await observer(role, Encoder()).observe([(found, origin)])

    assert seen is not None
    assert set(seen.observations.status) == {"failed"}
    assert all(seen.observations.reason)


async def test_a_classifier_that_is_down_is_recorded_and_nothing_is_quoted() -> None:
    """Its signals are failed with the error's class; the version is empty."""

    def down() -> None:
        raise Unavailable(f"cannot classify {SECRET!r}")

    [seen] = await observer("embedding", Encoder(before=down)).observe(asked(SECRET))

    assert seen is not None
    assert (seen.observations.status, seen.observations.reason) == (("failed",), ("Unavailable",))
    assert seen.versions == ("",)
    assert SECRET not in repr(seen)


async def test_changed_weights_are_asked_again_for_everything() -> None:
    """When the classifier comes back with other weights, text and phrases are inferred anew together."""
    infer = Encoder()
    observing = observer("embedding", infer)
    await observing.observe(asked("weather"))
    infer.version = "2"
    [seen] = await observing.observe(asked("court case"))

    assert infer.asked[1:] == [["court case"], ["court case", *REFERENCES]]
    assert infer.budgets[2] < infer.budgets[1]
    assert seen is not None
    assert seen.versions == ("2",)
    assert matched(seen)["law"] == (True, "ok")


async def test_chunks_under_way_do_not_mix_weights() -> None:
    """Two chunks at once, the weights changing in between: each is answered by one version of them."""
    infer = Encoder()
    observing = observer("embedding", infer)
    await observing.observe(asked("weather"))
    infer.pause = asyncio.Event()
    slow = asyncio.create_task(observing.observe(asked("court case")))
    await asyncio.sleep(0)
    infer.version, gate, infer.pause = "2", infer.pause, None
    [quick] = await observing.observe(asked("contract law"))
    gate.set()
    [late] = await slow

    for seen, version in ((quick, "2"), (late, "1")):
        assert seen is not None
        assert seen.versions == (version,)
        assert matched(seen)["law"] == (True, "ok")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
async def test_a_vector_that_is_no_number_is_a_failed_signal(bad: float) -> None:
    """NaN from a classifier is not a near miss."""
    infer = Encoder(vectors=lambda texts: np.full((len(texts), 16), bad, np.float32))
    [seen] = await observer("embedding", infer).observe(asked("court case"))

    assert matched(seen)["law"] == (False, "failed")


async def test_an_answer_with_missing_rows_is_a_failed_signal() -> None:
    """A classifier that answers with too few rows is not believed at all."""
    infer = Encoder(vectors=lambda _: np.zeros((1, 16), np.float32))
    [seen] = await observer("embedding", infer).observe(asked("court case"))

    assert matched(seen)["law"] == (False, "failed")


async def test_a_policy_that_was_not_read_is_waited_for() -> None:
    """A request stamped with an unknown policy is not observed under another one."""
    [(found, origin)] = asked("hi")

    with pytest.raises(PolicyMissing):
        await observer("heuristics", Encoder()).observe([(replace(found, policy_hash="0" * 64), origin)])


async def test_a_dead_letter_fails_what_was_demanded() -> None:
    """So that nobody waits: every demanded signal of the role is failed with the given reason."""
    [(found, origin)] = asked("hi")
    seen = observer("heuristics", Encoder()).failed(found, origin, "dead_lettered")

    assert seen is not None
    assert seen.observations.status == ("failed", "failed", "failed")
    assert set(seen.observations.reason) == {"dead_lettered"}
    lab = request("hi", under=UNDER, model="lab-model")
    assert observer("heuristics", Encoder()).failed(lab, origin, "dead_lettered") is None
