"""What a call costs: by the policy's prices where it has any, else by public list prices.

List prices are those of the package `genai-prices` at the time of a call: nothing is fetched, and what a call
cost does not depend on when that is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from agents.model_catalog import Model
from agents.policy import Policy
from replay.importers import Answered

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

Source = Literal["logged", "policy", "list", "unknown"]

UNTIMED = datetime(2026, 11, 25, 12, tzinfo=UTC)
"""The time for which the list is read where a log does not tell a call's; the list knows prices to come."""
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_MILLION = 1_000_000
_SOME = 1000
"""Tokens by which a price is read off: tiers begin above this."""


class Prices:
    """Prices of models under the names that a log may have for them, for *policy*."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._listed: dict[str, ModelInfo | None] = {}
        self._rates: dict[int, tuple[ModelPrice, tuple[float, float]]] = {}

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """Every name of a model -> its name in the policy; its own name wins over another's alias."""
        found: dict[str, str] = {}
        for model in self._policy.providers.models:
            for alias in (model.provider_model_id, *model.external_model_ids.values()):
                if alias:
                    found.setdefault(alias, model.name)
        return found | {name: name for name in self._policy.models}

    def own_name(self, logged: str) -> str:
        """Return the policy's name for the model that a log calls *logged*, else that name.

        A dated snapshot goes by the name without the date, unless the policy names it with the date.
        """
        undated = _DATED.sub("", logged)
        for name in (logged, _bare(logged), undated, _bare(undated)):
            if name in self._names:
                return self._names[name]
        return logged

    def would(self, name: str, prompt: int, completion: int) -> float | None:
        """Return USD for a call to the policy's model *name*, None if the policy has no price for it."""
        model = self._policy.models.get(name)
        if model is None or not _priced(model):
            return None
        return self._policy.cost_usd(name, prompt, completion)

    def paid(self, call: Answered) -> tuple[float | None, Source]:
        """Return USD that *call* did cost, and who says so."""
        if call.paid_usd is not None:
            return call.paid_usd, "logged"
        if call.prompt_tokens is None or call.completion_tokens is None:
            return None, "unknown"
        tokens = (call.prompt_tokens, call.completion_tokens)
        own = self.would(self.own_name(call.model), *tokens)
        if own is not None:
            return own * call.share, "policy"
        listed = self._list_price(call.model, call.at or UNTIMED)
        if listed is None:
            return None, "unknown"
        return (tokens[0] * listed[0] + tokens[1] * listed[1]) * call.share / _MILLION, "list"

    def _list_price(self, model: str, at: datetime) -> tuple[float, float] | None:
        """Return USD per million tokens read and written at *at*, None if no list has the model."""
        if model not in self._listed:
            self._listed[model] = _looked_up(model)
        found = self._listed[model]
        if found is None:
            return None
        prices = found.get_prices(at)
        if id(prices) not in self._rates:  # kept with it, so that no other object gets its id
            self._rates[id(prices)] = prices, _rates(prices)
        return self._rates[id(prices)][1]


def _bare(name: str) -> str:
    """Return *name* without who serves it."""
    return name.rpartition("/")[2]


def _priced(model: Model) -> bool:
    """Tell whether the policy states a price in USD; where both are 0 it states none."""
    pricing = model.pricing
    return pricing.currency.upper() == "USD" and (pricing.prompt_per_1m > 0 or pricing.completion_per_1m > 0)


def _looked_up(model: str) -> ModelInfo | None:
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - reads its list of a megabyte

    for name in dict.fromkeys((model, _bare(model))):
        try:
            return calc_price(Usage(), model_ref=name, genai_request_timestamp=UNTIMED).model
        except (LookupError, ValueError):
            continue
    return None


def _rates(prices: ModelPrice) -> tuple[float, float]:
    """Return USD per million tokens read and written, one kind at a time: some prices are per kind only."""
    from genai_prices import Usage  # noqa: PLC0415 - as above

    read, written = (
        prices.calc_price(usage)["total_price"]
        for usage in (Usage(input_tokens=_SOME), Usage(output_tokens=_SOME))
    )
    return float(read) * _MILLION / _SOME, float(written) * _MILLION / _SOME
