"""Scores, statistics and pictures, made from tables.

- `board`: cells, ranks and who is compared with whom; `statistics`: means, intervals, tests
- `versus`: a rule against a reference; `compare`: one version against another; `claims`: claims of rules
- `text`: all of these as Markdown; `page`, `charts`: the page; `pages`: a folder of them
- `figures`: for print; `export`: a data set
"""
