"""The nouns of llmop: frozen values without behaviour beyond what follows from their own fields.

No I/O, no clock, no YAML, no validation of what users typed (that is `manifest`), no decisions (that is `planner`).
Times are float seconds since the epoch (UTC), names end in `_at`; durations are seconds, names end in `_s`.
"""
