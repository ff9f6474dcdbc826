"""Whether an HTTP server answers 200, asked without noise."""

from http import HTTPStatus

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


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
