"""YAML text to domain values and back: loading with line numbers, schema, defaults, validation, merging, explaining.

What belongs here: everything that knows how a manifest is written, and the only use of pydantic and PyYAML.
What does not: decisions about replicas (`planner`), how an engine is started (`runtimes`), and I/O: callers read and store.

The way of a manifest: `load.load` (text to documents with positions) -> `merge.apply` (into what is stored; uses `admit.admit`) ->
`references.check` (against the other objects) -> stored -> `convert` (to the planner's values).
"""
