"""Runs `derain` in forks of a server that has imported what most commands need.

A small command spends most of its time on starting Python and PyTorch. A fork differs from a process of its
own in nothing else that a test looks at: it has the caller's folder, environment and standard streams, and
ends as the interpreter does.

    python forks.py --serve SOCKET     answers until its standard input ends
    python forks.py SOCKET ARGUMENTS   is `derain ARGUMENTS`
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LARGEST = 1 << 20  # bytes of a request


def call(
    address: str, arguments: Sequence[str], cwd: str, variables: Mapping[str, str], streams: Sequence[int]
) -> int:
    """`derain ARGUMENTS` in a fork of the server at `address`: its exit code.

    Args:
        streams: file descriptors of its standard input, output and error.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(600)
        connection.connect(address)
        request = json.dumps({"arguments": list(arguments), "cwd": cwd, "variables": dict(variables)})
        socket.send_fds(connection, [request.encode()], list(streams))
        answer = connection.recv(1)
    return answer[0] if answer else 1


def serve(address: str) -> None:
    """Answers requests; returns in each fork, which has become what it was asked to be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                break
            connection.close()
        else:
            sys.exit()
    request, streams, _, _ = socket.recv_fds(connection, LARGEST, 3)
    if command := os.fork():
        _, status = os.waitpid(command, 0)
        connection.send(bytes([os.waitstatus_to_exitcode(status) % 256]))
        os._exit(0)
    connection.close()
    _become(streams=streams, **json.loads(request))


def _become(arguments: Sequence[str], cwd: str, variables: Mapping[str, str], streams: Sequence[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Those of the server remember positions in what its descriptors led to.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["derain", *arguments]


if __name__ == "__main__":
    if sys.argv[1] != "--serve":
        sys.exit(call(sys.argv[1], sys.argv[2:], str(Path.cwd()), os.environ, (0, 1, 2)))
    import derain.evaluation
    import derain.restore
    import derain.training  # noqa: F401
    from derain.__main__ import main

    serve(sys.argv[2])
    main()
