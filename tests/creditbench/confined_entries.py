"""What a confined process of the tests does."""

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
