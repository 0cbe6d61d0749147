"""Data from files and from the Hugging Face hub, as NumPy arrays.

- `reading`: the functions that read, the cache, the refusals
- `numbers`: the columns of a table; `hours`: hourly rows; `pictures`: images and their classes
"""

from creditbench.data.reading import (
    Arrays,
    Seen,
    absolute,
    cached,
    noting,
    read_images,
    read_table,
    read_text,
)

__all__ = ["Arrays", "Seen", "absolute", "cached", "noting", "read_images", "read_table", "read_text"]
