"""What a stack tells about itself while it runs: a closed list, each a line for a person."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ComponentStarting:
    """A component is being started; the first time this may download."""

    name: str

    def __str__(self) -> str:
        return f"starting {self.name} (the first time this downloads it)"


@dataclass(frozen=True, slots=True)
class ComponentReady:
    """A component is healthy at an address, after so many seconds."""

    name: str
    address: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.name} is ready at {self.address} after {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class ComponentDied:
    """A component ended by itself and is started again after a wait."""

    name: str
    pid: int
    exit_code: int
    restart_in: float

    def __str__(self) -> str:
        return (
            f"{self.name} (pid {self.pid}) ended with {self.exit_code}; "
            f"starting it again in {self.restart_in:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class TopicsPreparing:
    """The broker is being made to match the catalogue."""

    def __str__(self) -> str:
        return "making the broker's topics match the catalogue"


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker process runs, not necessarily ready yet."""

    role: str
    instance: int
    pid: int

    def __str__(self) -> str:
        return f"worker {self.role}/{self.instance} started (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker consumes."""

    role: str
    instance: int
    seconds: float

    def __str__(self) -> str:
        return f"worker {self.role}/{self.instance} is ready after {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker ended without being told to; it is started again after a wait."""

    role: str
    instance: int
    pid: int
    exit_code: int
    restart_in: float

    def __str__(self) -> str:
        return (
            f"worker {self.role}/{self.instance} (pid {self.pid}) ended with {self.exit_code}; "
            f"starting it again in {self.restart_in:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class WorkerRestarted:
    """A worker that ended was started again, for the *restarts*-th time."""

    role: str
    instance: int
    pid: int
    restarts: int

    def __str__(self) -> str:
        return f"worker {self.role}/{self.instance} started again (pid {self.pid}, restart {self.restarts})"


@dataclass(frozen=True, slots=True)
class WorkerUnstartable:
    """A worker could not even be started again; tried again after a wait."""

    role: str
    instance: int
    reason: str
    restart_in: float

    def __str__(self) -> str:
        return (
            f"worker {self.role}/{self.instance} cannot be started ({self.reason}); "
            f"trying again in {self.restart_in:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class StackStarted:
    """Every component is healthy, and so is every worker that was asked for."""

    components: int
    workers: int

    def __str__(self) -> str:
        return f"{self.components} components and {self.workers} workers are healthy"


@dataclass(frozen=True, slots=True)
class StackStopped:
    """Everything that was started has ended."""

    def __str__(self) -> str:
        return "everything has been stopped"


@dataclass(frozen=True, slots=True)
class StackStopping:
    """Everything is being stopped."""

    def __str__(self) -> str:
        return "stopping everything"


StackEvent = (
    ComponentStarting
    | ComponentReady
    | ComponentDied
    | TopicsPreparing
    | WorkerStarted
    | WorkerReady
    | WorkerDied
    | WorkerRestarted
    | WorkerUnstartable
    | StackStarted
    | StackStopping
    | StackStopped
)
Report = Callable[[StackEvent], None]


def silent(event: StackEvent) -> None:
    """Tell nobody."""
    del event
