"""A double of a Kubernetes cluster with agent-sandbox: API server, controller, scheduler and kubelets, in this process.

    async with Double(nodes=2) as cluster:                      # or `with`; its own thread, nothing blocks
        client = ...(cluster.url, cluster.token)                 # or the file cluster.kubeconfig
        cluster.script("s-bad", "crash:3")                       # pods s-bad* will crash-loop (outcomes.OUTCOMES)
        await cluster.until("pods", "s-1", lambda pod: pod is not None and pod["status"]["phase"] == "Running")
        cluster.turn("s-1", "oom")                               # what runs comes to another end
        cluster.faults.cut_watches()                             # faults.Faults has all of them
        assert cluster.counts["list", "pods"] == 1               # requests so far by (verb, resource)

`Double(mode="processes")` runs the harness of each pod for real: pods, ClusterIPs, NodePorts and nodes have addresses
in 127.0.0.0/8 that answer. `python -m tests.kubernetes.double --help` serves one for kubectl.
"""

from tests.kubernetes.double.double import Double
from tests.kubernetes.double.faults import Faults
from tests.kubernetes.double.outcomes import OUTCOMES

__all__ = ["OUTCOMES", "Double", "Faults"]
