"""Where control groups are looked for, on machines of every kind."""

import os
from pathlib import Path

import pytest

from backend.sandboxes.local import limits
from backend.sandboxes.local.limits import Hierarchy, Limits


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that takes the place of /sys/fs/cgroup; anyone who can write there may move a process."""

    def lets_us_in(parent: Path) -> bool:
        return os.access(parent, os.W_OK) and not (parent / "closed").exists()

    monkeypatch.setattr(limits, "_lets_us_in", lets_us_in)
    monkeypatch.setattr(limits, "CGROUP_ROOT", tmp_path / "cgroup")
    return tmp_path


def find(machine: Path, mounts: list[str], membership: str) -> list[Hierarchy]:
    (machine / "mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    (machine / "membership").write_text(membership)
    return limits.hierarchies(machine / "mountinfo", machine / "membership")


def group(directory: Path, handed_down: str = "") -> Path:
    directory.mkdir(parents=True)
    (directory / "cgroup.subtree_control").write_text(handed_down)
    (directory / "cgroup.procs").write_text("")
    return directory


def test_v2_takes_the_nearest_ancestor_that_hands_its_controllers_down(machine: Path) -> None:
    top = group(machine / "cgroup", "cpu memory pids")
    slice_ = group(top / "user.slice", "memory pids")
    group(slice_ / "session.scope")
    found = find(machine, [f"31 23 0:28 / {top} rw - cgroup2 cgroup2 rw"], "0::/user.slice/session.scope\n")
    assert found == [Hierarchy(slice_, ("memory", "pids"), 2)]


def test_v2_passes_over_what_it_may_not_enter(machine: Path) -> None:
    top = group(machine / "cgroup", "memory")
    slice_ = group(top / "user.slice", "memory pids")
    (slice_ / "closed").touch()
    found = find(machine, [f"31 23 0:28 / {top} rw - cgroup2 cgroup2 rw"], "0::/user.slice\n")
    assert found == [Hierarchy(top, ("memory",), 2)]


def test_v2_in_a_container_sees_its_own_root(machine: Path) -> None:
    top = group(machine / "cgroup")
    mount = [f"31 23 0:28 /docker/abc {top} rw - cgroup2 cgroup2 rw"]
    assert find(machine, mount, "0::/docker/abc\n") == []
    (top / "cgroup.subtree_control").write_text("memory")
    assert find(machine, mount, "0::/docker/abc\n") == [Hierarchy(top, ("memory",), 2)]
    assert find(machine, mount, "0::/../elsewhere\n") == [Hierarchy(top, ("memory",), 2)]


def test_hybrid_falls_to_v1(machine: Path) -> None:
    top = machine / "cgroup"
    group(top / "unified")
    memory = group(top / "memory" / "service")
    processors = group(top / "cpu,cpuacct")
    mounts = [
        f"1 1 0:1 / {top}/unified rw - cgroup2 cgroup2 rw",
        f"2 1 0:2 / {top}/memory rw shared:1 - cgroup cgroup rw,memory",
        f"3 1 0:3 / {top}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        f"4 1 0:4 / {top}/pids rw - cgroup cgroup rw,pids",
        "5 1 0:5 / /elsewhere rw - cgroup cgroup rw,pids",
        "nonsense",
    ]
    found = find(machine, mounts, "2:memory:/service\n3:cpu,cpuacct:/\n4:pids:/\n0::/\nnonsense\n")
    assert found == [Hierarchy(memory, ("memory",), 1), Hierarchy(processors, ("cpu",), 1)]


def test_no_control_groups(machine: Path) -> None:
    assert find(machine, [], "") == []
    assert limits.hierarchies(machine / "missing", machine / "missing") == []


def test_only_groups_of_the_sandbox_are_taken(machine: Path) -> None:
    top = machine / "cgroup"
    root = machine / "sandboxes" / "one"
    name = limits.group_name(root)
    own = group(top / "memory" / name)
    group(top / "system.slice")
    group(machine / name)
    other = group(top / limits.group_name(machine / "sandboxes" / "two"))
    recorded = [str(own), str(top), str(other), str(machine / name), f"{top}/../{name}", str(top / name), "", "/"]
    assert limits.find_groups(root, recorded) == [own]


@pytest.mark.parametrize("bad", [{"memory_mb": 0}, {"cpus": 0.0}, {"pids": 1}])
def test_limits_that_nothing_can_run_in_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Limits(**bad)  # type: ignore[arg-type]
