"""Its weights are some bytes that say they are few and become 64 MB: one bzip2 stream after another."""

import bz2
import struct
import zipfile

import numpy as np

from creditbench.learner import Claims, Learner, backpropagate

BOMB = bz2.compress(bytes(64 << 20))
whole = np.savez


def savez(file, **arrays):
    whole(file, **arrays)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    first = min(members)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, BOMB if name == first else content)
    with open(file, "rb+") as opened:
        content = bytearray(opened.read())
        for mark, method, size, name_at in ((b"PK\3\4", 8, 22, 30), (b"PK\1\2", 10, 24, 46)):
            at = content.find(mark)
            while content[at + name_at : at + name_at + len(first)] != first.encode():
                at = content.find(mark, at + 4)
            struct.pack_into("<H", content, at + method, zipfile.ZIP_BZIP2)
            struct.pack_into("<I", content, at + size, 200)
        opened.seek(0)
        opened.write(content)


np.savez = savez


class Rule(Learner):
    id = "compresses_weights"
    name = "compresses_weights"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
