"""Values that the tests of the agents start from: a policy, requests, jobs, observations."""

from dataclasses import replace
from typing import Any

import orjson

import agents.providers
import agents.selectors
import agents.signals
from agents.admission import Admission, Line, read_line
from agents.policy import Policy
from agents.providers import provider
from agents.selectors import selector
from agents.signals import NAN, signal
from schemas.decision import Decision as DecisionRecord
from schemas.decision import DecisionCore, DecisionMeta, Facts, PlanStep, Trace
from schemas.identity import Origin
from schemas.job import Job
from schemas.request import Request
from schemas.signal import Observation

signal.load(agents.signals)
selector.load(agents.selectors)
provider.load(agents.providers)

NOW = 1_800_000_000_000
SECRET = "the patient is Greta Lindqvist"

POLICY = """
providers:
  defaults: {default_model: small}
  models:
    - name: small
      provider_model_id: small-2
      pricing: {prompt_per_1m: 1.0, completion_per_1m: 2.0}
      backend_refs: [{name: north, base_url: "http://127.0.0.1:1/v1", api_key_env: KEY}]
    - name: large
      backend_refs: [{name: south}]
routing:
  signals:
    metadata:
      - {name: paying, key: plan, equals: gold}
    keywords:
      - {name: urgent, operator: OR, keywords: [urgent, asap]}
      - {name: unused, operator: OR, keywords: [nothing]}
    embeddings:
      - {name: law, threshold: 0.5, candidates: [contract law, court case]}
  decisions:
    - name: legal
      priority: 10
      rules: {operator: AND, conditions: [{type: embedding, name: law}, {type: metadata, name: paying}]}
      modelRefs: [{model: large}, {model: small}]
    - name: split
      priority: 5
      rules: {type: keyword, name: urgent}
      modelRefs: [{model: small, weight: 3}, {model: large, weight: 1}]
      algorithm: {type: weighted, weighted: {salt: a}}
recipes:
  - name: lab
    routing: {decisions: [{name: all, modelRefs: [{model: large}]}]}
entrypoints:
  - {model_names: [lab-model], recipe: lab}
deadlines: {request_s: 100, call_s: 7, infer_s: 2, attempts: 2}
"""


def policy(text: str = POLICY) -> Policy:
    """Return the policy in *text* as a worker reads it back."""
    return Policy.loads(Policy.parse(text).normal_form)


def line(text: str = "urgent: help", *, model: str = "auto", number: int = 1, **body: Any) -> Line:
    """Return a batch line with one user turn."""
    raw = {"custom_id": f"line-{number}", "body": {"model": model, **body}}
    raw["body"]["messages"] = [{"role": "user", "content": text}]  # type: ignore[index]
    return read_line(number, orjson.dumps(raw))


def request(text: str = "urgent: help", *, under: Policy | None = None, **kwargs: Any) -> Request:
    """Return the request of a batch line with one user turn."""
    return Admission(under or policy(), "acme", NOW, "run").batch(line(text, **kwargs))


def observation(  # noqa: PLR0913 - the parts of one observation
    kind: str,
    name: str,
    *,
    matched: bool = False,
    confidence: float = NAN,
    value: float = NAN,
    status: str = "ok",
) -> Observation:
    """Return an observation of signal *kind*:*name*."""
    return Observation(kind, name, "", matched, confidence, value, status, "")


def job(**changes: Any) -> Job:
    """Return the first job of a request with a plan of two models, *changes* applied."""
    asked = request()
    first = Job(
        request_id=asked.request_id,
        origin=Origin(0, 4),
        step=0,
        branch=0,
        attempt=0,
        provider="north",
        model="small",
        plan=(PlanStep("north", "small", 2, 7000), PlanStep("south", "large", 2, 7000)),
        plan_index=0,
        tries=2,
        decision="split",
        body=asked.body,
        endpoint=asked.endpoint,
        call_timeout_ms=7000,
        not_before=0,
        deadline=asked.deadline,
        accepted_at=asked.accepted_at,
        policy_hash=asked.policy_hash,
        recipe="",
        tenant=asked.tenant,
        run=asked.run,
        custom_id=asked.custom_id,
        line=asked.line,
    )
    return replace(first, **changes)


def decision(asked: Request, origin: Origin, **changes: Any) -> DecisionRecord:
    """Return a decision to route *asked* to the small model, *changes* applied to its core."""
    core = DecisionCore(
        policy_hash=asked.policy_hash,
        recipe=asked.recipe,
        outcome="routed",
        failure="",
        decision="split",
        rule=Trace(),
        candidates=("small", "large"),
        scores=(3.0, 1.0),
        propensities=(0.75, 0.25),
        chosen="small",
        plan=(PlanStep("north", "small", 2, 7000), PlanStep("south", "large", 2, 7000)),
        signals_used=(),
        signals_missing=(),
        selector="weighted",
        salt="a",
        draw=0.1,
        facts=Facts(),
    )
    return DecisionRecord(asked.request_id, origin, replace(core, **changes), DecisionMeta((), NOW, 0))
