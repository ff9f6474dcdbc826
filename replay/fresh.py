"""Make a sample of decisions again in new processes, each with another hash seed.

Within one process a set has one order, so a decision that leans on it would be made again alike.
Run as ``python -m replay.fresh``: a job in JSON on stdin, the outcome of each case on stdout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import orjson

from agents.errors import Unavailable
from replay.cases import Case
from replay.remake import Raised, Remaker, load_plugins
from schemas.codec import Codec
from schemas.decision import Decision

SEEDS = ("1", "2", "3")
_TIMEOUT_S = 120.0
_TAIL = 400

Remade = tuple[Case, str, Decision | Raised]
"""A case, the hash seed of the process that made it again, and what came of it."""


def remade(
    sample: Sequence[Case], texts: Mapping[str, str], decider: str, seeds: Sequence[str] = SEEDS
) -> Iterator[Remade]:
    """Yield each case of *sample* with each seed and what came of it in that seed's process.

    Raises `Unavailable` if a process cannot run or fails before it decides.
    """
    job = _job(sample, texts, decider)
    running = [(seed, _start(seed)) for seed in seeds]
    try:
        for seed, process in running:
            out, err = process.communicate(job, timeout=_TIMEOUT_S)
            if process.returncode:
                raise Unavailable(f"a fresh process could not decide again: {err.decode()[-_TAIL:].strip()}")
            yield from ((case, seed, now) for case, now in zip(sample, _outcomes(out), strict=True))
    except subprocess.TimeoutExpired:
        raise Unavailable(f"a fresh process took longer than {_TIMEOUT_S:.0f} s to decide again") from None
    finally:
        for _, process in running:
            process.kill()
            with process:  # closes its pipes and waits for its end
                pass


def _start(seed: str) -> subprocess.Popen[bytes]:
    # An environment of its own: nothing but the seed and where to import from reaches the process.
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _job(sample: Sequence[Case], texts: Mapping[str, str], decider: str) -> bytes:
    codec = Codec()
    used = {case.decision.core.policy_hash for case in sample}
    rows = [
        {
            "decision": codec.encode(case.decision).hex(),
            "sets": [[role, codec.encode(found).hex()] for role, found in case.sets],
        }
        for case in sample
    ]
    policies = {key: text for key, text in texts.items() if key in used}
    return orjson.dumps({"decider": decider, "policies": policies, "cases": rows})


def _outcomes(out: bytes) -> list[Decision | Raised]:
    codec = Codec()
    return [
        codec.decode(bytes.fromhex(row["decision"])) if "decision" in row else Raised(row["raised"])
        for row in orjson.loads(out)
    ]


def answer(job: bytes) -> bytes:
    """Return the outcomes of *job*, as the parent reads them."""
    work = orjson.loads(job)
    load_plugins()
    codec = Codec()
    remaker = Remaker(work["policies"], work["decider"])
    rows = []
    for case in work["cases"]:
        logged: Decision = codec.decode(bytes.fromhex(case["decision"]))
        sets = [(role, codec.decode(bytes.fromhex(wire))) for role, wire in case["sets"]]
        made = remaker.again(logged, sets)
        rows.append({"raised": made.error} if isinstance(made, Raised) else _encoded(codec, made))
    return orjson.dumps(rows)


def _encoded(codec: Codec, made: Decision) -> dict[str, str]:
    try:
        return {"decision": codec.encode(made).hex()}
    except Exception as error:  # noqa: BLE001 - a core that no schema takes is a difference, not a crash
        return {"raised": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.stdout.buffer.write(answer(sys.stdin.buffer.read()))
