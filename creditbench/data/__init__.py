"""Data from files and from the Hugging Face hub, as NumPy arrays.

- `reading`: the functions that read, and the cache
- `files`: a user's file; `hub`: a data set of the hub; `loading`: the library `datasets`
- `numbers`: the columns of a table; `hours`: hourly rows; `pictures`: images and their classes

The examples of these names go on from this one:

>>> from pathlib import Path
>>> hours = "date,T\\n2024-01-01 00:00,1.5\\n2024-01-01 01:00,2.5\\n"
>>> _ = Path("hours.csv").write_text(hours), Path("book.txt").write_text("to be")
"""

from creditbench.data.hub import absolute
from creditbench.data.reading import Arrays, Seen, cached, noting, read_images, read_table, read_text

__all__ = ["Arrays", "Seen", "absolute", "cached", "noting", "read_images", "read_table", "read_text"]
