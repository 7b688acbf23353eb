"""`python -m tests.kubernetes.double`: a double until Ctrl-C; prints its kubeconfig."""

import argparse
import signal
import sys

from tests.kubernetes.double import Double


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.double", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the API server (default: any free one)")
    parser.add_argument("--mode", choices=("simulated", "processes"), default="processes", help="of the containers")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--claims", action="store_true", help="serve templates, warm pools and claims as well")
    parser.add_argument("--script", action="append", default=[], metavar="PREFIX=OUTCOME", help="e.g. s-bad=crash:3")
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("port", "mode", "nodes", "namespace", "claims")}
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    with Double(**options, tls=True) as cluster:  # kubectl presents no token without.
        for rule in arguments.script:
            prefix, _, outcome = rule.partition("=")
            cluster.script(prefix, outcome)
        print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
