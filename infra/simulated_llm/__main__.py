"""The command line of the simulated providers: start, say where, run until a signal."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from infra.simulated_llm import profile
from infra.simulated_llm.calls import CallLog
from infra.simulated_llm.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE = 2
_DEPENDENCY_DOWN = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code (2 bad input, 3 address in use)."""
    options = _parser().parse_args(argv)
    try:
        chosen = profile.load(options.profile) if options.profile else profile.default()
    except profile.ProfileError as error:
        return _fail(_USAGE, f"{error}. Correct the file named by --profile.")
    with ExitStack() as stack:
        try:
            calls = stack.enter_context(CallLog(options.calls)) if options.calls else None
        except OSError as error:
            return _fail(_USAGE, f"cannot write the log of calls: {error}. Give another --calls.")
        return asyncio.run(_serve(Server(chosen, options.seed, calls), options))


async def _serve(server: Server, options: argparse.Namespace) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        port = await server.start(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        return _fail(_DEPENDENCY_DOWN, f"cannot listen on {where}: {error}. Give another --port, or 0.")
    try:
        if options.port_file:
            _write_whole(options.port_file, f"{port}\n")
        providers = {
            name: f"http://{options.host}:{port}/{name}/v1" for name in server.simulator.profile.providers
        }
        sys.stdout.write(json.dumps({"port": port, "pid": os.getpid(), "providers": providers}) + "\n")
        sys.stdout.flush()
        await stopped.wait()
    finally:
        await server.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.simulated_llm",
        description="Simulated LLM providers behind the OpenAI dialect. No model runs: every answer says so.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument("--port-file", type=Path, help="file to write the port to, once listening")
    parser.add_argument("--profile", type=Path, help="YAML or JSON profile (default: the bundled one)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default: %(default)s)")
    parser.add_argument("--calls", type=Path, help="file to append one JSON line per ended call to")
    return parser


def _write_whole(path: Path, text: str) -> None:
    """Write *path* so that a reader sees all of *text* or no file."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"simulated_llm: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
