"""Why a broker cannot be used: asked step by step, once it is known that it cannot.

The client library says only that no broker answered. Here the address, the socket, TLS and the login
are tried one after the other, and the first that fails is named with what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

_PATIENCE_S = 5.0


async def why_unreachable(bootstrap: str, security: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the first address of *bootstrap*, None if it can be used.

    *security* are the client's arguments. Nothing secret is in the answer.
    """
    host, _, port = bootstrap.split(",", maxsplit=1)[0].strip().rpartition(":")
    host = host.strip("[]")
    try:
        await _connect(host, int(port), None)
    except (OSError, TimeoutError) as error:
        return f"nothing listens there ({_text(error)}): check the address, and that the broker runs"
    context = security.get("ssl_context")
    if context is not None:
        reason = await _tls(host, int(port), context)
        if reason is not None:
            return reason
    return await _login(host, int(port), security)


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            await writer.wait_closed()


async def _tls(host: str, port: int, context: ssl.SSLContext) -> str | None:
    try:
        await _connect(host, port, context)
    except ssl.SSLCertVerificationError as error:
        return _untrusted(host, error)
    except ssl.SSLError as error:
        return (
            f"the port does not speak TLS ({error.reason or type(error).__name__}): use the broker's TLS "
            "listener, or a security_protocol without SSL"
        )
    except (OSError, TimeoutError) as error:
        return (
            f"the TLS handshake was broken off ({_text(error)}): the port may not speak TLS, "
            "or the broker wants a client certificate (ssl_certfile, ssl_keyfile)"
        )
    return None


_HOST_MISMATCH = {62, 64}
"""OpenSSL's codes for a certificate of another host name or address."""


def _untrusted(host: str, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _HOST_MISMATCH:
        return (
            f"the broker's certificate is not for {host!r}: use a name that is in it, or have it made "
            "for this one"
        )
    return (
        f"the broker's certificate is not trusted ({error.verify_message}): set ssl_cafile to the "
        "certificate of the CA that signed it"
    )


async def _login(host: str, port: int, security: Mapping[str, Any]) -> str | None:
    connection = None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            connection = await create_conn(
                host, port, client_id="signalbox-doctor", request_timeout_ms=4000, **security
            )
            await connection.send(MetadataRequest([]))
    except UnsupportedSaslMechanismError:
        return (
            f"the broker does not offer {security.get('sasl_mechanism')}: set sasl_mechanism to one of "
            "those in its sasl.enabled.mechanisms"
        )
    except (AuthenticationFailedError, SaslAuthenticationFailed):
        return (
            f"the login of {security.get('sasl_plain_username')!r} was refused: check user name and "
            f"password, and that the user has a credential for {security.get('sasl_mechanism')}"
        )
    except IllegalSaslStateError:
        return "the broker's listener expects no SASL login: use a security_protocol without SASL"
    except ssl.SSLError as error:
        return _no_certificate(error.reason or type(error).__name__)
    except (KafkaError, OSError, TimeoutError) as error:
        return await _hung_up(host, port, security, error)
    finally:
        if connection is not None:
            connection.close()
    return None


def _no_certificate(reason: str) -> str:
    return (
        f"the broker refused our certificate, or wants one ({reason}): set ssl_certfile and ssl_keyfile, "
        "signed by a CA that it trusts"
    )


async def _hung_up(host: str, port: int, security: Mapping[str, Any], error: BaseException) -> str:
    """Say why the broker may have closed the connection without a word."""
    said = _text(error)
    if "ssl_context" not in security and await _speaks_tls(host, port):
        return "the port speaks TLS, and we did not: set security_protocol to SSL or SASL_SSL"
    if "sasl_mechanism" not in security and "ssl_context" not in security:
        return f"the broker closed the connection ({said}): it may want a SASL login, or be no Kafka broker"
    if "sasl_mechanism" not in security:
        return (
            f"the broker closed the connection ({said}): it may want a client certificate (ssl_certfile, "
            "ssl_keyfile) or a SASL login"
        )
    return f"the broker closed the connection ({said}): its listener may expect no SASL login"


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only asked whether it is TLS; nothing is sent
    try:
        await _connect(host, port, context)
    except ssl.SSLError as error:
        return "WRONG_VERSION" not in (error.reason or "")
    except (OSError, TimeoutError):
        return False
    return True


def _text(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or type(error).__name__)[:100]
