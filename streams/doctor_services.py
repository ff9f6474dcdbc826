"""Ask Triton and the providers whether they can be used; no inference is run and no token is paid for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from agents.policy import Policy
from agents.signals import Classified
from streams.clients.provider import Endpoint
from streams.doctor import Finding, Patient

_PATIENCE_S = 5.0
_FIRST_ERROR = 500
_REFUSED = {401, 403}


def classifiers(policy: Policy) -> tuple[str, ...]:
    """Return the classifiers that the signals of *policy* call, in any recipe, sorted."""
    recipes = [recipe for recipe, _ in policy.scopes]
    demanded = [config for recipe in recipes for group in policy.demand(recipe).values() for config in group]
    demanded += [config for recipe in recipes for config, _ in policy.beside(recipe)]
    return tuple(sorted({config.classifier for config in demanded if isinstance(config, Classified)}))


async def triton(patient: Patient) -> AsyncIterator[Finding]:
    """Whether Triton serves each classifier of the policy, with the names and types that we send and read."""
    wanted = classifiers(patient.policy)
    if not wanted:
        yield Finding("triton", "ok", "the policy needs no classifier")
        return
    address = patient.settings.triton
    if not address:
        yield Finding("triton", "wrong", f"the policy calls {', '.join(wanted)}", "set SIGNALBOX_TRITON")
        return
    # gRPC takes long to import, which only such policies need.
    from streams.clients.triton import TritonTls  # noqa: PLC0415
    from streams.clients.triton_check import models  # noqa: PLC0415

    tls = TritonTls.of(patient.settings.triton_security)
    for name, reason in (await models(address, wanted, tls=tls, timeout_s=_PATIENCE_S)).items():
        if reason is None:
            yield Finding("triton", "ok", f"{name} is ready at {address}")
        else:
            todo = "check address and TLS settings, and that the server runs with this model (make triton)"
            yield Finding("triton", "down", f"{name} at {address}: {reason}", todo)


async def providers(patient: Patient) -> AsyncIterator[Finding]:
    """Whether each provider answers and takes our key, by the list of its models, which costs nothing."""
    endpoints = patient.settings.endpoints()
    names = patient.policy.provider_names
    for name in names:
        if name not in endpoints:
            todo = f"""set SIGNALBOX_PROVIDERS='{{"{name}": "https://host/v1"}}' for its worker"""
            yield Finding("providers", "wrong", f"nothing says where {name} is", todo)
    asked = [(name, endpoints[name]) for name in names if name in endpoints]
    answers = await asyncio.gather(*[_status(endpoint) for _, endpoint in asked])
    for (name, endpoint), answer in zip(asked, answers, strict=True):
        yield _judged(name, endpoint, answer)


async def _status(endpoint: Endpoint) -> int | str:
    """Return the HTTP status, or what kind of error there was."""
    headers = {}
    if endpoint.api_key is not None:
        key = endpoint.api_key.get_secret_value()
        bearer = endpoint.auth_header.lower() == "authorization"
        headers[endpoint.auth_header] = f"Bearer {key}" if bearer else key
    url = f"{endpoint.base_url.rstrip('/')}/models"
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            return response.status
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        # Only its kind: the text may quote what was sent, the key among it.
        reason = getattr(getattr(error, "os_error", None), "strerror", None)
        return str(reason or type(error).__name__)


def _judged(name: str, endpoint: Endpoint, answer: int | str) -> Finding:
    where = f"{name} at {endpoint.base_url}"
    if isinstance(answer, str):
        return Finding("providers", "down", f"{where}: {answer}", "check the address, and that it runs")
    if answer in _REFUSED:
        todo = "check the key: SIGNALBOX_KEY_FILES or SIGNALBOX_KEYS"
        return Finding("providers", "wrong", f"{where} refuses our key ({answer})", todo)
    if answer >= _FIRST_ERROR:
        return Finding("providers", "down", f"{where} answers {answer}", "see its status page or its log")
    return Finding("providers", "ok", f"{where} answers ({answer})")
