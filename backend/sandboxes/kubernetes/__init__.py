"""Sandboxes on Kubernetes: `Sandbox` objects of kubernetes-sigs/agent-sandbox, seen through watches."""
