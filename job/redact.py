"""Redact: text on its way to a person or into a record, without secrets, on one line."""

import re

HIDDEN = "***"

# Names whose values are secrets. Lower-case `key` is an option of fsspec's; S3's own `Key` is the
# name of an object. Lengths are bounded, so that no text takes long.
_NAME = (
    r"(?:key|[\w-]{0,40}(?i:secret|token|passw(?:or)?d|credentials?|connection_string"
    r"|(?:access|account|api|private|secret|shared)[_-]?key))"
)
# A string as Python and JSON write it, also one that breaks off, also within another string.
_STRING = r"""[bru]?\\?(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))"""

# Each hides what can hardly be anything but a secret, wherever it stands. What merely looks like
# one in a path (`token=abc/`, a Hive partition) is the name of an object, and stays.
_SECRETS: tuple[tuple[str, str], ...] = (
    # Authorization: Bearer abc; 'Authorization': 'AWS4-HMAC-SHA256 Credential=…, Signature=…'
    (r"""(?i)(\bauthorization['"]?\s*[:=]\s*['"]?)[^'"\r\n]+""", rf"\1{HIDDEN}"),
    (r"(?i)(\bbearer\s+)[\w.~+/=-]{20,}", rf"\1{HIDDEN}"),
    # https://user:password@host, also with an @ in the password
    (r"(?<=://)[^\s/:@?#'\"]+:[^\s/?#'\"]+@", f"{HIDDEN}@"),
    (r"(?i)(\bendpoint\w{0,9}[:=]\s*['\"]?)[^\s/:@'\"]+:[^\s/@'\"]+@", rf"\1{HIDDEN}@"),
    # AWS: an access key id, also with its secret behind a colon
    (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b(?::[\w/+=]{40})?", HIDDEN),
    # Hugging Face
    (r"\bhf_[A-Za-z0-9]{20,}\b", HIDDEN),
    # Azure: a URL with a shared access signature (32 bytes in base64), all of its query
    (r"\?[^\s'\"<>?]*\bsig=[\w%+/=-]{40,}[^\s'\"<>]*", f"?{HIDDEN}"),
    # presigned URLs of S3 and Google: version 4, then version 2
    (
        r"(?i)(\bX-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)=)[^\s&'\"<>,;)]+",
        rf"\1{HIDDEN}",
    ),
    (r"([?&](?:Signature|AWSAccessKeyId|GoogleAccessId)=)[^\s&'\"<>]{16,}", rf"\1{HIDDEN}"),
    # {'secret': 'abc'}, {"token": "abc
    (rf"""(['"]{_NAME}\\?['"]\s*:\s*){_STRING}""", rf"\1'{HIDDEN}'"),
    # connect(secret='abc')
    (rf"((?<![\w-]){_NAME}\s*=\s*){_STRING}", rf"\1'{HIDDEN}'"),
    # AWS_SECRET_ACCESS_KEY=abc, AccountKey=abc;, hf_token: abc
    (
        r"(?i)(\b(?:aws_session_token|hf_token|(?:aws_)?secret_access_key|client_secret"
        r"|account_?key|secret_?key|SharedAccessSignature)\s*[=:]\s*)[^\s,;'\"&)}]+",
        rf"\1{HIDDEN}",
    ),
    # connect(secret=abc, token=def), password: abc; not a path that begins so
    (
        r"""(?i)((?<![^\s,({\[;])(?:(?:secret|token|passw(?:or)?d)=|(?:secret|passw(?:or)?d):\s))"""
        r"""(?![^\s,;)}\]]*/)[^\s,;)}\]'"]+""",
        rf"\1{HIDDEN}",
    ),
)
# Names of parameters that are secrets in the address of a web server, but words in other URIs.
_URL = re.compile(r"\bhttps?://[^\s'\"<>]+")
_PARAMETER = re.compile(
    r"(?i)([?&](?:[\w-]{0,40}token|[\w-]{0,40}secret|passw(?:or)?d|api_?key|key|sig)=)[^&]+"
)
_COMPILED = tuple((re.compile(pattern), replacement) for pattern, replacement in _SECRETS)

# None of them can be seen, and each changes what a terminal or a reader makes of the rest: C0 and
# C1 controls, marks and overrides of the writing direction, line separators, lone surrogates (a
# file name's bytes that are not UTF-8). The joiners within emoji stay.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def redact(text: str) -> str:
    """The text as it may be shown, logged or stored: one line, secrets hidden, controls spelt out.

    Hidden are the signatures of presigned URLs, passwords in URLs, access keys, tokens, and the
    values of what is called a key, secret, token or password. Other text stays as it is, whatever
    its script.
    """
    for secret, replacement in _COMPILED:
        text = secret.sub(replacement, text)
    text = _URL.sub(lambda url: _PARAMETER.sub(rf"\1{HIDDEN}", url[0]), text)
    return _INVISIBLE.sub(_spelt_out, text)


def _spelt_out(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    return _SHORT.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")
