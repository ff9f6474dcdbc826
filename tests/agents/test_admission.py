"""Admission: who is let in, under which id, with what kept and what dropped."""

from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.admission import MAX_BODY, MAX_LINE, Admission, custom_id_of, read_foreign, read_line
from agents.errors import Refused
from agents.testing import policy_of
from schemas.identity import body_digest, custom_request_id, inbox_request_id, line_request_id
from schemas.sealed import unseal
from tests.agents.samples import NOW, SECRET, policy

UNDER = policy()
BODY = {"messages": [{"role": "user", "content": SECRET}]}


def admission(tenant: str = "acme", run: str = "run") -> Admission:
    """Return an admission under the sample policy."""
    return Admission(UNDER, tenant, NOW, run)


def raw(**entries: Any) -> bytes:
    """Return a batch line with *entries*, Ellipsis leaving one out."""
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY, **entries}
    return orjson.dumps({k: v for k, v in line.items() if v is not ...})


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{not json", "invalid_json"),
        (b"", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b'{"body": "\xff"}', "invalid_json"),
        (raw(custom_id=7), "invalid_request"),
        (raw(custom_id=""), "invalid_request"),
        (raw(custom_id="x" * 513), "invalid_request"),
        (raw(method="GET"), "invalid_request"),
        (raw(body=...), "invalid_request"),
        (raw(body=[BODY]), "invalid_request"),
        (raw(body={}), "invalid_request"),
        (raw(body={"messages": []}), "invalid_request"),
        (raw(body={"messages": ["hi"]}), "invalid_request"),
        (raw(body={**BODY, "model": 7}), "invalid_request"),
        (raw(body={**BODY, "model": []}), "invalid_request"),
        (raw(headers=["a"]), "invalid_request"),
        (raw(headers={"a": 1}), "invalid_request"),
        (raw(body={**BODY, "deep": 0}).replace(b"0}", b"[" * 400 + b"]" * 400 + b"}"), "invalid_request"),
        (raw(body={**BODY, "pad": "x" * MAX_BODY}), "body_too_large"),
        (b"x" * (MAX_LINE + 1), "body_too_large"),
        (raw(url="/v1/embeddings"), "unsupported_url"),
        (raw(url=None), "unsupported_url"),
        (raw(body={**BODY, "model": "gpt-nine"}), "model_not_found"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_refusal_has_a_code_and_quotes_nothing(line: bytes, code: str) -> None:
    """A line that cannot be admitted is refused with the code that the contract states."""
    with pytest.raises(Refused) as caught:
        admission().batch(read_line(3, line))

    assert caught.value.code == code
    assert SECRET not in caught.value.message
    assert "xxxx" not in caught.value.message


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=40),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
            lambda c: (
                st.lists(c)
                | st.dictionaries(
                    st.sampled_from(["body", "messages", "custom_id", "headers", "model", "url", "x"]), c
                )
            ),
        ).map(orjson.dumps),
    )
)
def test_any_bytes_are_admitted_or_refused(line: bytes) -> None:
    """Whatever a file holds, reading a line of it raises nothing but Refused."""
    for read in (partial(read_line, 1), read_foreign):
        try:
            found = admission().batch(read(line))
        except Refused:
            continue
        assert len(found.request_id) == 16
    custom_id_of(line)


@pytest.mark.parametrize(
    ("model", "recipe"), [(None, ""), ("", ""), ("auto", ""), ("lab-model", "lab"), ("large", "(bypass)")]
)
def test_the_requested_model_names_the_recipe(model: str | None, recipe: str) -> None:
    """No model and automatic names route, an entrypoint runs its recipe, a backend's own name bypasses."""
    found = admission().batch(read_line(1, raw(body={**BODY, "model": model})))

    assert found.recipe == recipe
    assert found.requested_model == (model or "")


def test_a_request_carries_the_stamp_that_every_stage_obeys() -> None:
    """Policy, decide_by at half the time, the deadline, the digest and the sealed body are stamped."""
    found = admission().batch(read_line(7, raw()))

    assert found.policy_hash == UNDER.hash
    assert (found.accepted_at, found.decide_by, found.deadline) == (NOW, NOW + 50_000, NOW + 100_000)
    assert (found.tenant, found.run, found.custom_id, found.line) == ("acme", "run", "a", 7)
    assert found.body.sealed is not None
    assert unseal(found.body.sealed) == orjson.dumps(BODY)
    assert found.body.size == len(orjson.dumps(BODY))
    assert found.body.digest == body_digest("acme", orjson.dumps(BODY))


def test_the_same_line_is_the_same_request() -> None:
    """The id follows from tenant, run and custom id alone: not from the body, the line or the time."""
    one = admission().batch(read_line(1, raw()))
    again = Admission(UNDER, "acme", NOW + 5, "run").batch(read_line(9, raw(body={**BODY, "n": 1})))

    assert one.request_id == again.request_id == custom_request_id("acme", "run", "a")


def test_without_a_custom_id_the_line_number_names_the_request() -> None:
    """Line numbers have a namespace of their own, so that custom id "1" is another request than line 1."""
    by_line = admission().batch(read_line(1, raw(custom_id=...)))
    named = admission().batch(read_line(2, raw(custom_id="1")))

    assert by_line.request_id == line_request_id("acme", "run", 1)
    assert by_line.custom_id is None
    assert by_line.request_id != named.request_id


def test_tenants_and_runs_do_not_share_ids() -> None:
    """The same line of another tenant, or in another run, is another request."""
    who = [("acme", "run"), ("acme2", "run"), ("acme", "run2"), ("acm", "erun")]
    ids = {admission(tenant, run).batch(read_line(1, raw())).request_id for tenant, run in who}

    assert len(ids) == len(who)


def test_a_redelivered_foreign_record_keeps_its_id() -> None:
    """The id of an inbox record follows from where it lies."""
    line = read_foreign(orjson.dumps(BODY))
    found = admission().inbox(line, "cluster", ("inbox.json", 2, 40))

    assert found.request_id == inbox_request_id("cluster", "inbox.json", 2, 40)
    assert (found.source, found.line, found.custom_id) == ("inbox", None, None)


def test_a_foreign_record_may_be_a_batch_line() -> None:
    """A record with a body is read as a line, one without as the body itself."""
    assert read_foreign(raw(custom_id="mine")).custom_id == "mine"
    assert read_foreign(orjson.dumps({**BODY, "model": "large"})).model == "large"
    with pytest.raises(Refused):
        read_foreign(b"{}")


CREDENTIALS = """Authorization COOKIE Set-Cookie X-API-Key api-key x-goog-api-key Proxy-Authorization
    X-Amz-Security-Token x-auth-token client_secret apikey"""


@pytest.mark.parametrize("name", CREDENTIALS.split())
def test_credentials_are_not_kept(name: str) -> None:
    """A header that is a credential by its name is dropped before anything is written."""
    found = admission().batch(read_line(1, raw(headers={name: SECRET, "X-Team": "blue"})))

    assert found.headers is not None
    assert orjson.loads(unseal(found.headers)) == {"x-team": "blue"}


def test_without_headers_none_are_sealed() -> None:
    """No headers, or only credentials, leave the field empty."""
    assert admission().batch(read_line(1, raw())).headers is None
    assert admission().batch(read_line(1, raw(headers={"authorization": "x"}))).headers is None


def test_subject_and_roles_are_bound() -> None:
    """The authorization headers name the subject, which is sealed, and the roles."""
    headers = {"X-Authz-User-Id": "greta", "X-Authz-User-Groups": "staff, eu,,"}
    found = admission().batch(read_line(1, raw(headers=headers)))

    assert found.subject is not None
    assert unseal(found.subject) == b"greta"
    assert found.roles == ("staff", "eu")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        "x",
        {"k": 1},
        {"k": None},
        {"": "v"},
        {"k" * 129: "v"},
        {"é" * 65: "v"},
        {"k": "v" * 1025},
        {"k": "é" * 513},
        {str(n): "" for n in range(33)},
    ],
)
def test_metadata_beyond_the_limits_is_refused(metadata: Any) -> None:
    """Limits count bytes, and `null` is no map; at the limits all is well."""
    with pytest.raises(Refused) as caught:
        read_line(1, raw(body={**BODY, "metadata": metadata}))
    most = {str(n): "v" * 1024 for n in range(31)} | {"k" * 128: ""}

    assert caught.value.code == "invalid_metadata"
    assert read_line(1, raw(body={**BODY, "metadata": most})).number == 1


ROLES = """
providers: {models: [{name: small, backend_refs: [{name: north}]}]}
global:
  services:
    authz: {fail_open: OPEN, identity: {user_id_header: X-Auth-User, user_groups_header: x-teams}}
routing:
  signals:
    role_bindings: [{name: b, role: staff, subjects: [{kind: Group, name: eu}]}]
  decisions: [{name: d, rules: LEAF, modelRefs: [{model: small}]}]
"""
BY_ROLE = "{type: authz, name: staff}"


@pytest.mark.parametrize(
    ("leaf", "fail_open", "headers", "refused"),
    [
        (BY_ROLE, "false", {"x-teams": "eu"}, True),
        (BY_ROLE, "false", {"x-auth-user": ""}, True),
        (BY_ROLE, "false", {"x-auth-user": "ana"}, False),
        (BY_ROLE, "true", {"x-teams": "eu"}, False),
        ("{operator: AND, conditions: []}", "false", {}, False),
    ],
)
def test_where_roles_decide_somebody_must_ask(
    leaf: str, fail_open: str, headers: dict[str, str], *, refused: bool
) -> None:
    """Without a user a request is refused unless the policy fails open or no decision asks for a role."""
    under = Admission(policy_of(ROLES.replace("OPEN", fail_open).replace("LEAF", leaf)), "acme", NOW)
    line = read_line(1, raw(headers=headers))
    if refused:
        with pytest.raises(Refused) as caught:
            under.batch(line)
        assert caught.value.code == "authz_identity_missing"
    else:
        assert under.batch(line).recipe == ""


def test_the_headers_that_say_who_asks_are_kept() -> None:
    """The policy names them; one that looks like a credential's is kept and sealed all the same."""
    under = Admission(policy_of(ROLES.replace("OPEN", "false").replace("LEAF", BY_ROLE)), "acme", NOW)
    found = under.batch(
        read_line(1, raw(headers={"X-Auth-User": "ana", "X-Teams": "eu, us", "x-auth-key": "s"}))
    )

    assert found.roles == ("eu", "us")
    assert found.subject is not None
    assert unseal(found.subject) == b"ana"
    assert found.headers is not None
    assert orjson.loads(unseal(found.headers)) == {"x-auth-user": "ana", "x-teams": "eu, us"}


def test_the_custom_id_of_a_refused_line_is_found_if_it_can_be() -> None:
    """The output line of a refused input names the custom id where there is one."""
    assert custom_id_of(raw(body=3)) == "a"
    assert custom_id_of(raw(custom_id=3)) is None
    assert custom_id_of(b"{") is None
    assert custom_id_of(b"[]") is None
