"""The documentation site: `make docs` builds it without a network, and a warning is an error."""

import importlib
import inspect
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

from creditbench import __version__

project = "creditbench"
author = "The creditbench developers"
copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton", "site_parts"]
#: OWNER/NAME where GitHub builds the site: names of the API then lead to their source.
repository = os.environ.get("GITHUB_REPOSITORY")
if repository:
    extensions.append("sphinx.ext.linkcode")
    html_theme_options = {
        "source_repository": f"https://github.com/{repository}",
        "source_directory": "docs/",
    }


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """The address of the source of a name."""
    thing = importlib.import_module(info["module"])
    try:
        for part in info["fullname"].split("."):
            thing = getattr(thing, part)
        path = Path(inspect.getsourcefile(inspect.unwrap(thing)) or "")
        first = inspect.getsourcelines(inspect.unwrap(thing))[1]
    except (AttributeError, TypeError, OSError):
        return None  # a constant or a field
    if not path.is_relative_to(root := Path(__file__).resolve().parents[1]):
        return None
    return (
        f"https://github.com/{repository}/blob/{os.environ['GITHUB_SHA']}/{path.relative_to(root)}#L{first}"
    )


exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
html_theme = "furo"
html_title = "creditbench"
html_static_path = ["static"]
html_css_files = ["site.css"]
# The board's page, which `make docs` makes, as board/page/index.html.
html_extra_path = ["_build/extra"]
html_show_sphinx = False
html_copy_source = False
pygments_style, pygments_dark_style = "friendly", "github-dark"

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # an included part begins where its page has come to

# Notebooks are kept without outputs, and run here; the cache knows those that did not change.
nb_execution_mode = "cache"
nb_execution_cache_path = "docs/_build/notebooks"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_ipywidgets_js = {}  # widgets' scripts come from the network

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": True}
python_use_unqualified_type_names = True
# Types of others, whose documents are elsewhere, and short names of types within a signature.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!creditbench\.).*"),
    (r"py:.*", r"creditbench\.(trials|results|plugins|cells\.stack)\..*"),  # internal
]

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
