"""The detached process that owns a stack: starts it, keeps it, writes its state, stops it.

``python -m infra.local.supervisor FILE`` runs it; ``signalbox up`` does that. Its log is
``supervisor.log`` in the stack's folder.
"""

import asyncio
import dataclasses
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import TypeAdapter

from infra.local.deployment import DeploymentOptions, Endpoints, load_factory
from infra.local.errors import StackError
from infra.local.events import StackEvent, StackStarted, StackStopped
from infra.local.identity import Identity
from infra.local.kafka import Kafka
from infra.local.providers import SimulatedProviders
from infra.local.service import Service
from infra.local.stack import LocalStack, StackConfig
from infra.local.state import (
    ComponentState,
    Phase,
    ProcessState,
    StackState,
    WorkerState,
    hold,
    write_state,
)
from infra.local.triton import Triton


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one supervisor is to run; crosses the process boundary as JSON."""

    stack: StackConfig
    deployment: str
    options: DeploymentOptions
    workers: bool


ASSIGNMENT = TypeAdapter(Assignment)


class Supervisor:
    """One stack's owner: mirrors each change into the state file."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.folder = assignment.stack.folder.absolute()
        self._log = structlog.get_logger("supervisor")
        self._stack: LocalStack | None = None
        self._phase = Phase.STARTING
        self._doing = "starting"
        self._error = ""
        self._exit_code = 0
        self._endpoints: Endpoints | None = None
        identity = Identity.of(os.getpid())
        if identity is None:
            raise StackError(
                "cannot read /proc: the local stack needs Linux's /proc to recognise its processes"
            )
        self._identity = identity

    async def run(self, stopping: asyncio.Event) -> int:
        """Run the stack until *stopping* is set; returns the exit code."""
        working = asyncio.create_task(self._work(), name="stack")
        waiting = asyncio.create_task(stopping.wait(), name="stopping")
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, waiting):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        try:
            with suppress(asyncio.CancelledError):
                await working
        except StackError as error:
            self._fail(str(error), error.exit_code)
        except Exception as error:  # noqa: BLE001 -- the user waits for a word, whatever it was
            self._log.exception("SupervisorFailed")
            self._fail(
                f"{type(error).__name__}: {error}; see {self.folder / 'supervisor.log'}", StackError.exit_code
            )
        else:
            self._heard(StackStopped())
            self._enter(Phase.STOPPED, "stopped")
        return self._exit_code

    async def _work(self) -> None:
        assignment = self.assignment
        self._enter(Phase.STARTING, "reading the policy")
        deployment = load_factory(assignment.deployment)(assignment.options)
        self._stack = stack = LocalStack(
            assignment.stack, deployment, report=self._heard, changed=self._write
        )
        async with stack:
            self._endpoints = stack.endpoints
            if assignment.workers:
                await stack.start_workers()
            self._heard(StackStarted(len(stack.services), len(stack.workers)))
            self._enter(Phase.RUNNING, "")
            try:
                await asyncio.Event().wait()
            finally:
                self._enter(Phase.STOPPING, "stopping everything")

    def _heard(self, event: StackEvent) -> None:
        self._log.info(type(event).__name__, **dataclasses.asdict(event))
        if self._phase is Phase.STARTING:
            self._doing = str(event)

    def _fail(self, message: str, exit_code: int) -> None:
        self._error, self._exit_code = message, exit_code
        self._log.error("SupervisorFailed", error=message)
        self._enter(Phase.FAILED, "")

    def _enter(self, phase: Phase, doing: str) -> None:
        self._phase, self._doing = phase, doing
        self._write()

    def _write(self) -> None:
        try:
            write_state(self.folder, self._state())
        except StackError as error:
            # The stack itself may go on with a full disk for a while; say so and let it.
            self._log.error("StateUnwritable", error=str(error))

    def _state(self) -> StackState:
        stack = self._stack
        return StackState(
            phase=self._phase,
            marker=stack.marker if stack else "none",
            supervisor=ProcessState.of(self._identity),
            doing=self._doing,
            error=self._error,
            exit_code=self._exit_code,
            components=tuple(component_state(one) for one in stack.services if started(one)) if stack else (),
            endpoints=self._endpoints,
            workers=tuple(
                WorkerState(
                    role=worker.spec.role,
                    instance=worker.spec.instance,
                    process=process_state(worker.process.identity if worker.pid and worker.process else None),
                    restarts=worker.restarts,
                    log=worker.log,
                    port_file=worker.port_file,
                )
                for worker in (stack.workers if stack else ())
            ),
        )


def started(service: Service) -> bool:
    """Return whether *service* has an address to tell."""
    return service.process is not None or not isinstance(service, (Kafka, Triton, SimulatedProviders))


def process_state(identity: Identity | None) -> ProcessState | None:
    """Return *identity* in the form of the state file."""
    return None if identity is None else ProcessState.of(identity)


def component_state(service: Service) -> ComponentState:
    """Return what the state file says of a started *service*."""
    process = service.process
    state = ComponentState(
        name=service.name,
        address=service.address,
        process=process_state(process.identity if process is not None and process.running else None),
    )
    match service:
        case Triton():
            base = f"http://{service.http_address}/v2"
            models = service.options.models
            checks = (f"{base}/health/ready", *(f"{base}/models/{model}/ready" for model in models))
            return state.model_copy(update={"models": models, "checks": checks})
        case SimulatedProviders():
            return state.model_copy(update={"checks": (f"{service.address}/health",)})
        case Kafka():
            return state
        case _:
            external = getattr(service, "external", None)
            return state.model_copy(
                update={
                    "settings": getattr(external, "settings", None),
                    "models": getattr(service, "models", ()),
                }
            )


async def _serve(supervisor: Supervisor) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    return await supervisor.run(stopping)


def configure_log() -> None:
    """Send the supervisor's events to stderr as JSON lines."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main(arguments: list[str]) -> int:
    """Run the assignment in the file that *arguments* name."""
    assignment = ASSIGNMENT.validate_json(Path(arguments[0]).read_bytes())
    configure_log()
    try:
        with hold(assignment.stack.folder):
            return asyncio.run(_serve(Supervisor(assignment)))
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
