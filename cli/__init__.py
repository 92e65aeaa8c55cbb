"""The `vlmq` command: starts everything on one machine, and asks."""
