"""What the names in one routing scope can refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.model_catalog import ModelCard
from agents.policy_model import Routing, kind_of
from agents.signals import SignalConfig, signal

BEYOND = frozenset({"safety", "input_modality", "hallucination"})
"""Types that the package knows and the source does not."""


_BASES = ("privacy_kb", "mmlu_kb")
"""The knowledge bases that the original has where a file declares none."""


def bases_in(catalog: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knowledge bases of ``global.model_catalog`` by name."""
    found = catalog.get("kbs")
    if found is None:
        return dict.fromkeys(_BASES)
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    return {str(row.get("name")): row for row in rows if row.get("name")}


@dataclass(frozen=True, slots=True)
class Scope:
    """The declared names of a routing scope."""

    signals: Mapping[tuple[str, str], SignalConfig]
    """Type and each name by which a leaf may refer to a signal -> the signal."""
    own: frozenset[tuple[str, str]]
    """Type and name of every declared signal."""
    outputs: Mapping[str, str]
    """Projection output -> the score that it is read off."""
    scores: frozenset[str]
    cards: Mapping[str, ModelCard]
    models: frozenset[str]
    """Names of models and adapters with a card; empty if there are no cards."""
    bases: Mapping[str, Any]

    @staticmethod
    def of(routing: Routing, cards: tuple[ModelCard, ...], catalog: Mapping[str, Any]) -> Scope:
        """Return the scope of *routing* with the *cards* and the *catalog* of the whole policy."""
        found: dict[tuple[str, str], SignalConfig] = {}
        for config in routing.declared:
            found |= {(kind_of(config), name): config for name in (*config.names(), config.name)}
        outputs = {band.name: each.source for each in routing.projections.mappings for band in each.outputs}
        adapters = {lora.name for card in cards for lora in card.loras}
        return Scope(
            found,
            frozenset((kind_of(config), config.name) for config in routing.declared),
            outputs,
            frozenset(score.name for score in routing.projections.scores),
            {card.name: card for card in cards},
            frozenset({card.name for card in cards} | adapters),
            bases_in(catalog),
        )

    def declares(self, kind: str, name: str) -> bool:
        """Tell whether *name* is one of the names of a declared signal of type *kind*."""
        if kind == "complexity":
            return (kind, name.partition(":")[0] if name.find(":") > 0 else name) in self.own
        return (kind, name) in self.signals

    def has_domains(self) -> bool:
        """Tell whether any domain is declared; if none is, those that are named are made."""
        return any(kind == "domain" for kind, _ in self.own)


def is_type(kind: str) -> bool:
    """Tell whether leaves may have type *kind*."""
    return kind in signal
