"""Processes are recognised by pid and start time, never by pid alone."""

import os
import signal
import subprocess
import sys

from infra.local.identity import MARKER, Identity, marked, read_stat
from infra.local.machine import environment

SLEEP = (sys.executable, "-c", "import time; print(flush=True); time.sleep(60)")


def own() -> Identity:
    """Return the identity of this very process."""
    found = Identity.of(os.getpid())
    assert found is not None
    return found


def test_this_process_is_alive() -> None:
    """A running process is recognised."""
    assert own().alive()


def test_a_reused_pid_is_another_process() -> None:
    """The same pid with another start time is not the process that was meant, and gets no signal."""
    stranger = Identity(os.getpid(), own().started + 1)

    assert not stranger.alive()
    assert not stranger.send(signal.SIGKILL)


def test_an_ended_process_is_gone_even_before_it_is_reaped() -> None:
    """A zombie does not count as running."""
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as child:
        identity = Identity.of(child.pid)
        assert identity is not None
        assert identity.alive()

        assert identity.send(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

        assert not identity.alive()
        assert read_stat(child.pid) is None


def test_a_pid_that_never_was_has_no_identity() -> None:
    """No process, no identity."""
    assert Identity.of(2**22 + 1) is None


def test_a_process_is_found_by_the_marker_in_its_environment() -> None:
    """Descendants are found whose pids nobody wrote down, and only those of the marker."""
    with_marker = {**environment(), MARKER: "test-identity"}
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE, env=with_marker) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            assert [identity.pid for identity in marked("test-identity")] == [child.pid]
            assert list(marked("test-identity", session=1)) == []
            assert list(marked("test-identit")) == []
        finally:
            child.kill()
