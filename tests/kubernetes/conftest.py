"""Clusters for tests: a double, or the real one that LAP_TEST_KUBECONFIG names."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.double import Double

REAL = os.environ.get("LAP_TEST_KUBECONFIG")


@dataclass(frozen=True)
class RealCluster:
    """A cluster somebody has prepared, with agent-sandbox, and a namespace in it that is ours for one test."""

    kubeconfig: Path
    namespace: str


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Double | RealCluster]:
    """A cluster whose sandboxes really run. Parametrized indirectly it takes the options of Double as a dictionary."""
    options: dict[str, Any] = {"mode": "processes", **getattr(request, "param", {})}
    if REAL is None:
        with Double(**options) as double:
            yield double
        return
    kubernetes = pytest.importorskip("kubernetes")
    client = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(REAL))
    namespace = f"lap-test-{uuid.uuid4().hex[:8]}"
    client.create_namespace({"metadata": {"name": namespace}})
    try:
        yield RealCluster(Path(REAL), namespace)
    finally:
        client.delete_namespace(namespace)


@pytest.fixture
def double(request: pytest.FixtureRequest) -> Iterator[Double]:
    """A double without processes, for faults and scripted outcomes; tests with it are skipped on a real cluster."""
    if REAL is not None:
        pytest.skip("faults cannot be made in a real cluster")
    with Double(**getattr(request, "param", {})) as made:
        yield made
