"""Text for people: secrets are gone, controls are spelt out, and everything else stays."""

import time

import pytest

from job.redact import redact

# AWS's own example keys, and made-up ones of the right shape.
KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
HUGGING_FACE = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567"
SAS = "sv=2024-11-04&sr=b&se=2026-11-23T00%3A00Z&sp=r&sig=" + "aB3%2F" * 8 + "%3D"
V4 = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAX%2F20261122%2Fus&X-Amz-Expires=60"
HEX = "5f2c" * 16


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # presigned URLs
        (
            f"403, url='https://b.s3.amazonaws.com/k.jpg?{V4}&X-Amz-Signature={HEX}'",
            "403, url='https://b.s3.amazonaws.com/k.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256"
            "&X-Amz-Credential=***&X-Amz-Expires=60&X-Amz-Signature=***'",
        ),
        ("GET /k?x=1&X-Amz-Security-Token=IQoJb3Jp%2F//", "GET /k?x=1&X-Amz-Security-Token=***"),
        ("/k?x-amz-security-token=IQoJb3Jp&y=2", "/k?x-amz-security-token=***&y=2"),
        (
            f"/k?AWSAccessKeyId={KEY_ID}&Expires=9&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D",
            "/k?AWSAccessKeyId=***&Expires=9&Signature=***",
        ),
        (
            f"/k?X-Goog-Algorithm=G&X-Goog-Credential=me%40x.iam&X-Goog-Signature={HEX} failed",
            "/k?X-Goog-Algorithm=G&X-Goog-Credential=***&X-Goog-Signature=*** failed",
        ),
        (
            "/k?GoogleAccessId=me%40x.iam.gserviceaccount.com&Signature=" + "a/b%2B" * 9,
            "/k?GoogleAccessId=***&Signature=***",
        ),
        (
            f"cannot read https://a.blob.core.windows.net/c/k.jpg?{SAS}: 403",
            "cannot read https://a.blob.core.windows.net/c/k.jpg?*** 403",
        ),
        # passwords in URLs
        ("http://me:pass@127.0.0.1:9000/b", "http://***@127.0.0.1:9000/b"),
        ("http://me:p@ss@host/b", "http://***@host/b"),
        (f"s3://{KEY_ID}:{SECRET}@host/b", "s3://***@host/b"),
        ("Invalid endpoint: me:pass@host", "Invalid endpoint: ***@host"),
        # parameters of web addresses
        (
            "GET https://host/a.jpg?token=abc&size=3&api_key=d: 403, see http://host/?y=1",
            "GET https://host/a.jpg?token=***&size=3&api_key=*** 403, see http://host/?y=1",
        ),
        # keys and tokens by their looks
        (f"the key {KEY_ID} does not exist", "the key *** does not exist"),
        ("ASIAIOSFODNN7EXAMPLE expired", "*** expired"),
        (f"invalid token {HUGGING_FACE}.", "invalid token ***."),
        # headers
        ("Authorization: Basic bWU6cGFzcw==", "Authorization: ***"),
        (
            "{'Authorization': 'AWS4-HMAC-SHA256 Credential=A/B, Signature=c', 'Accept': '*'}",
            "{'Authorization': '***', 'Accept': '*'}",
        ),
        ("sent Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc", "sent Bearer ***"),
        # what is called a secret: dicts, JSON, calls
        (
            "{'key': 'abc', 'secret': 'it\\'s', 'endpoint_url': 'http://x'}",
            "{'key': '***', 'secret': '***', 'endpoint_url': 'http://x'}",
        ),
        ('{"aws_secret_access_key": "abc", "n": 1}', '{"aws_secret_access_key": \'***\', "n": 1}'),
        ('{"token": "abc', "{\"token\": '***'"),
        (r"'{\"password\": \"abc\"'", r"""'{\"password\": '***'"""),
        ("connect(account_key='abc', user='me')", "connect(account_key='***', user='me')"),
        ("S3FileSystem(secret=abc, anon=False)", "S3FileSystem(secret=***, anon=False)"),
        ("token=abc is no good", "token=*** is no good"),
        # environments, connection strings, YAML
        (f"AWS_SECRET_ACCESS_KEY={SECRET}", "AWS_SECRET_ACCESS_KEY=***"),
        ("AccountName=a;AccountKey=abc==;Suffix=x", "AccountName=a;AccountKey=***;Suffix=x"),
        ("line 3: storage_options: {hf_token: abc}", "line 3: storage_options: {hf_token: ***}"),
        ("  secret: hunter2", "  secret: ***"),
    ],
)
def test_secrets_are_hidden_and_what_is_around_them_stays(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/token=abc/monkey.jpg?x.jpg",
        "s3://bucket/secret=1/key=2/password=3/a.jpg",
        "token=abc/monkey.jpg is gone",
        "s3://bucket/what?token=abc.jpg, /data/what?key=value&secret=x.jpg",
        "s3://bucket/what?sig=nature.jpg&se=a&sp=b",
        "s3://bucket/?Signature=short",
        "s3://bucket/a:b@c.jpg",
        "abfs://container@account.dfs.core.windows.net/a.jpg",
        "hf://datasets/team/hf_small_model/a.jpg",
        "no such object: Key='photos/a.jpg', {'Key': 'b.jpg'}",
        "unexpected token: } at line 3",
        "tokenizer: bert, 'tokenizer': 'bert', max_tokens=5",
        "keyboard: 'qwerty', monkey='banana'",
        "the bearer of good news",
        "http://127.0.0.1:9000/bucket",
        "OUTPUT s3://bucket/maps cannot be written: permission denied. Check the credentials",
        "C:\\new\\table.jpg, ünïcödé, 图像, صورة, 👩‍👩‍👧 🏳️‍🌈, e\u0301",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\nc\td", r"a\nb\r\nc\td"),
        ("\x1b[2J\x1b[31mred\x1b[0m", r"\x1b[2J\x1b[31mred\x1b[0m"),
        (
            "bell\x07, delete\x7f, nothing\0, C1\x9b2J",
            r"bell\x07, delete\x7f, nothing\x00, C1\x9b2J",
        ),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("\u2066a\u2069, \u200fb, \ufeffc, \u200bd", r"\u2066a\u2069, \u200fb, \ufeffc, \u200bd"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("no UTF-8: \udcff.jpg", r"no UTF-8: \udcff.jpg"),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(text: str, shown: str) -> None:
    assert redact(text) == shown
    shown.encode()


def test_text_redacted_twice_stays() -> None:
    for text in (f"http://me:pass@h/?{SAS}\n{KEY_ID} {{'secret': 'x'}}", "Authorization: x\x1b"):
        once = redact(text)
        assert redact(once) == once


@pytest.mark.parametrize(
    "text",
    [
        *("a-" * 50_000, "://a:" * 20_000, "'secret" * 15_000, "'key': '" * 12_000),
        *("?sig=" * 20_000, "key='" + "\\" * 100_000, "://" + "a" * 50_000 + ":" + "b" * 50_000),
        *("https://a?token=" * 7_000, "http://a?" + "&" * 100_000, "endpoint:" + "a:" * 50_000),
        *("key" + " " * 100_000, "'" * 100_000, " secret=" + "a/" * 50_000),
    ],
    ids=lambda text: text[:10],
)
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 3
