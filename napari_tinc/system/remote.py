"""Files on servers and in object stores, read range by range."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from napari_tinc.errors import InputError

# A server may claim any size.
_MOST = 2**30


def is_url(path: object) -> bool:
    """Whether a path is the address of something elsewhere, such as ``https://…`` or ``s3://…``."""
    return isinstance(path, str) and "://" in path


class RemoteFile:
    """A file that is read by ranges of bytes.

    Parameters
    ----------
    url : str
        Of a kind that fsspec knows.

    Raises
    ------
    InputError
        If it cannot be opened, or what serves it cannot send parts of it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            import fsspec

            system, path = fsspec.core.url_to_fs(url)
            # Without a cache of its own: what is read is what was asked for.
            self._file: Any = system.open(path, "rb", cache_type="none")
            size = getattr(self._file, "size", None)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"expected an address that can be read, got {url}: {error}; pip install fsspec[http]"
            ) from error
        except Exception as error:
            raise self._problem(error) from error
        if not isinstance(size, int) or self._is_streamed:
            raise InputError(
                f"expected a server that sends parts of files, got one that does not: download {url} first"
            )
        self.size = size
        self._lock = threading.Lock()
        weakref.finalize(self, self._file.close)

    @property
    def _is_streamed(self) -> bool:
        return type(self._file).__name__ == "HTTPStreamFile"

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` to ``stop``.

        Raises
        ------
        InputError
            If they cannot be read, or others come.
        """
        if stop - start > _MOST:
            raise InputError(
                f"expected to read at most {_MOST} bytes of {self.url} at once, not {stop - start}: download it"
            )
        try:
            with self._lock:
                self._file.seek(start)
                data: bytes = self._file.read(stop - start)
        except Exception as error:
            raise self._problem(error) from error
        if len(data) != stop - start:
            raise InputError(f"expected {stop - start} bytes of {self.url}, got {len(data)}: download it first")
        return data

    def _problem(self, error: Exception) -> InputError:
        said = str(error) or type(error).__name__
        return InputError(f"expected a readable file, got {self.url}: {said}; check the address")


__all__ = ["RemoteFile", "is_url"]
