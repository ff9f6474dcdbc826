"""Blocking work beside the event loop, in a thread that never delays the exit."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Answer = TypeVar("Answer")
Value = TypeVar("Value")


async def in_background(work: Callable[[], Answer]) -> Answer:
    """Return what *work* returns, or raise what it raises.

    Unlike ``asyncio.to_thread`` a cancelled wait leaves nothing that the interpreter
    waits for at exit: Ctrl-C during a long download ends at once.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Answer] = loop.create_future()

    def post(settle: Callable[[Value], None], value: Value) -> None:
        def deliver() -> None:
            if not done.cancelled():
                settle(value)

        # A closed loop means that nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver)

    def run() -> None:
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 -- handed to the one who waits
            post(done.set_exception, error)
        else:
            post(done.set_result, answer)

    threading.Thread(target=run, daemon=True, name="signalbox-background").start()
    return await done
