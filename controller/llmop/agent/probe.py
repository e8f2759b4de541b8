"""Looks at a node for `llmctl preflight`: one file, Python 3.6 or newer, standard library only.

The batch script of a preflight runs it as it would run the agent: `python -I probe.py --config probe.json`. It writes what it found to
report.json beside its configuration, then waits a little at the door for the gateway's side to knock. It judges nothing.
"""

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Sequence

Document = Dict[str, Any]

CLONE_NEWUSER = 0x10000000  # <linux/sched.h>
COMMAND_S = 60.0
CONNECT_S = 10.0
DOOR_S = 45.0
MOST_WORDS = 2000


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    path = parser.parse_args(argv).config
    with open(path) as file:
        config = json.load(file)
    agent = load(config["agent"])
    report = look(config, agent, dict(os.environ))
    door = open_door(agent, report["controllers"])
    report["door"] = None if door is None else {"host": door[1], "port": door[0].getsockname()[1]}
    write(os.path.join(os.path.dirname(path), "report.json"), report)
    if door is not None:
        answer(door[0], config["word"])
    return 0


def load(path: str) -> Any:
    """The agent as a module: what it would do is tried with its own functions."""
    spec = importlib.util.spec_from_file_location("llmop_agent", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def look(config: Document, agent: Any, environment: Dict[str, str]) -> Document:
    runtime = container_runtime(environment)
    return {
        "python": platform.python_version(),
        "host": environment.get("SLURMD_NODENAME") or socket.gethostname(),  # as Slurm and Replicas name it
        "path": environment.get("PATH", ""),
        "shared": shared(config["sharedDir"]),
        "missing": [path for path in config["requires"] if not os.path.exists(path)],
        "container": {"runtime": runtime, "version": words([runtime, "--version"])[1] if runtime else ""},
        "namespaces": namespaces(),
        "fuse": os.path.exists("/dev/fuse"),
        "image": image(config, agent, runtime, environment),
        "gpus": {
            name: environment[name]
            for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
            if name in environment
        },
        "controllers": [controller(url, config["ca"]) for url in config["controllers"]],
    }


def shared(directory: str) -> Document:
    """Whether the shared directory can be written here, knows hard links, and how much is free."""
    try:
        free = os.statvfs(directory)
        place = tempfile.mkdtemp(prefix=".preflight-", dir=directory)
        try:
            first = os.path.join(place, "first")
            with open(first, "w") as file:
                file.write("x")
            os.link(first, os.path.join(place, "second"))
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return {"problem": "", "freeMiB": free.f_bavail * free.f_frsize >> 20}
    except OSError as error:
        return {"problem": "{}: {}".format(error.filename or directory, error.strerror), "freeMiB": 0}


def container_runtime(environment: Dict[str, str]) -> str:
    for name in ("apptainer", "singularity"):
        found = shutil.which(name, path=environment.get("PATH") or os.defpath)
        if found:
            return found
    return ""


def namespaces() -> Document:
    """Whether this account may make a user namespace: an Apptainer without setuid needs one."""
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        os._exit(0 if libc.unshare(CLONE_NEWUSER) == 0 else min(ctypes.get_errno(), 120) or 120)
    status = os.waitpid(child, 0)[1]
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 120
    return {"problem": os.strerror(code) if code else ""}


def image(config: Document, agent: Any, runtime: str, environment: Dict[str, str]) -> Document:
    """Starts nothing in the image, the way the agent starts an engine there."""
    if not config["image"] or not runtime or not os.path.exists(config["image"]):
        return {"tried": False, "problem": "", "seconds": 0.0}
    scratch = tempfile.mkdtemp(prefix="preflight-", dir=environment.get("SLURM_TMPDIR") or None)
    try:
        for name in ("home", "tmp", "container"):
            os.mkdir(os.path.join(scratch, name), 0o700)
        binds = ["{0}:{0}".format(scratch)] + config["binds"]
        command = agent.container_command(runtime, scratch, binds, scratch, config["gpu"])
        own = {
            "PATH": environment.get("PATH") or os.defpath,
            "HOME": environment.get("HOME") or os.path.join(scratch, "home"),
            "USER": environment.get("USER") or "user",
            "TMPDIR": os.path.join(scratch, "tmp"),
            "LANG": "C.UTF-8",
        }
        own.update(agent.container_directories(scratch))
        began = time.monotonic()
        code, said = words([*command, config["image"], "/bin/sh", "-c", "exit 0"], own, 300.0)
        problem = "" if code == 0 else said or "ended with code {}".format(code)
        return {"tried": True, "problem": problem, "seconds": round(time.monotonic() - began, 1)}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def controller(url: str, authority: str) -> Document:
    """Whether the controller's agent listener can be reached from here, and is the right one."""
    parts = url.split("://", 1)[-1].rsplit(":", 1)
    host, port = parts[0].strip("[]"), int(parts[1])
    try:
        context = ssl.create_default_context(cadata=authority)
        context.check_hostname = False  # nodes trust the installation's own authority, whatever the name
        with socket.create_connection((host, port), CONNECT_S) as plain:
            with context.wrap_socket(plain) as secure:
                return {"url": url, "problem": "", "source": secure.getsockname()[0]}
    except (OSError, ValueError) as error:
        return {"url": url, "problem": str(error) or type(error).__name__, "source": ""}


def open_door(agent: Any, controllers: List[Document]) -> Any:
    """A listening socket on a port that an engine could get, and the address where it is to be reached; None without one."""
    source = next((each["source"] for each in controllers if not each["problem"]), "")
    if not source and controllers:
        # What an agent would say that its engine's address is.
        source = agent.Addresses(controllers[0]["url"]).host or agent.own_address()
    if not source:
        return None
    ports = agent.candidates(agent.ephemeral_range())
    random.SystemRandom().shuffle(ports)
    for port in ports[:100]:
        door = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_STREAM)
        try:
            door.bind((source if agent.is_loopback(source) else "", port))
            door.listen(4)
            return door, source
        except OSError:
            door.close()
    return None


def answer(door: socket.socket, word: str) -> None:
    """Says the word to whoever knocks: then it is known that it was this door."""
    until = time.monotonic() + DOOR_S
    with door:
        while True:
            left = until - time.monotonic()
            if left <= 0:
                return
            door.settimeout(left)
            try:
                guest = door.accept()[0]
            except OSError:
                return
            with guest:
                try:
                    guest.settimeout(CONNECT_S)
                    guest.sendall(word.encode("ascii") + b"\n")
                    return
                except OSError:
                    continue


def words(argv: Sequence[str], environment: Any = None, seconds: float = COMMAND_S) -> Any:
    """(exit code, the last of what it said)."""
    try:
        done = subprocess.run(
            list(argv),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, "did not end within {:.0f} s".format(seconds)
    except OSError as error:
        return -1, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()[-MOST_WORDS:]


def write(path: str, document: Document) -> None:
    """Whole or not at all: the reader may look at any time."""
    with open(path + ".new", "w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
