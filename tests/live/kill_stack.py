"""The stack that a kill run kills: its policy, its providers, its classifier, its deployment."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from agents.policy import Policy
from infra.local.deployment import Endpoints, Needs, WorkerSpec
from infra.local.events import Report, silent
from infra.local.routing import Routing
from infra.local.stack import LocalStack, StackConfig
from streams.app import load_registries
from streams.claims import ClaimCheck, ClaimLimits
from streams.clients.claims import FileClaims
from streams.settings import claims_folder
from tests.live.kill_entry import CLOCK, FULL, SABOTAGE, room
from triton_models.build import Options, build

# A dead worker's calls are taken over after call_s and a margin; the
# longest simulated call (3 s) is a quarter of it.
_POLICY = """
providers:
  defaults: {default_model: north-small}
  models:
    - {name: north-small, backend_refs: [{name: north}]}
    - {name: north-large, backend_refs: [{name: north}]}
    - {name: south-coder, backend_refs: [{name: south}]}
routing:
  signals:
    keywords:
      - {name: even, operator: OR, keywords: [even]}
    embeddings:
      - {name: similar, threshold: 0.0, candidates: [anything at all]}
  decisions:
    - name: coder
      priority: 20
      rules: {operator: AND, conditions: [{type: keyword, name: even}]}
      modelRefs: [{model: south-coder}, {model: north-large}]
    - name: drawn
      priority: 10
      rules: {operator: OR, conditions: [{type: embedding, name: similar}]}
      modelRefs: [{model: north-large, weight: 1}, {model: south-coder, weight: 1}]
      algorithm: {type: weighted}
deadlines: {call_s: CALL_S, infer_s: 10, request_s: 3600, attempts: 3}
"""
_MODEL = """
        latency: {ttft_median_ms: TTFT, per_token_ms: TOKEN}
        length: {median: 70, sigma: 0.8, minimum: 1, maximum: 150}
        faults: FAULTS"""
_NO_FAULTS, _FAULTS = "{}", "{error: 0.02, rate_limit: 0.02}"
_PROFILE = f"""
providers:
  north:
    models:
      north-small:{_MODEL}
      north-large:{_MODEL}
  south:
    models:
      south-coder:{_MODEL}
"""
DECISION_WORKERS = 3
CALL_S, LONGEST_CALL_S = 12.0, 3.0
INLINE_BYTES = 600
"""Above this a body or an answer goes by claim check: few, but some of both."""
ENTRY = "tests.live.kill_entry"


class KillDeployment(Routing):
    """The product's own deployment, over a classifier of constant time; its workers have *sabotage*."""

    def __init__(self, policy: Policy, folder: Path, sabotage: str) -> None:
        super().__init__(policy, DECISION_WORKERS)
        self._repository = _repository(folder / "models")
        self._stack_folder = folder
        self._sabotage = sabotage

    def needs(self) -> Needs:
        """Return the encoder's name, in a repository where a constant-time model answers to it."""
        return Needs(("encoder",), self._repository)

    def workers(self, endpoints: Endpoints) -> tuple[WorkerSpec, ...]:
        """Return the product's workers, run by the kill run's entry."""
        return tuple(self._ours(spec) for spec in super().workers(endpoints))

    def _ours(self, spec: WorkerSpec) -> WorkerSpec:
        argv = tuple(ENTRY if part == "signalbox" else part for part in spec.argv)
        clock = str(clock_file(self._stack_folder, spec.role, spec.instance))
        ports = {CLOCK: clock, FULL: str(full_file(self._stack_folder)), SABOTAGE: self._sabotage}
        claims = {
            "SIGNALBOX_CLAIMS": str(claims_folder(self._stack_folder)),
            "SIGNALBOX_INLINE_BYTES": str(INLINE_BYTES),
        }
        return replace(spec, argv=argv, env={**spec.env, **claims, **ports})


def kill_policy(pace: float = 1.0) -> Policy:
    """Return the policy of a kill run: two signal roles, two providers, three models.

    *pace* stretches calls and their timeout alike.
    """
    load_registries()
    return Policy.parse(_POLICY.replace("CALL_S", f"{CALL_S * pace:g}"), "the kill run's policy")


def profile_text(pace: float = 1.0, *, faults: bool = False) -> str:
    """Return the simulator's profile, its longest call *pace* times `LONGEST_CALL_S`."""
    text = _PROFILE.replace("FAULTS", _FAULTS if faults else _NO_FAULTS)
    return text.replace("TTFT", f"{600 * pace:g}").replace("TOKEN", f"{16 * pace:g}")


def clock_file(folder: Path, role: str, instance: int) -> Path:
    """Return the file that shifts a worker's clock while it holds a number of ms."""
    return folder.absolute() / f"clock-{role}-{instance}"


def full_file(folder: Path) -> Path:
    """Return the file that takes all room from the claim store while it exists."""
    return folder.absolute() / "claims-full"


def kill_claims(folder: Path) -> ClaimCheck:
    """Return the claim check of whoever submits; it shares the workers' store and its fate."""
    store = FileClaims(claims_folder(folder), free=room(full_file(folder)))
    return ClaimCheck(store, ClaimLimits(inline_bytes=INLINE_BYTES))


def kill_stack(
    folder: Path, seed: int, report: Report = silent, *, sabotage: str = "", faults: bool = False
) -> LocalStack:
    """Return the stack, not started, with everything that it keeps in *folder*; *report* hears of it.

    With *faults* the providers fail and refuse some calls, so that further attempts are made.
    """
    folder.mkdir(parents=True)
    profile = folder / "profile.yaml"
    profile.write_text(profile_text(faults=faults), encoding="utf-8")
    deployment = KillDeployment(kill_policy(), folder, sabotage)
    return LocalStack(StackConfig(folder, profile=profile, seed=seed), deployment, report=report)


def _repository(folder: Path) -> Path:
    """Build the constant-time model and let it answer to the encoder's name."""
    build(folder, folder.with_name("model-cache"), Options(models=("constant",)))
    shutil.move(folder / "constant", folder / "encoder")
    config = folder / "encoder" / "config.pbtxt"
    config.write_text(config.read_text(encoding="utf-8").replace('name: "constant"', 'name: "encoder"', 1))
    return folder
