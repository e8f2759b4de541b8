"""Vector stores: documents that are cut into passages, embedded, and found again.

`reader` reads documents in a process of its own, `chunks` cuts them, `ingest` takes each to its end, `index` finds.
"""
