"""What a confined process of the tests does."""

import ctypes
import os
import threading
import time


def forks(order, send):
    """Start processes that leave the session."""
    for _ in range(order["count"]):
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
            os._exit(0)
    send(done=True)
    time.sleep(600)


def burns(order, send):
    """Take processor time."""
    while True:
        pass


def reaches_out(order, send):
    """Ask the system, past Python, for what reaches other processes: the number of each refusal.

    Turns are asked for of this very process, to which nothing but the filter would refuse them.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def number(result):
        return ctypes.get_errno() if result == -1 else 0

    pair, priority = (ctypes.c_int * 2)(), ctypes.c_int(0)
    send(
        socketpair=number(libc.socketpair(1, 2, 0, pair)),
        setpriority=number(libc.setpriority(0, 0, 0)),
        sched_setscheduler=number(libc.sched_setscheduler(0, 0, ctypes.byref(priority))),
    )


def starts_as_cuda_does(order, send):
    """What CUDA does as it starts, and beside it what it does not: the number of each refusal, 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)

    def number(result):
        return ctypes.get_errno() if result == -1 else 0

    def opened(path, flags):
        try:
            os.close(os.open(path, flags))
        except OSError as error:
            return error.errno
        return 0

    found = {}
    named = threading.Thread(
        target=lambda: found.update(
            name=opened(f"/proc/self/task/{threading.get_native_id()}/comm", os.O_WRONLY)
        )
    )
    named.start()
    named.join()
    own = libc.socket(1, 1, 0)
    address = b"\x01\x00" + b"/nowhere"
    send(
        **found,
        unix=number(own),
        connect=number(libc.connect(max(own, 0), address, len(address))),
        internet=number(libc.socket(2, 1, 0)),
        scores=opened("/proc/self/autogroup", os.O_WRONLY),
        others=opened(f"/proc/{order['parent']}/comm", os.O_WRONLY),
    )
