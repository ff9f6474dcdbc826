"""The one place that may catch everything: an unknown failure becomes a dead letter, never a loss."""

from __future__ import annotations

from schemas.dead_letter import DeadLetter, Header
from schemas.envelope import Envelope
from schemas.identity import ID_BYTES


def dead_letter(  # noqa: PLR0913 - what a dead letter says
    stage: str, source: Envelope, error: BaseException, *, now: int, attempts: int = 1, policy_hash: str = ""
) -> DeadLetter:
    """Return the dead letter of *source*: bytes untouched, the error's class, and no quoted content."""
    header_hash = dict(source.headers).get("policy_hash", b"")
    request_id = source.key if source.key is not None and len(source.key) == ID_BYTES else None
    return DeadLetter(
        stage=stage,
        error_class=type(error).__name__,
        reason=_reason(error),
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        timestamp=source.timestamp,
        attempts=attempts,
        policy_hash=policy_hash or header_hash.decode("ascii", "replace"),
        died_at=now,
        request_id=request_id,
        key=source.key,
        value=source.value,
        headers=tuple(Header(k, v) for k, v in source.headers),
    )


def _reason(error: BaseException) -> str:
    """Return the message of errors of ours, which quote nothing; of others only where they arose."""
    module = type(error).__module__
    if module.startswith(("agents.", "schemas.")):
        return str(error)
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" at line {frame.tb_lineno} of {frame.tb_frame.f_globals.get('__name__')}" if frame else ""
    return f"{type(error).__name__}{place}"
