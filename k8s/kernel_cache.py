"""Lets numba use the kernels that were compiled into the image, whose file system is read-only."""

from numba.core.caching import InTreeCacheLocator


class ReadOnly(InTreeCacheLocator):
    """The folder `__pycache__` beside the source; numba's own locator wants to write there."""

    def ensure_cache_path(self) -> None:
        """Accept the folder as it is."""
