"""What containers have written, and the questions a kubelet answers or refuses about it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.kubernetes.double import errors
from tests.kubernetes.double.store import Object, Store

if TYPE_CHECKING:
    from tests.kubernetes.double.kubelet import Kubelet, Pod

Query = dict[str, str]
Line = tuple[float, str]
"""When it came (seconds since the epoch), and its text with the line's end."""
_LOOK_SECONDS = 0.05
_YES = ("true", "1")
_NO_PULL = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}


class Logs:
    """Answers pods/log."""

    def __init__(self, store: Store, kubelet: "Kubelet") -> None:
        self._store, self._kubelet = store, kubelet

    def read(self, namespace: str, name: str, query: Query) -> str | None:
        """The log a query asks for; None for a pod without a node. Raises Refused."""
        run, first = self._find(namespace, name, query)
        return None if run is None else _render(_selected(run.read() if first else [], query), query)

    async def follow(self, namespace: str, name: str, query: Query) -> AsyncIterator[str]:
        """What is there, then what comes, until the container has ended."""
        run, first = self._find(namespace, name, query)
        lines = run.read() if run is not None and first else []
        yield _render(_selected(lines, query), query)
        while run is not None and first:
            seen = lines[-1] if lines else None
            run.more.clear()
            over = (
                run.plan is None or "running" not in run.plan.state or not self._kubelet.is_there(namespace, name, run)
            )
            lines = run.read()
            start = next((number + 1 for number in range(len(lines) - 1, -1, -1) if lines[number] is seen), 0)
            yield _render(lines[start:], query)
            if over:
                return
            with contextlib.suppress(TimeoutError):  # A file tells nobody when it grows.
                await asyncio.wait_for(run.more.wait(), None if run.file is None else _LOOK_SECONDS)

    def _find(self, namespace: str, name: str, query: Query) -> "tuple[Pod | None, bool]":
        """What runs for a pod, and whether the question is about its first container. Raises Refused."""
        pod = self._store.entry("pods", namespace, name).obj
        _check(name, query)
        names = [entry["name"] for part in ("containers", "initContainers") for entry in pod["spec"].get(part, ())]
        mains = len(pod["spec"]["containers"])
        container = query.get("container") or (names[0] if mains == 1 else "")
        if not container:
            listed = " ".join(names[:mains])
            raise errors.bad_request(f"a container name must be specified for pod {name}, choose one of: [{listed}]")
        if container not in names:
            raise errors.bad_request(f"container {container} is not valid for pod logs")
        if not pod["spec"].get("nodeName"):
            return None, False
        if pod["spec"]["nodeName"] in self._kubelet.lost:
            at = f"{pod['status'].get('hostIP', '')}:10250"
            where = f"https://{at}/containerLogs/{namespace}/{name}/{container}"
            raise errors.Refused(500, "InternalError", f'Get "{where}": dial tcp {at}: connect: no route to host')
        run = self._kubelet.pods.get(pod["metadata"]["uid"])
        self._check_started(pod, run, container, is_init=names.index(container) >= mains, query=query)
        return run, container == names[0]

    @staticmethod
    def _check_started(pod: Object, run: "Pod | None", container: str, *, is_init: bool, query: Query) -> None:
        told, name = run.plan if run is not None else None, pod["metadata"]["name"]
        if query.get("previous") in _YES:
            if told is None or "terminated" not in told.last or told.init != is_init:
                text = f'previous terminated container "{container}" in pod "{name}" not found'
                raise errors.bad_request(text)
        elif told is None or told.log is None or (told.init and not is_init):
            statuses = pod["status"].get("containerStatuses") or [{}]
            reason = statuses[0].get("state", {}).get("waiting", {}).get("reason", "ContainerCreating")
            text = f'container "{container}" in pod "{name}" is waiting to start: {_NO_PULL.get(reason, reason)}'
            raise errors.bad_request(text)


def _check(name: str, query: Query) -> None:
    for option in ("tailLines", "sinceSeconds", "limitBytes"):
        least = 0 if option == "tailLines" else 1
        if option in query and int(query[option]) < least:
            text = f"Invalid value: {query[option]}: must be greater than or equal to {least}"
            cause = {"reason": "FieldValueInvalid", "message": text, "field": option}
            raise errors.invalid("PodLogOptions", "", name, [cause])


def _selected(lines: list[Line], query: Query) -> list[Line]:
    if "sinceSeconds" in query:
        oldest = time.time() - int(query["sinceSeconds"])
        lines = [line for line in lines if line[0] >= oldest]
    if "sinceTime" in query:  # The API server asks kubelets in whole seconds.
        oldest = int(datetime.fromisoformat(query["sinceTime"]).timestamp())
        lines = [line for line in lines if line[0] >= oldest]
    if "tailLines" in query:
        lines = lines[-int(query["tailLines"]) :] if int(query["tailLines"]) else []
    return lines


def _render(lines: list[Line], query: Query) -> str:
    if query.get("timestamps") in _YES:
        stamps = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") for at, _ in lines)
        text = "".join(f"{stamp}000Z {line}" for stamp, (_, line) in zip(stamps, lines, strict=True))
    else:
        text = "".join(line for _, line in lines)
    limit = query.get("limitBytes")
    return text.encode()[: int(limit)].decode(errors="replace") if limit else text
