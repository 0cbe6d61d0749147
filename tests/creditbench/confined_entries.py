"""What a confined process of the tests does."""

import ctypes
import os
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
