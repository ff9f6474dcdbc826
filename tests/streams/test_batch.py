"""A batch file: every non-blank line gets exactly one output line, and each says what became of it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import ConfigError
from streams.batch import BatchOptions, check_out, raw_lines, read_content, submit
from streams.runs import collect, counts, find_run, requests_in_log
from tests.streams.batch_world import batch_file, line, policy, routed, topology

DEEP = b"[" * 10_000 + b"]" * 10_000

REFUSED: dict[str, tuple[bytes | dict[str, Any], str, str | None]] = {
    "no JSON": (b"{not json", "invalid_json", None),
    "an array": (b"[1, 2]", "invalid_json", None),
    "bytes that are no UTF-8": (b'{"custom_id": "caf\xe9"}', "invalid_json", None),
    "NaN": (b'{"custom_id": "a", "body": {"x": NaN}}', "invalid_json", None),
    "a number beyond floats": (b'{"custom_id": "a", "body": {"x": 1e400}}', "invalid_json", None),
    "half a surrogate pair": (b'{"custom_id": "\\ud800", "body": {}}', "invalid_json", None),
    "nesting beyond reason": (b'{"custom_id": "a", "body": {"x": ' + DEEP + b"}}", "invalid_json", None),
    "no body": ({"custom_id": "a"}, "invalid_request", "a"),
    "no messages": ({"custom_id": "a", "body": {}}, "invalid_request", "a"),
    "a number for a custom_id": ({**line(), "custom_id": 5}, "invalid_request", None),
    "an empty custom_id": (line(""), "invalid_request", ""),
    "headers that are numbers": ({**line("a"), "headers": {"x": 5}}, "invalid_request", "a"),
    "another method": ({**line("a"), "method": "GET"}, "invalid_request", "a"),
    "another url": ({**line("a"), "url": "/v1/embeddings"}, "unsupported_url", "a"),
    "a model that is a number": (line("a", model=7), "invalid_request", "a"),
    "an unknown model": (line("a", model="gpt-4"), "model_not_found", "a"),
    "300 kB": (line("a", pad="x" * 300_000), "body_too_large", "a"),
    "2 MB": (line("a", pad="x" * 2_000_000), "body_too_large", "a"),
}


async def test_a_line_that_cannot_run_says_why_and_the_others_run(tmp_path: Path) -> None:
    """Whatever a line holds, it gets its error in its place, with its name where it has one."""
    lines: list[bytes | dict[str, Any]] = []
    for number, (bad, _, _) in enumerate(REFUSED.values()):
        lines.extend((bad, line(f"next {number}")))
    async with topology() as world:
        _, rows = await routed(world, batch_file(tmp_path, lines))
    assert [row["line"] for row in rows] == list(range(1, len(lines) + 1))
    told = [(row["error"]["code"], row["custom_id"], row["response"]) for row in rows[::2]]
    assert dict(zip(REFUSED, told, strict=True)) == {n: (c, i, None) for n, (_, c, i) in REFUSED.items()}
    assert [row["error"] for row in rows[1::2]] == [None] * len(REFUSED)


async def test_blank_lines_get_no_output_and_count_as_lines(tmp_path: Path) -> None:
    """Output lines carry the number that their input has in the file, whatever its line ends."""
    content: list[bytes | dict[str, Any]] = [b"", line("a"), b"  \t", b"", line(), b"\x0c"]
    async with topology() as world:
        _, rows = await routed(world, batch_file(tmp_path, content))
        path = tmp_path / "crlf.jsonl"
        path.write_bytes((tmp_path / "in.jsonl").read_bytes().replace(b"\n", b"\r\n"))
        _, again = await routed(world, path)
    for found in (rows, again):
        assert [(row["line"], row["custom_id"], row["error"]) for row in found] == [
            (2, "a", None),
            (5, None, None),
        ]


async def test_who_names_no_model_is_routed_and_who_names_one_gets_it(tmp_path: Path) -> None:
    """No model and the names of auto_model_names route; a backend's own name bypasses, and says so."""
    asked = [line(text="Python"), line(text="Python", model="auto"), line(text="Python", model="draft")]
    asked += [line(), line(text="Python", model="small")]
    async with topology() as world:
        _, rows = await routed(world, batch_file(tmp_path, asked))
    assert [(row["signalbox"]["decision"], row["signalbox"]["model"]) for row in rows] == [
        ("code", "coder"),
        ("code", "coder"),
        ("code", "coder"),
        ("(default)", "small"),
        ("(bypassed)", "small"),
    ]


async def test_of_one_custom_id_the_first_line_that_runs_counts(tmp_path: Path) -> None:
    """Later lines of the name are errors; a refused line leaves the name to a corrected one."""
    lines = [line("a", model="gpt-4"), line("a"), line("a"), line("b")]
    async with topology() as world:
        submission, rows = await routed(world, batch_file(tmp_path, lines))
    codes = [row["error"] and row["error"]["code"] for row in rows]
    assert codes == ["model_not_found", None, "duplicate_custom_id", None]
    assert "line 2" in rows[2]["error"]["message"]
    assert len(submission.wanted) == 2


async def test_headers_travel_but_credentials_do_not(tmp_path: Path) -> None:
    """A line's headers reach the request with its user and groups; a key in them is never kept."""
    headers = {"X-Authz-User-Id": "u1", "X-Authz-User-Groups": "a, b", "Authorization": "Bearer s3cret"}
    async with topology() as world:
        submission, rows = await routed(world, batch_file(tmp_path, [{**line("a"), "headers": headers}]))
        view = submission.view
        kept = [e async for e in world.log.read(view.positions("requests"))]
    assert rows[0]["error"] is None
    assert world.codec.decode(kept[0].value).roles == ("a", "b")
    assert b"s3cret" not in b"".join(e.value or b"" for e in kept)


async def test_a_byte_order_mark_at_the_start_is_no_content(tmp_path: Path) -> None:
    """A file that an editor began with a byte-order mark runs like any other."""
    path = batch_file(tmp_path, [line("a")])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    async with topology() as world:
        _, rows = await routed(world, path)
    assert [(row["custom_id"], row["error"]) for row in rows] == [("a", None)]


@pytest.mark.parametrize("content", [b"", b"\n", b" \t\r\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_without_a_line_is_bad_input(tmp_path: Path, content: bytes) -> None:
    """There is nothing to submit, and the error says what a batch file is."""
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="one JSON object a line"):
        read_content(path)


def test_a_file_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    """A missing file and a folder are named in the error."""
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            read_content(path)


def test_an_output_that_cannot_be_written_is_known_beforehand(tmp_path: Path) -> None:
    """A folder, and a file in a folder that does not exist, are refused; any other file will do."""
    for path in (tmp_path, tmp_path / "none" / "out.jsonl"):
        with pytest.raises(ConfigError, match="cannot write"):
            check_out(path)
    check_out(tmp_path / "out.jsonl")


@given(st.lists(st.binary(max_size=8)))
def test_every_line_with_content_is_read_once(chunks: list[bytes]) -> None:
    """Numbers ascend, and what is read is what stands between line feeds, without blanks around."""
    lines = [c.replace(b"\n", b"").replace(b"\xef\xbb\xbf", b"") for c in chunks]
    found = list(raw_lines(b"\n".join(lines)))
    assert found == [(i, c.strip()) for i, c in enumerate(lines, start=1) if c.strip()]


async def test_whatever_a_file_holds_each_line_gets_one_answer(tmp_path: Path) -> None:
    """Garbage of any kind ends as one error per non-blank line; nothing stops the file."""
    chance = random.Random(1)
    whole = json.dumps({**line("x", "y"), "headers": {"a": "b"}}).encode()
    cut = [whole[: chance.randrange(len(whole))] for _ in range(50)]
    torn = [bytes(chance.choice((c, c, c, chance.randrange(256))) for c in whole) for _ in range(100)]
    path = batch_file(tmp_path, [*cut, *torn, line("last")])
    async with topology() as world:
        _, rows = await routed(world, path)
    assert [row["line"] for row in rows] == [number for number, _ in raw_lines(path.read_bytes())]
    assert (rows[-1]["custom_id"], rows[-1]["error"]) == ("last", None)


async def test_a_resubmission_is_the_same_run_and_adds_what_is_missing(tmp_path: Path) -> None:
    """The second submission of a file takes nothing anew; of a longer one, only the rest."""
    short, long = [line("a"), line()], [line("a"), line(), line("c")]
    name = BatchOptions(run="mine")
    async with topology() as world:
        first, rows = await routed(world, batch_file(tmp_path, short), name)
        again, rows_again = await routed(world, batch_file(tmp_path, short), name)
        longer, _ = await routed(world, batch_file(tmp_path, long), name)
        view = await find_run(world.log, world.codec, "mine")
        assert view is not None
        assert len(await requests_in_log(world.log, world.codec, view)) == 3
    assert [len(s.acknowledged) for s in (first, again, longer)] == [2, 0, 1]
    assert rows == rows_again


async def test_a_run_is_named_by_tenant_and_content(tmp_path: Path) -> None:
    """Equal files of one tenant are one run; another tenant, another byte or --new-run make another."""
    same, other = batch_file(tmp_path, [line("a")]), batch_file(tmp_path, [line("b")], "b.jsonl")
    async with topology() as world:

        async def name(file: Path, options: BatchOptions) -> str:
            return (await submit(world, file, policy(), options)).view.opened.run

        first = await name(same, BatchOptions())
        assert await name(same, BatchOptions()) == first
        others = [
            await name(other, BatchOptions()),
            await name(same, BatchOptions(tenant="acme")),
            await name(same, BatchOptions(new_run=True)),
        ]
    assert len({first, *others}) == 4


async def test_another_body_under_a_known_name_is_an_error(tmp_path: Path) -> None:
    """A result of the old body is never passed off as the answer to the new one."""
    name = BatchOptions(run="mine")
    async with topology() as world:
        await routed(world, batch_file(tmp_path, [line("a", "one")]), name)
        _, rows = await routed(world, batch_file(tmp_path, [line("a", "two")]), name)
    assert rows[0]["error"]["code"] == "body_changed"


@pytest.mark.parametrize("run", ["a\nb", "\udcff", "x" * 201])
async def test_a_name_that_nobody_could_type_is_refused(tmp_path: Path, run: str) -> None:
    """Names are printable and short: they are printed, logged and typed again."""
    async with topology() as world:
        with pytest.raises(ConfigError, match="name"):
            await submit(world, batch_file(tmp_path, [line()]), policy(), BatchOptions(run=run))


async def test_a_run_counts_only_its_own_requests(tmp_path: Path) -> None:
    """Two tenants use one name; each one's status is of its own lines."""
    async with topology() as world:
        await routed(world, batch_file(tmp_path, [line("a"), b"{"]), BatchOptions(run="r"))
        await routed(world, batch_file(tmp_path, [line("a"), line("b")]), BatchOptions("acme", "r"))
        found = {}
        for tenant in ("default", "acme"):
            view = await find_run(world.log, world.codec, "r", tenant)
            assert view is not None
            await collect(world.log, world.codec, view)
            assert view.submitted is not None
            found[tenant] = (view.submitted.refused, counts(view)["completed"], counts(view)["pending"])
    assert found == {"default": (1, 1, 0), "acme": (0, 2, 0)}
