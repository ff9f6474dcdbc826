"""What live tests need from other machines is fetched by other processes, before the tests run."""

import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def kafka_jars() -> None:
    """Have Kafka's jars in the cache; tests themselves may not reach the network."""
    subprocess.run([sys.executable, "-m", "infra.local.kafka_jars"], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def triton_environment() -> None:
    """Have Triton's environment in the cache."""
    subprocess.run([sys.executable, "-m", "infra.local.triton_env"], check=True, stdout=subprocess.DEVNULL)
