"""The shipped case of ``bench signals``: 30 literal rules of three words, and what else a request meets.

Prompts of 64 words differ from each other, so that nothing can be answered by having seen the text.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import orjson

from agents.content import Content
from agents.policy import Policy
from replay.previewing import Previewer

_TEXT = (
    "please compare the two invoices and list the differences between them because the harbour pump "
    "lost pressure last night after the courier left a parcel near the green door while our choir "
    "rehearsed in the old hall and the dashboard showed a critical drop in throughput since noon so "
    "tell me what changed why it did and how we might fix that very soon"
)
_PROMPT = _TEXT.split()
_LANGUAGES = ("de", "fr", "es")
_PROMPTS = 500
_ROUNDS = 5


def measured() -> Mapping[str, float]:
    """Return CPU milliseconds a request, the median of rounds: without and with three language rules."""
    return {
        "heuristics_ms": _cost(languages=()),
        "with_language_ms": _cost(languages=_LANGUAGES),
        "requests": float(_PROMPTS * _ROUNDS),
        "words": float(len(_PROMPT)),
    }


def _cost(languages: tuple[str, ...]) -> float:
    previewer = Previewer(policy(languages))
    bodies = [body(number) for number in range(_PROMPTS)]
    rounds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for raw in bodies:
            previewer.decide(previewer.observe(Content(raw)))
        rounds.append((time.process_time() - began) * 1000 / len(bodies))
    return round(statistics.median(rounds), 4)


def body(number: int) -> bytes:
    """Return the body of request *number*: the prompt, turned and with a word of its own."""
    turned = _PROMPT[number % len(_PROMPT) :] + _PROMPT[: number % len(_PROMPT)]
    turned[number % 7] = f"case{number}"
    return orjson.dumps({"model": "auto", "messages": [{"role": "user", "content": " ".join(turned)}]})


def policy(languages: tuple[str, ...]) -> Policy:
    """Return the policy of the case, with a rule for each of *languages*."""
    signals = {
        "keywords": [_keyword(number) for number in range(30)],
        "context": [{"name": f"c{n}", "min_tokens": n * 50, "max_tokens": "1K"} for n in range(3)],
        "structure": [
            _structure("questions", "count", {"type": "regex", "pattern": "[?]"}),
            _structure("steps", "density", {"type": "keyword_set", "keywords": ["first", "then", "finally"]}),
        ],
        "conversation": [
            {"name": "tools", "feature": {"type": "exists", "source": {"type": "tool_definition"}}}
        ],
        "language": [{"name": code, "threshold": 0.5} for code in languages],
    }
    leaves = [("keyword", "k0"), ("context", "c1"), ("structure", "questions"), ("keyword", "k7")]
    leaves += [("structure", "steps"), ("conversation", "tools"), ("keyword", "k13")]
    leaves += [("language", code) for code in languages]
    routing = {"signals": signals, "decisions": [_decision(number, leaves) for number in range(10)]}
    models = [{"name": "small", "backend_refs": [{"name": "north"}]}]
    document = {"version": "v0.3", "providers": {"models": models}, "routing": routing}
    # JSON is YAML.
    return Policy.parse(orjson.dumps(document).decode(), "bench")


def _keyword(number: int) -> dict[str, Any]:
    words = [f"alpha{number}", _PROMPT[number * 5 % len(_PROMPT)], f"omega{number}"]
    return {"name": f"k{number}", "operator": ("OR", "AND", "NOR")[number % 3], "keywords": words}


def _structure(name: str, kind: str, source: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "feature": {"type": kind, "source": source}, "predicate": {"gte": 0.05}}


def _decision(number: int, leaves: list[tuple[str, str]]) -> dict[str, Any]:
    chosen = [leaves[(number + step) % len(leaves)] for step in range(3)]
    conditions = [{"type": kind, "name": name} for kind, name in chosen]
    return {
        "name": f"d{number}",
        "priority": number,
        "rules": {"operator": ("AND", "OR")[number % 2], "conditions": conditions},
        "modelRefs": [{"model": "small"}],
    }
