"""A day of requests played against autoscalers: traces, the world that answers, and the policies."""
