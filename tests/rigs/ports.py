"""Ports for servers that a test starts a moment later."""

import random
import socket

PORTS = range(4000, 10000)


def free_port() -> int:
    """A port that nobody listens at, and that nobody takes meanwhile: the kernel gives connections none of these (ip_local_port_range), and
    agents give their engines none. What tests in other processes choose is another one but for a chance of one in thousands.
    """
    chance = random.SystemRandom()  # hypothesis makes `random` the same in all processes
    for port in chance.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
    raise OSError(f"all ports from {PORTS.start} to {PORTS.stop} are taken")
