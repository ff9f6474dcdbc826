"""A policy: one hash for one routing, and errors that say where."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.errors import ConfigError, PolicyMissing
from agents.policy import Policy, PolicyBook, endpoints_in
from agents.policy_model import leaf_key
from tests.agents.samples import POLICY, policy

DOCUMENT: dict[str, Any] = yaml.safe_load(POLICY)
FILES = sorted((Path(__file__).parents[2] / "infra" / "policies").glob("*.yaml"))


def loaded(document: Any) -> Policy:
    """Return the policy in *document*, by way of YAML text."""
    return Policy.parse(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def reordered(value: Any) -> Any:
    """Return *value* with the keys of every mapping in reverse order."""
    if isinstance(value, dict):
        return {k: reordered(v) for k, v in reversed(value.items())}
    return [reordered(v) for v in value] if isinstance(value, list) else value


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """Return the document with the value at *path* changed."""
    document = copy.deepcopy(DOCUMENT)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return document


def test_the_order_of_keys_changes_nothing() -> None:
    """The same document with its keys in another order is the same policy, in every respect."""
    turned = loaded(reordered(DOCUMENT))

    assert turned.hash == policy().hash
    assert [leaf_key(s) for s in turned.routing.declared] == [leaf_key(s) for s in policy().routing.declared]
    assert list(turned.routing.demanded) == list(policy().routing.demanded)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_normal_form_is_a_fixed_point(path: Path) -> None:
    """What is read back from the normal form has the same normal form and declares in the same order."""
    first = Policy.parse(path.read_text())
    again = Policy.loads(first.normal_form)

    assert again.normal_form == first.normal_form
    assert re.fullmatch(r"[0-9a-f]{64}", again.hash)
    assert again.routing.declared == first.routing.declared


def test_a_default_that_is_written_out_changes_nothing() -> None:
    """Defaults are part of the normal form, those of plugins too."""
    spelled = changed("routing", "signals", "keywords", 0, "case_sensitive", to=False)
    spelled["routing"]["decisions"][0]["algorithm"] = {"type": "static"}

    assert loaded(spelled).hash == policy().hash


@pytest.mark.parametrize(
    "path_and_value",
    [
        ("providers", "defaults", "default_model", "large"),
        ("providers", "models", 0, "provider_model_id", "small-3"),
        ("providers", "models", 0, "pricing", "prompt_per_1m", 1.5),
        ("providers", "models", 1, "backend_refs", [{"name": "west"}]),
        ("routing", "signals", "keywords", 0, "keywords", ["asap", "urgent"]),
        ("routing", "signals", "embeddings", 0, "threshold", 0.51),
        ("routing", "signals", "metadata", 0, "key", "tier"),
        ("routing", "decisions", 0, "priority", 11),
        ("routing", "decisions", 0, "rules", "operator", "OR"),
        ("routing", "decisions", 1, "modelRefs", 0, "weight", 4),
        ("routing", "decisions", 1, "algorithm", {"type": "weighted", "weighted": {"salt": "b"}}),
        ("recipes", 0, "routing", "decisions", 0, "modelRefs", [{"model": "small"}]),
        ("entrypoints", 0, "model_names", ["other"]),
        ("deadlines", "request_s", 101),
        ("global", {"router": {"auto_model_names": ["auto", "any"]}}),
    ],
    ids=lambda value: ".".join(map(str, value[:-1])),
)
def test_whatever_can_change_a_decision_changes_the_hash(path_and_value: tuple[Any, ...]) -> None:
    """Models, prices, signals, rules, candidates, recipes and deadlines are in the hash."""
    *path, value = path_and_value

    assert loaded(changed(*path, to=value)).hash != policy().hash


@pytest.mark.parametrize(
    "document",
    [
        changed("listeners", to=[{"port": 1}]),
        changed("evaluation", to={"any": "thing"}),
        changed("providers", "models", 0, "backend_refs", 0, "base_url", to="https://elsewhere.example/v1"),
        changed("providers", "models", 0, "backend_refs", 0, "api_key_env", to="OTHER_KEY"),
        changed("providers", "models", 0, "backend_refs", 0, to={"name": "north"}),
    ],
    ids=["listeners", "evaluation", "base_url", "api_key_env", "no endpoint"],
)
def test_settings_are_not_in_the_hash(document: dict[str, Any]) -> None:
    """Where a model is reached and with which key decides nothing."""
    assert loaded(document).hash == policy().hash


def test_no_setting_reaches_the_normal_form() -> None:
    """Endpoints and the names of keys are not stored with the policy."""
    assert "http" not in policy().normal_form
    assert "KEY" not in policy().normal_form


def test_endpoints_are_read_beside_the_policy() -> None:
    """The base URLs of the backend refs are settings, by provider."""
    assert endpoints_in(POLICY) == {"north": "http://127.0.0.1:1/v1"}
    assert endpoints_in("providers: {models: [1, {backend_refs: 3}, {backend_refs: [4, {name: x}]}]}") == {}
    assert endpoints_in("[1]") == {}
    with pytest.raises(ConfigError):
        endpoints_in("[1")


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (changed("providers", "models", 1, "name", to="small"), "providers.models"),
        (changed("providers", "defaults", "default_model", to="gone"), "providers.defaults.default_model"),
        (changed("routing", "strategy", to="random"), "routing.strategy"),
        (changed("routing", "signals", "keywords", 0, "operator", to="XOR"), "keywords.0.operator"),
        (changed("routing", "signals", "keywords", to={}), "routing.signals.keywords"),
        (
            changed("routing", "signals", "keywords", 1, "name", to="urgent"),
            "routing.signals.keywords",
        ),
        (changed("routing", "decisions", 1, "rules", "name", to="gone"), "keyword:gone"),
        (changed("routing", "decisions", 1, "name", to="legal"), "'legal' is declared twice"),
        (
            changed("routing", "decisions", 1, "modelRefs", 0, "model", to="gone"),
            "routing.decisions.1.modelRefs.0",
        ),
        (changed("routing", "decisions", 1, "algorithm", "weighted", to={"x": 1}), "weighted.x"),
        (changed("routing", "decisions", 0, "rules", "conditions", 0, "on_unknown", to="?"), "on_unknown"),
        (
            changed("recipes", 0, "routing", "decisions", 0, "modelRefs", 0, "model", to="gone"),
            "recipes.0.routing.decisions.0.modelRefs.0",
        ),
        (changed("recipes", 0, "name", to="(bypass)"), "recipes"),
        (changed("entrypoints", 0, "recipe", to="gone"), "entrypoints.0"),
        (changed("deadlines", "request_s", to=float("inf")), "deadlines.request_s"),
        (changed("deadlines", "attempts", to=0), "deadlines.attempts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_error_names_its_place(document: dict[str, Any], named: str) -> None:
    """A policy that cannot be used is refused with the file and the path of what is wrong."""
    with pytest.raises(ConfigError, match=r"^here:\d+:\d+: ") as caught:
        Policy.parse(yaml.safe_dump(document), "here")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: b: c", "\t", "{a: 2001-99-99}", "x: !!int ''", "x: !!bool maybe", "{[1]: 2}", "&a [*a]"],
)
def test_text_that_is_no_mapping_is_a_config_error(text: str) -> None:
    """Whatever the YAML library makes of it, the caller sees a ConfigError."""
    with pytest.raises(ConfigError):
        Policy.parse(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "[" * 100_000])
def test_a_broken_normal_form_is_a_config_error(text: str) -> None:
    """A record of control.policy that holds no policy is refused, not a crash."""
    with pytest.raises(ConfigError):
        Policy.loads(text)


def test_rules_have_a_greatest_depth() -> None:
    """32 levels of rules load; one more, or a thousand, is an error that says so."""

    def nested(levels: int) -> dict[str, Any]:
        rules: dict[str, Any] = {"type": "keyword", "name": "urgent"}
        for _ in range(levels):
            rules = {"operator": "NOT", "conditions": [rules]}
        return changed("routing", "decisions", 1, "rules", to=rules)

    assert loaded(nested(32)).hash
    for levels in (33, 100):
        with pytest.raises(ConfigError, match="nested"):
            loaded(nested(levels))
    deep = '{"operator": "NOT", "conditions": [' * 5000
    with pytest.raises(ConfigError):
        Policy.parse(f"routing: {{decisions: [{{name: a, rules: {deep}")


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Iterate over the paths of everything inside *value*."""
    found = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in found:
        yield (*prefix, key)
        yield from paths(inside, (*prefix, key))


PATHS = sorted(paths(DOCUMENT), key=str)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["small", "keyword", "AND", "infK", "99999M", "(", "\\1", "auto", "(bypass)", "ꙮ", "a\0b"]
    ),
    st.lists(st.one_of(st.text(max_size=2), st.integers(), st.none()), max_size=2),
    st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.text(max_size=2)), max_size=2),
    st.sampled_from(
        [DOCUMENT["routing"]["decisions"][0], DOCUMENT["routing"]["signals"], {1: 2}, {None: {}}]
    ),
)


@settings(max_examples=500)
@given(st.lists(st.tuples(st.sampled_from(PATHS), JUNK, st.booleans()), min_size=1, max_size=3))
def test_a_mutated_policy_loads_or_is_a_config_error(
    mutations: list[tuple[tuple[Any, ...], Any, bool]],
) -> None:
    """Whatever is put in, or left out, anywhere: a policy that reads back as itself, or a ConfigError."""
    document = copy.deepcopy(DOCUMENT)
    for path, junk, removed in mutations:
        place: Any = document
        try:
            for key in path[:-1]:
                place = place[key]
            if removed:
                del place[path[-1]]
            else:
                place[path[-1]] = junk
        except (KeyError, IndexError, TypeError):
            continue
    text = yaml.safe_dump(document)
    try:
        found = Policy.parse(text)
    except ConfigError as error:
        assert re.match(r"policy:\d+:\d+: ", str(error))  # noqa: PT017 - most mutations are refused, some load
        return

    assert Policy.loads(found.normal_form).hash == found.hash


def test_a_request_runs_the_recipe_that_its_model_names() -> None:
    """No model or an automatic name runs the root, an entrypoint its recipe, a backend's name none."""
    under = policy()

    assert under.recipe_for("") == under.recipe_for("auto") == ""
    assert under.recipe_for("lab-model") == "lab"
    assert under.routing_of(str(under.recipe_for("large"))) is None
    assert under.demand(str(under.recipe_for("large"))) == {}
    assert under.recipe_for("gone") is None


def test_only_what_a_decision_refers_to_is_demanded() -> None:
    """Declared signals of a type that no rule of the recipe names are not computed."""
    under = policy()

    assert {r: [s.name for s in found] for r, found in under.demand("").items()} == {
        "embedding": ["law"],
        "heuristics": ["urgent", "unused", "paying"],
    }
    assert under.demand("lab") == {}
    assert under.roles == ("embedding", "heuristics")


def test_a_call_is_priced_by_its_model() -> None:
    """Prices are USD per million tokens; a model without prices costs nothing."""
    assert policy().cost_usd("small", 1_000_000, 500_000) == 2.0
    assert policy().cost_usd("large", 10, 10) == 0.0


def test_a_book_says_which_policy_has_not_been_read() -> None:
    """A stamped policy that was not read back is missing, which is a reason to wait."""
    book = PolicyBook([policy()])

    assert policy().hash in book
    assert book[policy().hash] == policy()
    assert [p.hash for p in book] == [policy().hash]
    with pytest.raises(PolicyMissing):
        book["0" * 64]
