"""An engine without a model: the HTTP surface of Text-Generation-Inference and of OpenAI over simulated time.

What belongs here: the two dialects as a real engine speaks them (answers, streams, errors, metrics), the
timing physics (prefill rate, decode time per batch, KV capacity), and faults on demand.
What does not: anything that knows about llmop. The package imports nothing but the Python standard library
(3.11 or newer), so that the folder alone can be mounted into a container and started:
`python3 -m llmop.simulator` or `python3 <the folder>`.
"""
