"""Entry functions of the tests' confined processes."""

import ctypes
import mmap
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
    """Make system calls, not through Python, that reach other processes: the number of each refusal.

    Scheduling calls name this process itself, for which only the filter would refuse them.
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
    """Calls that CUDA makes at its start, and calls that it does not: the number of each refusal, or 0."""
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


def calls_what_it_may_not(order, send):
    """Make some forbidden calls twice: the number of each refusal."""
    libc, found = ctypes.CDLL(None, use_errno=True), {}
    for _ in range(2):
        for name, call in {
            "inotify_init1": lambda: libc.inotify_init1(0),
            "fchmod": lambda: libc.fchmod(1, 0o600),
            "newest": lambda: libc.syscall(100_000),
        }.items():
            found[name] = ctypes.get_errno() if call() == -1 else 0
    send(**found)


def asks_without_end(order, send):
    """Make a forbidden call again and again, in several threads."""
    libc = ctypes.CDLL(None)

    def ask():
        while True:
            libc.inotify_init1(0)

    for _ in range(3):
        threading.Thread(target=ask, daemon=True).start()
    ask()


def reads_nothing_at_length(order, send):
    """Read one byte in two million of memory that was never written."""
    libc, length, huge = ctypes.CDLL(None), 1 << 37, 2 << 20
    libc.mmap.restype = ctypes.c_void_p
    place = libc.mmap(None, ctypes.c_size_t(length), 1, 0x4022, -1, ctypes.c_long(0))
    libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(length), mmap.MADV_NOHUGEPAGE)
    for at in range(place, place + length, huge):
        ctypes.string_at(at, 1)
    time.sleep(600)


def takes_at_once(order, send):
    """Take memory faster than anyone looks."""
    kept = b"x" * order["bytes"]
    send(kept=len(kept))


def shares_and_lets_go(order, send):
    """Take shared memory that is resident nowhere: written, then let go, and kept all the same."""
    kept = []
    for _ in range(order["parts"]):
        kept.append(mmap.mmap(-1, 16 << 20))
        kept[-1].write(bytes(16 << 20))
        kept[-1].madvise(mmap.MADV_DONTNEED)
    send(kept=len(kept))


def waits(order, send):
    """Do nothing for a while."""
    send(ready=True)
    time.sleep(60)


def works_honestly(order, send):
    """Acts that a rule may do in its folder, with its threads and with its libraries."""
    import io
    import json
    import shutil
    import tempfile
    import zipfile
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    import numpy as np

    folder = Path("kept")
    folder.mkdir()
    np.savez(folder / "a.npz", a=np.ones(3))
    np.savez_compressed(folder / "b.npz", a=np.ones(3))
    np.save(folder / "c.npy", np.ones((64, 64)))
    for mode in ("r", "c", "r+"):
        np.load(folder / "c.npy", mmap_mode=mode).sum()
    with tempfile.TemporaryDirectory() as other, tempfile.TemporaryFile() as file:
        file.write(b"x" * 10_000)
        file.truncate(10)
        (Path(other) / "d").write_text("d")
        os.replace(Path(other) / "d", folder / "d")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as named:
        json.dump({"a": 1}, named)
    with zipfile.ZipFile(folder / "e.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "d")
    shutil.copyfile(folder / "c.npy", folder / "f.npy")
    seen = [path.stat().st_size for path in sorted(folder.rglob("*"))]
    shutil.rmtree(folder)
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda seed: np.linalg.svd(np.random.default_rng(seed).standard_normal((64, 64))), range(8)
            )
        )
    if order["backend"] == "torch":
        import torch

        torch.save({"a": torch.ones(3)}, buffer := io.BytesIO())
        torch.save({"a": torch.ones(3)}, "g.pt")
        torch.load("g.pt")
        torch.set_num_threads(2)
        torch.linalg.svd(torch.randn(256, 256) @ torch.randn(256, 256))
        seen.append(len(buffer.getvalue()))
    else:
        import jax

        jax.numpy.save("h.npy", jax.numpy.ones(3))
        jax.jit(lambda x: jax.numpy.linalg.svd(x @ x)[1])(jax.numpy.ones((256, 256))).block_until_ready()
        jax.devices(), jax.random.normal(jax.random.key(0), (3,))
    time.sleep(0.01)
    send(seen=len(seen), cores=os.cpu_count(), load=os.times().elapsed > 0, random=len(os.urandom(4)))
