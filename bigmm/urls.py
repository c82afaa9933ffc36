"""What of a URL may be shown: scheme, host and path, never user information or options, which hold secrets.

Secrets come in four forms: ``s3://KEY:SECRET@bucket``, where SECRET may hold "/", "@", "?" or "#" although it should
not; ``?secret_key=...``; the signature of a URL that was signed in advance (``?X-Amz-Signature=``, ``?sig=``); and any
of these again, percent-encoded, decoded or in pieces, in the text of somebody else's exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{1,3}")
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{1,3}[^\s'\"<>|]+")
_PORT = re.compile(r"\d*\Z")
_CONTAINER = re.compile(r"(abfs|abfss|wasb|wasbs|adl)\Z")  # in these, what stands before "@" is a part of the path
_HARMLESS = frozenset(
    "allow_bucket_creation allow_bucket_deletion anonymous enable_tls endpoint_override region retry_limit_seconds "
    "scheme replication user_agent".split()
)
_SHORTEST = 3  # characters; shorter pieces of a secret are no help to anybody, and occur in any text
_HIDDEN = "***"


def shown_url(place: str) -> str:
    """A path or URL as messages name it; a path stays as it is."""
    scheme, _, address, _ = _parts(place)
    return scheme + address.removeprefix(scheme)


def without_secrets(text: str, places: Iterable[str] = ()) -> str:
    """The text with every URL as `shown_url` shows it, and without pieces of the secrets of the given URLs."""
    for place in places:
        if place and _SCHEME.search(place):
            text = text.replace(place, shown_url(place))
            # Longest first, else a short piece would leave the remainder of a longer one in sight.
            for piece in _pieces(place):
                text = text.replace(piece, _HIDDEN)
    return _IN_TEXT.sub(lambda match: _shown_in_text(match[0]), text)


def shown_value(value: Any) -> Any:
    """A value of an event or a record, in which every text is fit to be shown."""
    if isinstance(value, str):
        return shown_url(value) if _SCHEME.match(value) else without_secrets(value)
    if isinstance(value, (list, tuple)):
        return [shown_value(item) for item in value]
    if isinstance(value, dict):
        return {name: shown_value(item) for name, item in value.items()}
    return value


def _shown_in_text(url: str) -> str:
    """A URL among words: the punctuation after it is not its own."""
    bare = url.rstrip(".,;:!)]}")
    return shown_url(bare) + url[len(bare) :]


def _parts(place: str) -> tuple[str, str, str, str]:
    """Scheme with its slashes ("" for a path), user information, host and path, options with fragment."""
    match = _SCHEME.search(place)
    if match is None or "/" in place[: match.start()].strip():
        return "", "", place, ""
    scheme, address = place[: match.end()], place[match.end() :]
    user, address = _cut_user(match[0].partition(":")[0], address)
    end = min((index for index in (address.find("?"), address.find("#")) if index >= 0), default=len(address))
    return scheme, user, address[:end], address[end:]


def _cut_user(scheme: str, address: str) -> tuple[str, str]:
    """User information, and what follows it.

    An unencoded secret may end the authority early. Then what looks like the port is no number, and the secret goes on
    to the last "@" of all.
    """
    authority = re.split(r"[/?#]", address, maxsplit=1)[0]
    if "@" not in address:
        return "", address
    plain = address.partition("?")[0]
    _, colon, port = authority.rpartition(":")
    if "@" not in authority and not (colon and "]" not in port and authority):
        return "", address
    whole = colon and "@" not in authority and not _PORT.match(port)
    last = (address if whole or "@" not in plain else plain).rfind("@")
    user = address[:last]
    if _CONTAINER.match(scheme) and ":" not in user:
        return "", address
    return user, address[last + 1 :]


def _pieces(place: str) -> list[str]:
    """What must not be shown of a place, longest first: whole secrets, and the pieces other programs cut them into."""
    scheme, user, _, options = _parts(place)
    if not scheme:
        return []
    secrets = [user, *user.split(":", 1)] if user else []
    for option in re.split(r"[?&;#]", options):
        name, mark, value = option.partition("=")
        if not (mark and name.strip().lower() in _HARMLESS):
            secrets.append(value if mark else name)
    pieces = {piece for secret in secrets for piece in (secret, *re.split(r"[/@?#:&=\s]", secret))}
    forms = {form for piece in pieces for form in (piece, unquote(piece), unquote_plus(piece), quote(piece, safe=""))}
    return sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True)
