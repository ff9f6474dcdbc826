"""Random policies and signals, and the nested columns that logged signals come in.

A world is one policy with some signal vectors. Everything is drawn from one `random.Random`, so that a
seed is enough to see a world again; names, numbers and shapes are few, so that ties, shared leaves,
overlapping partitions and repeated conditions come up often.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.signal import Observations

Json = dict[str, Any]

_STRUCT = pa.struct(
    [
        ("type", pa.string()),
        ("name", pa.string()),
        ("label", pa.string()),
        ("matched", pa.bool_()),
        ("confidence", pa.float64()),
        ("value", pa.float64()),
        ("status", pa.string()),
    ]
)
_NUMBERS = (0.0, 0.1, 0.25, 1 / 3, 0.5, 0.5, 0.7, 0.72, 0.9, 1.0, 1.0, 1.5, -0.2)
_KINDS = ("keyword", "domain", "embedding", "structure", "pii", "authz", "jailbreak")
_NAMES = ("a", "b", "c", "dd", "é", "Z")
_OPERATORS = ("AND", "AND", "OR", "OR", "NOT", "not", " AND ", "XOR", None)
_CATEGORIES = ("law", "math", "a")
_LEVELS = ("hard", "medium", "easy")


def column(rows: Sequence[Observations]) -> pa.Array:
    """Return *rows* as a list of structs, a row each."""
    names = [field.name for field in _STRUCT]
    return pa.array(
        [[{name: getattr(seen, name) for name in names} for seen in row] for row in rows],
        type=pa.list_(_STRUCT),
    )


def lists(rows: Sequence[Observations]) -> pa.Array:
    """Return *rows* as a struct of lists with dictionary-encoded text, a row each."""
    arrays = []
    for field in _STRUCT:
        kind = pa.dictionary(pa.int16(), pa.string()) if pa.types.is_string(field.type) else field.type
        arrays.append(pa.array([list(getattr(row, field.name)) for row in rows], type=pa.list_(kind)))
    return pa.StructArray.from_arrays(arrays, names=[field.name for field in _STRUCT])


@dataclass(frozen=True)
class World:
    """A configuration and the signals of some requests, in the form of the golden cases."""

    config: Json
    signals: tuple[Json, ...]


def world(seed: int, requests: int) -> World:
    """Return the world of *seed* with that many *requests*."""
    draw = _Drawing(random.Random(seed))
    config = draw.config()
    return World(config, tuple(draw.signals(config) for _ in range(requests)))


def of_matches(given: World) -> World:
    """Return *given* with decisions of different ranks that ask no number: matches alone tell who wins."""
    routing = {key: part for key, part in given.config["routing"].items() if key != "projections"}
    routing["strategy"] = "priority"
    tiered = any(decision.get("tier") for decision in routing["decisions"])
    routing["decisions"] = [
        _unmeasured(decision) | {"priority": 5 * number % 8} | ({"tier": 9 - number} if tiered else {})
        for number, decision in enumerate(routing["decisions"])
    ]
    catalog = {"embeddings": {"semantic": {"embedding_config": {"top_k": 0}}}}
    return World({"routing": routing, "global": {"model_catalog": catalog}}, given.signals)


def _unmeasured(node: Json) -> Json:
    """Return the decision or condition *node* without predicates."""
    found = {key: part for key, part in node.items() if key not in {"predicate", "label"}}
    if "rules" in found:
        found["rules"] = _unmeasured(found["rules"])
    if "conditions" in found:
        found["conditions"] = [_unmeasured(each) for each in found["conditions"]]
    return found


class _Drawing:
    """Draws the parts of a world."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.some = chance.choice

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    def number(self) -> float:
        return self.some(_NUMBERS) if self.often(0.6) else self.chance.uniform(-0.5, 1.5)

    def config(self) -> Json:
        routing: Json = {"signals": self._declared()}
        if self.often(0.7):
            routing["projections"] = self._projections()
        self.outputs = [
            band["name"]
            for mapping in routing.get("projections", {}).get("mappings", [])
            for band in mapping["outputs"]
        ]
        routing["strategy"] = self.some(("priority", "priority", "confidence", "fuzzy", ""))
        if self.often(0.3):
            routing["untiered"] = "last"
        tiered = self.often(0.3)
        routing["decisions"] = [self._decision(i, tiered=tiered) for i in range(self.chance.randint(1, 7))]
        catalog = {"embeddings": {"semantic": {"embedding_config": {"top_k": self.some((0, 0, 1, 2))}}}}
        return {"routing": routing, "global": {"model_catalog": catalog} if self.often(0.8) else {}}

    def _declared(self) -> Json:
        signals: Json = {
            "domains": [
                {"name": name, "mmlu_categories": [c for c in _CATEGORIES if self.often(0.4)]}
                for name in ("a", "b", "c", "math")
            ],
            "embeddings": [{"name": name} for name in _NAMES],
            "complexity": [{"name": "depth"}],
        }
        if self.often(0.3):
            signals["complexity"][0]["composer"] = self._composer(2)
        return signals

    def _composer(self, depth: int) -> Json:
        if depth == 0 or self.often(0.4):
            return {"type": self.some(_KINDS), "name": self.some(_NAMES)}
        children = [self._composer(depth - 1) for _ in range(self.chance.randint(0, 2))]
        return {"operator": self.some(("AND", "OR", "not", "NOR", "")), "conditions": children}

    def _projections(self) -> Json:
        found: Json = {}
        if self.often(0.6):
            found["partitions"] = [
                self._partition(kind, i)
                for i, kind in enumerate(self.some((("domain",), ("embedding",) * 2)))
            ]
        names = [f"s{i}" for i in range(self.chance.randint(0, 3))]
        found["mappings"] = [self._mapping(name) for name in names if self.often(0.9)]
        bands = [band["name"] for mapping in found["mappings"] for band in mapping["outputs"]]
        found["scores"] = [self._score(i, names, bands) for i in range(len(names))]
        # Declared in another order than they are computed in.
        self.chance.shuffle(found["scores"])
        return found

    def _partition(self, kind: str, index: int) -> Json:
        names = ("a", "b", "c", "math") if kind == "domain" else _NAMES
        members = self.chance.sample(names, self.chance.randint(1, 4))
        found = {
            "name": f"p{index}",
            "members": members,
            "semantics": self.some(("exclusive", "softmax_exclusive")),
        }
        return found | {"default": self.some(members), "temperature": self.some((0.05, 0.5, 2.5))}

    def _score(self, index: int, names: Sequence[str], bands: Sequence[str]) -> Json:
        inputs = [self._term() for _ in range(self.chance.randint(0, 4))]
        for earlier in names[:index]:
            own = [band for band in bands if band.startswith(earlier)]
            if own and self.often(0.3):
                inputs.append({"type": "projection", "name": self.some(own), "value_source": "confidence"})
            elif self.often(0.5):
                inputs.append(
                    {"type": "projection", "name": earlier, "value_source": self.some(("score", ""))}
                )
        for term in inputs:
            term["weight"] = self.some((1.0, 0.5, -0.4, 1 / 3, self.number()))
        self.chance.shuffle(inputs)
        return {"name": names[index], "method": "weighted_sum", "inputs": inputs}

    def _term(self) -> Json:
        if self.often(0.1):
            return {"type": "kb_metric", "kb": "k", "metric": "best_score"}
        term: Json = {"type": self.some(_KINDS), "name": self.some(_NAMES)}
        how = self.some(("binary", "confidence", "raw", None))
        if how:
            term["value_source"] = how
        if self.often(0.3):
            term |= {"match": self.some((0.0, 2.0, -1.0)), "miss": self.number()}
        return term

    def _mapping(self, source: str) -> Json:
        outputs = [{"name": f"{source}_{i}", **self._bounds()} for i in range(self.chance.randint(1, 3))]
        found: Json = {"name": f"m_{source}", "source": source, "outputs": outputs}
        if self.often(0.5):
            found["method"] = self.some(("threshold_bands", "multi_emit"))
        if self.often(0.4):
            found["calibration"] = {"slope": self.some((0.0, -1.0, 1.0, 30.0))}
        return found

    def _bounds(self) -> Json:
        low, high = sorted((self.number(), self.number()))
        shape = self.some(("low", "high", "both"))
        found: Json = {}
        if shape != "high":
            found[self.some(("gt", "gte"))] = low
        if shape != "low":
            found[self.some(("lt", "lte"))] = high
        return found

    def _decision(self, index: int, *, tiered: bool) -> Json:
        found: Json = {"name": f"{self.some(('x', 'Z', 'é'))}{index}"}
        if self.often(0.9):
            found["rules"] = self._node(self.chance.randint(0, 3))
        if self.often(0.8):
            found["priority"] = self.some((0, 1, 1, 5, -3))
        if tiered and self.often(0.5):
            found["tier"] = self.some((0, 1, 2))
        return found

    def _node(self, depth: int) -> Json:
        if self.often(0.03):
            return self.some(({}, {"name": "stray"}, {"operator": "OR"}, {"operator": "AND"}))
        if depth == 0 or self.often(0.15):
            return self._leaf()
        operator = self.some(_OPERATORS)
        count = 1 if operator in {"NOT", "not"} and self.often(0.9) else self.chance.randint(0, 3)
        found: Json = {"conditions": [self._node(depth - 1) for _ in range(count)]}
        return found | ({"operator": operator} if operator else {})

    def _leaf(self) -> Json:
        kind = self.some((*_KINDS, "projection", "complexity", "classifier"))
        names: Sequence[str] = _NAMES
        if kind == "projection":
            names = self.outputs or ("none",)
        elif kind == "complexity":
            names = [f"depth:{level}" for level in _LEVELS]
        leaf: Json = {"type": self.some((kind, kind, kind.upper())), "name": self.some(names)}
        if kind == "classifier":
            leaf |= {"name": "mood", "label": self.some(("calm", "angry")), "predicate": self._bounds()}
        elif self.often(0.15):
            leaf["predicate"] = self._bounds()
        if self.often(0.2):
            leaf["on_error"] = self.some(("match", "no_match"))
        if self.often(0.2):
            leaf["on_unknown"] = self.some(("match", "no_match", "fail_request"))
        return leaf

    def signals(self, config: Json) -> Json:
        del config
        found: Json = {"matches": {}, "confidences": {}, "values": {}, "errors": {}, "kb_metrics": {}}
        if self.often(0.5):
            found["kb_metrics"]["kb_metric:k:best_score"] = self.number()
        for kind in (*_KINDS, "complexity"):
            names = list(_NAMES) if kind != "complexity" else [f"depth:{self.some(_LEVELS)}"]
            if kind == "domain":
                names += ["law", "math"]
            self.chance.shuffle(names)
            self._observed(found, kind, [name for name in names if self.often(0.6)])
        for label in ("calm", "angry"):
            if self.often(0.5):
                found["values"][f"classifier:mood:{label}"] = self.number()
        if self.often(0.2):
            found["errors"]["classifier:mood"] = "timeout"
        return found

    def _observed(self, found: Json, kind: str, names: Sequence[str]) -> None:
        for name in names:
            key = f"{kind}:{name}"
            if kind != "complexity" and self.often(0.1):
                found["errors"][key] = "down"
                continue
            if self.often(0.7):
                found["matches"].setdefault(kind, []).append(name)
                if self.often(0.7):
                    found["confidences"][key] = self.number()
            elif kind == "structure":
                found["confidences"][key] = 0.0
            if self.often(0.3):
                found["values"][key] = self.number()


def is_close(one: float, other: float) -> bool:
    """Tell whether two confidences are the same to the last bit."""
    return one.hex() == other.hex() or (math.isnan(one) and math.isnan(other))
