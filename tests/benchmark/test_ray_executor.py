"""A real Ray cluster of two nodes on this machine, one of which is lost in mid-sweep."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_toys import small_spec

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

from unrote.benchmark import Store, build_tables, run_benchmark  # noqa: E402
from unrote.benchmark.ray_executor import RayExecutor  # noqa: E402
from unrote.benchmark.spec import Spec  # noqa: E402


def spec() -> Spec:
    """A task that workers build by name, in jobs of one run each."""
    recipe = {"learning_rate": {"low": 1e-2, "high": 1e-1, "log": True}, "steps": 40}
    tasks = [{"name": "digits", "model": "linear", "recipe": recipe}]
    return small_spec(
        tasks=tasks, methods=["erm", "mat"], stack=1, search=2, seeds=2, oracle=False, evaluate_every=20
    )


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "include_dashboard": False,
            "object_store_memory": 100 * 2**20,
            # so that the loss is noticed in a second, not in half a minute
            "_system_config": {
                "health_check_initial_delay_ms": 0,
                "health_check_period_ms": 500,
                "health_check_failure_threshold": 3,
            },
        },
    )
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def test_a_lost_node_changes_nothing_in_the_table(tmp_path: Path, cluster: Any) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    # workers find what tests import by the driver's path
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    assert ray.cluster_resources()["CPU"] == 2
    store = Store(tmp_path / "ray.sqlite")
    lost_after: list[int] = []

    def lose_a_node() -> None:
        while sum(record.final for record in store.records().values()) < 3:
            time.sleep(0.02)
        lost_after.append(len(store.records()))
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    summary = run_benchmark(spec(), store, executor=RayExecutor())
    thread.join(timeout=60)
    assert summary.complete
    assert summary.counts["failed"] == 0
    assert lost_after
    assert lost_after[0] < summary.mine, "it was lost in mid-sweep"
    torch.set_num_threads(1)
    local = Store(tmp_path / "local.sqlite")
    run_benchmark(spec(), local)
    found, wanted = (build_tables(one).tasks[0].rows for one in (store, local))
    assert [(row.values, row.steps, row.configuration) for row in found] == [
        (row.values, row.steps, row.configuration) for row in wanted
    ]
