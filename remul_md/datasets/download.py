"""Fetch registered data sets over the net, checked against their sha256."""

from __future__ import annotations

from pathlib import Path

from remul_md.datasets.registry import cached_file, find_entry
from remul_md.errors import InputError


def fetch(
    name: str, *, cache_dir: str | Path | None = None, base_url: str | None = None, timeout_s: float = 30.0
) -> Path:
    """Download a registered data set into the cache, unless it is there already; returns the file.

    The file appears under its name only when it is complete and its sha256 is right: pooch downloads to a
    temporary file beside it and moves that.

    Args:
        name: a name of `list_datasets`, such as `ccsdt/ethanol/train`.
        cache_dir: folder of the file, made if needed; default `remul_md.files.cache_directory()`.
        base_url: a mirror that holds the files under their own names; default the pinned source.
        timeout_s: seconds without an answer after which the attempt ends, > 0.
    Raises:
        InputError: unknown name, no answer (what was tried and what to do), wrong sha256, unwritable folder.
    """
    if not timeout_s > 0.0:
        raise InputError(f"timeout_s must be > 0 s, got {timeout_s}")
    entry = find_entry(name)
    target = cached_file(entry, cache_dir=cache_dir)
    url = entry.url if base_url is None else f"{base_url.rstrip('/')}/{entry.file_name}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{target.parent}: cannot be made ({error}); choose another cache folder") from error

    import pooch
    import requests

    try:
        pooch.retrieve(
            url=url,
            known_hash=f"sha256:{entry.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(timeout=timeout_s),
        )
    except requests.exceptions.RequestException as error:
        raise InputError(
            f"data set {name!r} could not be fetched from {url} ({type(error).__name__}: {error}); "
            f"check the connection, or put the file at {target} by hand. "
            "Packaged data sets (`remul-md data list`) need no connection"
        ) from error
    except ValueError as error:  # pooch's way to say that the hash differs; it has removed the download
        raise InputError(
            f"data set {name!r}: the file at {url} does not have the sha256 {entry.sha256} and was thrown away; "
            "it was changed or cut on the way: try again or from another network"
        ) from error
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error}); choose another cache folder with REMUL_MD_CACHE"
        ) from error
    return target
