"""The bundled requests and example policies: all of them valid, and worth showing."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import agents.selectors
import agents.signals
from agents.admission import Admission, Line, read_line
from agents.content import Content
from agents.decision import decide, facts_of
from agents.policy import Policy
from agents.signals import Heuristic, SignalConfig
from schemas.decision import DecisionCore
from schemas.identity import Origin
from schemas.request import Request
from schemas.signal import Observation, Observations, SignalSet

INFRA = Path(__file__).parents[2] / "infra"
REQUESTS = INFRA / "demo" / "requests.jsonl"
POLICIES = sorted((INFRA / "policies").glob("*.yaml"))
LANGUAGES = {"en", "de", "fr", "es", "pt", "ja", "zh", "ar"}
NEED_THE_ENCODER = {"marketing"}

agents.signals.signal.load(agents.signals)
agents.selectors.selector.load(agents.selectors)


@cache
def lines() -> tuple[Line, ...]:
    """Read the bundled file as admission does."""
    return tuple(read_line(n, raw) for n, raw in enumerate(REQUESTS.read_bytes().splitlines(), 1))


def policy(name: str) -> Policy:
    """Read one of the example policies."""
    return Policy.parse((INFRA / "policies" / name).read_text(encoding="utf-8"), name)


def observe(config: SignalConfig, content: Content, *, encoder: bool) -> Observation:
    """Evaluate a heuristic; without Triton a classified signal matches nothing, or failed."""
    if isinstance(config, Heuristic):
        return config.evaluate(content)
    return config.observed(matched=False, value=0.0) if encoder else config.unobserved("failed", "down")


def signal_set(request: Request, role: str, rows: list[Observation]) -> SignalSet:
    """Wrap observations as the role's record."""
    named = (request.request_id, Origin(0, 0), role, request.policy_hash, request.recipe)
    return SignalSet(*named, Observations.of(rows), 0, 0, (), ())


def decisions(rules: Policy, *, encoder: bool = True) -> Iterator[tuple[Line, DecisionCore]]:
    """Decide every bundled request under *rules* by its heuristics alone."""
    admission = Admission(rules, "test", 0, "run")
    for line in lines():
        request, content = admission.batch(line), Content(line.body)
        sets = [
            (role, signal_set(request, role, [observe(c, content, encoder=encoder) for c in configs]))
            for role, configs in rules.demand(request.recipe).items()
        ]
        facts = facts_of(line.model)
        yield (
            line,
            decide(rules, recipe=request.recipe, request_id=request.request_id, sets=sets, facts=facts),
        )


def test_there_are_a_few_hundred_requests() -> None:
    """Every line can be admitted, and there are at least 320."""
    assert len(lines()) >= 320


def test_the_file_is_small() -> None:
    """The file is below a megabyte, and no line is larger than what a body may have."""
    raw = REQUESTS.read_bytes()
    assert len(raw) < 1_000_000
    assert max(map(len, raw.splitlines())) <= 256 * 1024


def test_custom_ids_are_unique() -> None:
    """No request hides another."""
    assert max(Counter(line.custom_id for line in lines()).values()) == 1


def test_eight_languages_are_spoken() -> None:
    """Each language that a custom id can begin with has at least fifteen requests."""
    spoken = Counter((line.custom_id or "").partition("-")[0] for line in lines())
    assert set(spoken) == LANGUAGES
    assert min(spoken.values()) >= 15


def test_lengths_differ_widely() -> None:
    """There are one-line questions, documents of thousands of tokens and a few of tens of thousands."""
    tokens = sorted(Content(line.body).token_floor for line in lines())
    assert tokens[50] < 40
    assert sum(t > 2_000 for t in tokens) >= 8
    assert sum(t > 16_000 for t in tokens) >= 3


def test_callers_differ() -> None:
    """Some lines carry role headers, metadata, tools, several turns or a model of their own."""
    contents = [Content(line.body) for line in lines()]
    assert sum("x-authz-user-groups" in line.headers for line in lines()) >= 30
    assert sum("tier" in c.metadata for c in contents) >= 30
    assert sum("tools" in c.document for c in contents) >= 5
    assert sum(len(c.messages) > 2 for c in contents) >= 10
    assert {line.model for line in lines()} >= {"", "auto", "draft", "north-large"}


def test_personal_data_is_nobodys() -> None:
    """Every mail address is at a domain that is reserved for examples."""
    text = REQUESTS.read_text(encoding="utf-8")
    domains = set(re.findall(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)", text))
    assert domains
    assert domains <= {"example.com", "example.org", "example.net"}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_survives_its_normal_form(path: Path) -> None:
    """An example policy loads, and its normal form reloads to an equal policy of the same hash."""
    parsed = policy(path.name)
    again = Policy.loads(parsed.normal_form)
    assert again == parsed
    assert again.hash == parsed.hash


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_an_example_needs_no_endpoint(path: Path) -> None:
    """Endpoints are settings, so the examples hold none."""
    assert "base_url" not in path.read_text(encoding="utf-8")


def test_the_demo_is_rich_enough() -> None:
    """The demo has at least eight decisions over three models at two providers, one of them drawn."""
    demo = policy("demo.yaml")
    assert len(demo.routing.decisions) >= 8
    assert (len(demo.models), demo.provider_names) == (3, ("north", "south"))
    assert "weighted" in {decision.algorithm["type"] for decision in demo.routing.decisions}


def test_every_request_of_the_demo_gets_a_model() -> None:
    """No bundled request fails under the demo's policy, which some of them bypass."""
    outcomes = Counter(core.outcome for _, core in decisions(policy("demo.yaml")))
    assert set(outcomes) == {"routed", "default", "bypassed"}


def test_every_decision_without_the_encoder_is_reached() -> None:
    """At least five bundled requests reach each decision that words, lengths and metadata can reach."""
    demo = policy("demo.yaml")
    named = {d.name for d in demo.routing.decisions} | {
        d.name for r in demo.recipes for d in r.routing.decisions
    }
    reached = Counter(core.decision for _, core in decisions(demo))
    assert {name for name in named if reached[name] < 5} == NEED_THE_ENCODER


def test_the_draw_takes_every_candidate() -> None:
    """The weighted decision sends requests to both of its models."""
    cores = [core for _, core in decisions(policy("demo.yaml")) if core.selector == "weighted"]
    assert {core.chosen for core in cores} == set(cores[0].candidates)


def test_what_is_routed_is_guarded_when_the_encoder_is_down() -> None:
    """With the guard's signal unknown, everything under the root's rules goes to the guard."""
    cores = [core for _, core in decisions(policy("demo.yaml"), encoder=False)]
    assert {core.decision for core in cores if core.recipe == "" and core.outcome != "bypassed"} == {"guard"}


def test_personal_data_stays_with_one_provider() -> None:
    """No step of a plan for a request with personal data leaves provider north, fallbacks included."""
    cores = [core for _, core in decisions(policy("demo.yaml")) if core.decision == "personal_data"]
    assert {step.provider for core in cores for step in core.plan} == {"north"}


def test_the_quickstart_needs_no_triton() -> None:
    """The quickstart demands heuristics alone, answers every request and reaches every decision."""
    quickstart = policy("quickstart.yaml")
    cores = [core for _, core in decisions(quickstart)]
    assert quickstart.roles == ("heuristics",)
    assert not [core for core in cores if core.outcome == "failed"]
    assert {core.decision for core in cores} >= {d.name for d in quickstart.routing.decisions}
