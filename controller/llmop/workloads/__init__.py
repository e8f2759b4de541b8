"""Workloads on top of plain inference: files, batches and bulk requests, in a process of their own.

They call models through the gateway, like any client. What is decided stands in `batch`, `lines`, `judgement` and `window`, which do
nothing by themselves; `engine` does it.
"""
