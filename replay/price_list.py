"""What a call costs: by the policy's prices where it has any, else by public list prices.

List prices are those of the package `genai-prices`, as of its release: nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from agents.model_catalog import Model
from agents.policy import Policy
from replay.importers import Answered

Source = Literal["logged", "policy", "list", "unknown"]


class Prices:
    """Prices of models under the names that a log may have for them, for *policy*."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._listed: dict[str, tuple[float, float] | None] = {}

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
        """Return the policy's name for the model that a log calls *logged*, else that name."""
        return self._names.get(logged) or self._names.get(logged.rpartition("/")[2], logged)

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
        listed = self._list_price(call.model)
        if listed is None:
            return None, "unknown"
        return (tokens[0] * listed[0] + tokens[1] * listed[1]) * call.share / 1_000_000, "list"

    def _list_price(self, model: str) -> tuple[float, float] | None:
        """Return USD per million tokens read and written, None if no list has the model."""
        if model not in self._listed:
            self._listed[model] = _looked_up(model)
        return self._listed[model]


def _priced(model: Model) -> bool:
    """Tell whether the policy states a price in USD; where both are 0 it states none."""
    pricing = model.pricing
    return pricing.currency.upper() == "USD" and (pricing.prompt_per_1m > 0 or pricing.completion_per_1m > 0)


def _looked_up(model: str) -> tuple[float, float] | None:
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - reads its list of a megabyte

    million = 1_000_000
    for name in dict.fromkeys((model, model.rpartition("/")[2])):
        try:
            # One token kind at a time: some prices are per kind only, and tiers begin above this.
            prices = [
                calc_price(usage, model_ref=name).total_price
                for usage in (Usage(input_tokens=1000), Usage(output_tokens=1000))
            ]
        except (LookupError, ValueError):
            continue
        return float(prices[0]) * million / 1000, float(prices[1]) * million / 1000
    return None
