"""Reading whole configurations: what is refused, odd, ignored; what the normal form holds; mutations."""

import copy
import gzip
import json
import os
import random
import re
import textwrap
import time
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
import yaml

from agents.errors import ConfigError
from agents.loading.findings import Finding, findings
from agents.loading.modernizing import modernized
from agents.loading.schema import schema_of
from agents.policy import Policy
from tests.agents import samples

ROOT = Path(__file__).parents[3]
CASES = ROOT / "tests" / "contracts" / "golden_policy" / "load_cases.jsonl.gz"
SHIPPED = sorted((ROOT / "infra" / "policies").glob("*.yaml"))
MUTATIONS = int(os.environ.get("MUTATIONS", "600"))  # noqa: TID251 - how long the test may take
HEAD = """version: v0.3
providers:
  defaults: {default_model: small}
  models: [{name: small, backend_refs: [{name: north, endpoint: '127.0.0.1:1'}]}]
"""


def base() -> str:
    """Return the first golden configuration, which has every section."""
    with gzip.open(CASES, "rt", encoding="utf-8") as lines:
        return str(json.loads(next(iter(lines)))["yaml"])


def found_in(text: str, **environment: str) -> list[Finding]:
    """Return what is to be said of *text*."""
    assert samples.POLICY
    return findings(Policy.read(text, "f", environment), environment)


def codes(text: str, **environment: str) -> set[str]:
    """Return the codes of the warnings about *text*."""
    return {each.code for each in found_in(text, **environment) if each.severity == "warning"}


def routing(text: str) -> str:
    """Return a configuration with *text* under routing, whose lines are indented by two."""
    return f"{HEAD}routing:\n  modelCards: [{{name: small, loras: [{{name: fine}}]}}]\n{text}"


KEYWORD = "  signals: {keywords: [{name: k, operator: OR, keywords: [%s]}]}\n"
LEAF = "  decisions: [{name: d, rules: {type: keyword, name: k}, modelRefs: [{model: small}]}]\n"
ODD = {
    code: routing(textwrap.indent(text, "  ").replace("  ---", "---"))
    for code, text in yaml.safe_load((Path(__file__).parent / "oddities.yaml").read_text("utf-8")).items()
}


@pytest.mark.parametrize("code", sorted(ODD))
def test_an_oddity_is_found_and_modernized_away(code: str) -> None:
    """Each is told with its place; the file that is written anew does not have it, and keeps the rest."""
    environment = {"HOME": "/root"}
    found = found_in(ODD[code], **environment)
    told = [each for each in found if each.code == code]
    text = modernized(ODD[code], found, "f")

    assert told, {each.code for each in found}
    assert all(each.remedy or code == "leaf-with-operator" for each in told)
    assert code not in codes(text, **environment), text
    assert codes(text, **environment) <= codes(ODD[code], **environment)
    assert Policy.parse(text, "f", environment).hash


@pytest.mark.parametrize(
    ("declared", "referred"), [("no", "no"), ("no", "off"), ("no", '"false"'), ("010", "010"), ("010", "8")]
)
def test_a_name_and_its_references_stay_together(declared: str, referred: str) -> None:
    """Spelled in two ways that YAML 1.1 reads as one, they are still one in the file that is written anew."""
    keywords = KEYWORD.replace("name: k", f"name: {declared}")
    text = routing(keywords % "asap" + LEAF.replace("name: k", f"name: {referred}"))
    again = Policy.parse(modernized(text, found_in(text), "f"))
    name = declared if declared == referred else {"no": "false", "010": "8"}[declared]

    (config,), (decision,) = again.routing.declared, again.routing.decisions
    assert (config.name, [leaf.name for leaf in decision.rules.leaves()]) == (name, [name])


def test_what_is_not_odd_is_not_found() -> None:
    """A plain file has no warning, and is written anew as the same policy with its comments."""
    text = routing(KEYWORD % "asap" + LEAF) + "# the end\n"
    again = modernized(text, found_in(text), "f")

    assert codes(text) == set()
    assert "# the end" in again
    assert Policy.parse(again).hash == Policy.parse(text).hash


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("sygnals: {}", "unknown-key", "signals"),
        ("decisions: [{name: d, plugins: [{type: memory, configuration: {}}]}]", "plugin-not-here", "memory"),
        ("decisions: [{name: d, algorithm: {type: knn}}]", "algorithm-not-here", "knn"),
        (
            "signals: {jailbreak: [{name: j}]}\n  decisions: [{name: d, rules: {type: jailbreak, name: j}}]",
            "not-hosted",
            "jailbreak",
        ),
        ("decisions: [{name: d, rules: {type: domain, name: law}}]", "domain-made", "law"),
        (
            "signals: {complexity: [{name: c, composer: {type: keyword, name: gone}}]}",
            "composer-never-matches",
            "gone",
        ),
        ("decisions: [{name: d, rules: {operator: OR}}]", "never-matches", "match"),
        ("on: 1", "dropped-key", "on"),
    ],
)
def test_what_does_nothing_is_told(text: str, code: str, told: str) -> None:
    """Unknown keys come with what may be meant; what is not here yet never passes silently."""
    messages = [each.message for each in found_in(routing(f"  {text}\n")) if each.code == code]

    assert messages
    assert any(told in message for message in messages)


def test_a_model_that_nobody_serves_is_told() -> None:
    """Without cards any model may be named; that no provider serves it is known before a request fails."""
    found = found_in("routing: {decisions: [{name: d, modelRefs: [{model: ghost}]}]}")

    assert [each.code for each in found] == ["model-not-served"]


def test_both_dialects_are_read() -> None:
    """Old and new names of the same thing are one, and the old ones are told."""
    source = routing("  strategy: priority\n")
    package = source.replace("default_model: small", "model: small")

    assert Policy.parse(source).hash == Policy.parse(package).hash
    assert "alias" in {each.code for each in found_in(package)}


def test_an_adapter_is_a_model() -> None:
    """A LoRA name is served where its model is, under its own name, by model or by lora_name."""
    for ref in ("{model: fine}", "{model: small, lora_name: fine}"):
        found = Policy.parse(routing(f"  decisions: [{{name: d, modelRefs: [{ref}]}}]\n"))
        [candidate] = found.candidates(found.routing.decisions[0])

        assert candidate.model == "fine"
        assert found.plan(("fine",))[0].provider == "north"
        assert found.models["fine"].wire_name == "fine"


def test_no_secret_reaches_the_normal_form() -> None:
    """Addresses and keys of classifiers are settings, as those of providers are."""
    text = base().replace("llm_model_name: j", "llm_model_name: j\n      access_key: TOPSECRET")
    found = Policy.parse(text)

    assert "TOPSECRET" not in found.normal_form
    assert "9100" not in found.normal_form
    assert "classification" in found.normal_form


def test_the_normal_form_is_not_substituted_again() -> None:
    """What the environment said when a file was read is what its policy says for ever."""
    text = routing(KEYWORD % "'${WORD}'")
    found = Policy.parse(text, "f", {"WORD": "${HOME} $$"})

    assert found.routing.signals["keywords"][0].keywords == ("${HOME} $$",)  # type: ignore[attr-defined]
    assert Policy.loads(found.normal_form).hash == found.hash


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_policies_satisfy_the_schema(path: Path) -> None:
    """The published schema is valid, and so is every policy that ships; a misspelt key is not."""
    schema = schema_of(Policy, "Signalbox policy")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "rooting": {}}, schema)
    assert orjson.dumps(schema)


def test_the_schema_takes_the_fields_configuration() -> None:
    """A configuration of the field satisfies our schema, whatever it accepts."""
    jsonschema.validate(yaml.safe_load(base()), schema_of(Policy, "Signalbox policy"))


def test_the_packages_configuration_loads_without_errors() -> None:
    """The full configuration that the published package ships has no error here."""
    path = next(iter(Path(yaml.__file__).parents[1].glob("cli/model_assets/latest/mom-v1/config.yaml")), None)
    if path is None:
        pytest.skip("the package vllm-sr is not installed")
    text = path.read_text(encoding="utf-8")

    assert {each.severity for each in found_in(text)} <= {"warning", "info"}
    assert not [each for each in found_in(text) if each.code == "unknown-key"]
    found = Policy.parse(text)
    assert Policy.loads(found.normal_form).hash == found.hash
    assert len(found.recipes) >= 5


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside *value*."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, inner in inside for each in ((*path, key), *places(inner, (*path, key)))]


JUNK: list[Any] = [None, True, False, 0, -1, 1.5, 10**30, -(10**400), float("inf"), float("nan")]
JUNK += ["", " ", "x", "no", "$HOME", "${", "(", "\\C", "a\0b", "ꙮ" * 50, "2001-01-01", "1K"]
JUNK += [[], [[]], {}, {"x": 1}, [None], [1, "a"], {"type": "keyword"}]
SCRAPS = ["", "\t", "{", "]", ": ", "&a ", "*a", "\n---\n", "!!int ", "\x07"]


def mutated(document: Any, rng: random.Random) -> str:
    """Return *document* with some values replaced, removed, moved or renamed, sometimes cut as text."""
    document = copy.deepcopy(document)
    paths = places(document)
    for _ in range(rng.randint(1, 4)):
        *path, key = rng.choice(paths)
        place = document
        try:
            for step in path:
                place = place[step]
            kind = rng.randrange(5)
            if kind == 0:
                del place[key]
            elif kind == 1:
                place[key] = copy.deepcopy(rng.choice([v for v in [document, place, *JUNK] if v is not None]))
            elif kind == 2 and isinstance(place, dict):
                place[rng.choice(["name", "type", "", "éé", "<<"])] = place.pop(key)
            else:
                place[key] = rng.choice(JUNK)
        except (KeyError, IndexError, TypeError):
            continue
    text = yaml.dump(document, Dumper=yaml.CSafeDumper, allow_unicode=True)
    if rng.random() < 0.2:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(SCRAPS) + text[at + 1 :]
    return text


def test_mutated_configurations_load_or_are_refused_with_a_place() -> None:
    """Thousands of broken files: a policy that reads back as itself, or our own error; never slow."""
    documents = [yaml.safe_load(base()), yaml.safe_load(samples.POLICY)]
    documents += [yaml.safe_load(path.read_text(encoding="utf-8")) for path in SHIPPED]
    rng = random.Random(5)
    loaded, began = 0, time.process_time()
    refused: list[str] = []
    for _ in range(MUTATIONS):
        text = mutated(rng.choice(documents), rng)
        try:
            reading = Policy.read(text, "f", {"HOME": "/root"})
            findings(reading, {"HOME": "/root"})
            found = reading.accepted()
        except ConfigError as error:
            refused.append(str(error))
            continue
        loaded += 1
        assert Policy.loads(found.normal_form).hash == found.hash
    assert [error for error in refused if not re.match(r"f:\d+:\d+: ", error)] == []
    assert loaded > MUTATIONS / 50
    assert (time.process_time() - began) / MUTATIONS < 1
