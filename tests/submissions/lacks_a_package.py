"""A rule that needs a package that is not there."""

import no_such_package_at_all  # noqa: F401
