"""Every decision of the control plane, as functions of frozen values.

`compute.plan` is the door: (desired, observed) -> Plan. `now` and new names are arguments; nothing here reads a clock, a file or
the network, and nothing here carries out what it decides (`reconciler.execute` does).
"""
