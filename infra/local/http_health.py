"""What an HTTP server says of its health, asked without noise."""

from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


async def told(url: str) -> dict[str, Any] | None:
    """Return the JSON object that *url* answers with, whatever its status; None if it answers none."""
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(url) as response:
            found = orjson.loads(await response.read())
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None
    return found if isinstance(found, dict) else None


async def answers_ok(*urls: str) -> bool:
    """Return whether every one of *urls* answers 200 now."""
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            for url in urls:
                async with session.get(url) as response:
                    if response.status != HTTPStatus.OK:
                        return False
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
    return True
