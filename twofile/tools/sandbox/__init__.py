"""Running what nobody trusts. The standard library alone: `keeper`, `enter` and `worker` run in interpreters of their
own."""
