"""The embedded broker's properties and its pinned jars."""

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from infra.local.kafka import new_cluster_id
from infra.local.kafka_jars import Jar, manifest, parse_manifest, verified
from infra.local.kafka_properties import parse, properties, render

words = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="=\\#"), min_size=1)


@given(st.dictionaries(words, words))
def test_rendered_properties_parse_to_the_same_values(values: dict[str, str]) -> None:
    """What is written for Kafka is what was meant."""
    assert parse(render(values)) == values


def test_what_the_caller_adds_wins() -> None:
    """Listeners, TLS and SASL can be laid over ours."""
    chosen = properties(Path("/data"), 1, 2, {"message.max.bytes": "7"})

    assert chosen["message.max.bytes"] == "7"
    assert chosen["auto.create.topics.enable"] == "false"


def test_every_listener_is_on_loopback() -> None:
    """Nothing of the embedded broker can be reached from outside."""
    chosen = properties(Path("/data"), 1, 2, {})

    assert chosen["listeners"] == "CLIENT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"


def test_the_manifest_pins_the_broker_and_its_log() -> None:
    """Each jar has a SHA-256, and coordinates that jgo can fetch it by."""
    jars = manifest()
    coordinates = {jar.coordinate for jar in jars}

    assert ("org.apache.kafka", "kafka_2.13", "4.3.1") in coordinates
    assert ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4") in coordinates
    assert all(len(jar.sha256) == 64 for jar in jars)


def test_a_changed_jar_is_not_verified(tmp_path: Path) -> None:
    """A file counts only with the pinned content."""
    jar = Jar("group/artifact/1/artifact-1.jar", hashlib.sha256(b"good").hexdigest())
    file = tmp_path / jar.path
    assert not verified(jar, tmp_path)

    file.parent.mkdir(parents=True)
    file.write_bytes(b"good")
    assert verified(jar, tmp_path)

    file.write_bytes(b"evil")
    assert not verified(jar, tmp_path)


def test_a_manifest_is_in_the_format_of_sha256sum() -> None:
    """Anyone can check it with the ordinary tool."""
    assert parse_manifest("# why\n\nab  org/x/y/1/y-1.jar\n") == (Jar("org/x/y/1/y-1.jar", "ab"),)


def test_a_cluster_id_never_reads_as_an_option() -> None:
    """Kafka's tools take it as an argument."""
    ids = {new_cluster_id() for _ in range(300)}

    assert len(ids) == 300
    assert all(len(one) == 22 and not one.startswith("-") for one in ids)
