"""Where a hospital's files lie: a manifest's path or URL, and the names of the TAR archives beside it.

The workflow reads these while it is being parsed, so this module must stay light.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import urlsplit

SCHEMES = {"s3": "s3", "http": "http", "https": "http"}
"""What a remote manifest's URL may begin with, and Snakemake's storage plugin for it."""

MOST_SHARDS = 500
"""Archives of one cohort. Each is a job, and one more for each colour recipe; all stand in one command line."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SHARD = re.compile(r"(?!\.)[A-Za-z0-9_.-]+\.tar")
_RANGE = re.compile(r"\{([^{}]*)\}")


def is_remote(manifest: str) -> bool:
    """Return whether a manifest is given by a URL."""
    return _URL.match(manifest) is not None


def plugin_of(manifest: str) -> str:
    """Return the storage plugin of a URL that has no `url_fault`."""
    return SCHEMES[urlsplit(manifest).scheme]


def beside(manifest: str, name: str) -> str:
    """Return the path or URL of a file that lies beside a manifest."""
    return posixpath.join(posixpath.dirname(manifest), name)


def url_fault(url: str) -> str | None:
    """Return what is wrong with a remote manifest's URL, or None; never with its secrets in the text.

    A URL stands in the results' records, so that one that bears a password or a signature is refused.
    """
    found = _URL.match(url)
    scheme = found[1] if found else ""
    if scheme not in SCHEMES:
        return f"{scheme}:// is not read; give a path, or a URL that begins with {'://, '.join(SCHEMES)}://"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "this is no URL; correct it"
    told = f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc:
        return (
            f"the URL {told} bears a user name or a password, which would end up in the results; take it out and "
            "give it to Snakemake's storage plugin by its environment variables"
        )
    if "?" in url or "#" in url:
        return f"the URL {told} goes on with a query or a fragment, which would end up in the results; cut it off"
    if re.search(r"[\s{}\\*]", url):
        return f"the URL {told} holds a blank, a brace, a backslash or a star; rename the folder"
    name = posixpath.basename(parts.path)
    if not parts.netloc or not name or posixpath.normpath(parts.path) != parts.path or "//" in parts.path:
        return f"{told} does not name a file; write {scheme}://{'bucket' if scheme == 's3' else 'host'}/folder/manifest.csv"
    return None


def expand_shards(text: str) -> tuple[str, ...]:
    """Return the archives' names that a cell of the column ``shards`` stands for, in its order.

    Parameters
    ----------
    text
        Names with blanks or commas between them; a name may hold one range of numbers, ``cells_{000..013}.tar``, both ends
        included and as many digits as they are written with. Empty for none.

    Raises
    ------
    ValueError
        With a sentence: a name of another form, a range that is none, too many archives, or one named twice.
    """
    names: list[str] = []
    for word in re.split(r"[\s,]+", text.strip()) if text.strip() else []:
        names += _expanded(word)
        if len(names) > MOST_SHARDS:
            raise ValueError(f"more than {MOST_SHARDS} archives; pack more images into each")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"{twice!r} is named twice; name it once")
    return tuple(names)


def _expanded(word: str) -> list[str]:
    ranges = _RANGE.findall(word)
    if not ranges and "{" not in word and "}" not in word:
        return [_checked(word, word)]
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", ranges[0]) if len(ranges) == 1 else None
    if ends is None:
        raise ValueError(
            f"{word!r} is not understood; write one range of numbers, such as cells_{{000..013}}.tar"
        )
    first, last = ends[1], ends[2]
    padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
    if int(first) > int(last) or (padded and len(first) != len(last)):
        raise ValueError(
            f"{word!r}: the range {first}..{last} must go upwards, with as many digits at both ends where it has leading zeros"
        )
    if int(last) - int(first) >= MOST_SHARDS:
        raise ValueError(f"{word!r}: more than {MOST_SHARDS} archives; pack more images into each")
    width = len(first) if padded else 0
    return [
        _checked(_RANGE.sub(f"{number:0{width}d}", word), word) for number in range(int(first), int(last) + 1)
    ]


def _checked(name: str, word: str) -> str:
    if re.search(r"\.(tgz|tar\.\w+|zip|7z)$", name):
        raise ValueError(f"{word!r} is compressed; images are compressed already: pack an uncompressed .tar")
    if not _SHARD.fullmatch(name):
        raise ValueError(
            f"{word!r} is not the name of an archive beside the manifest; write letters, digits, '_', '-' and '.', and .tar at the end"
        )
    return name
