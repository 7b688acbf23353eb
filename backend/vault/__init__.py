"""The egress proxy: a process of its own that rules on all traffic of sandboxes and alone holds their credentials."""
