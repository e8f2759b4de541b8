"""`llmctl bench`: load of a known shape, what came of it, and the report.

Pure: `loads` (what is sent when), `prompts`, `dialects` (bodies and events), `traces`, `measures` (figures of what was seen), `refused`
(what a failed first request means), `charts`, `plots`, `picture` and `page`. Effects: `wire` (HTTP of many streams in one thread), `drive`
(loops), `results` (files), `startup` (how long a replica takes to begin). What runs against our own yardsticks is hack/bench and no part
of this.
"""
