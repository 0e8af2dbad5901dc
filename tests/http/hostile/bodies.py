"""Bodies that are no JSON, or JSON of the wrong shape, or too much of it."""

import gzip
import json
from collections.abc import Iterator

from tests.http.hostile.case import (
    EMBEDDINGS,
    JSON_HEAD,
    MARK,
    RERANK,
    SCORE,
    Case,
    Http,
    embed,
    posted,
)

SOUND = json.dumps({"model": "jina-embeddings-v4", "input": MARK}).encode()
MODEL = '"model": "jina-embeddings-v4"'


def cases() -> Iterator[Case]:
    yield from not_json()
    yield from wrong_types()
    yield from wrong_inputs()
    yield from other_routes()
    yield from media_types()
    yield from too_much()


def not_json() -> Iterator[Case]:
    bad: dict[str, bytes] = {
        "no body": b"",
        "only spaces": b"   \n",
        "null": b"null",
        "a list": b"[]",
        "a number": b"1",
        "a string": f'"{MARK}"'.encode(),
        "an open object": b"{" + f'"model": "{MARK}'.encode(),
        "single quotes": f"{{'model': '{MARK}'}}".encode(),
        "a trailing comma": f'{{{MODEL}, "input": "{MARK}",}}'.encode(),
        "a comment": f'{{{MODEL}, /* {MARK} */ "input": "a"}}'.encode(),
        "NaN": f'{{{MODEL}, "input": "a", "dimensions": NaN}}'.encode(),
        "Infinity": f'{{{MODEL}, "input": "a", "dimensions": -Infinity}}'.encode(),
        "a number past infinity": f'{{{MODEL}, "input": "a", "dimensions": 1e999}}'.encode(),
        "leading zeros": f'{{{MODEL}, "input": "a", "dimensions": 007}}'.encode(),
        "a hexadecimal number": f'{{{MODEL}, "input": "a", "dimensions": 0x10}}'.encode(),
        "a byte order mark": b"\xef\xbb\xbf" + SOUND,
        "UTF-16": SOUND.decode().encode("utf-16"),
        "UTF-32": SOUND.decode().encode("utf-32"),
        "Latin-1": f'{{{MODEL}, "input": "é{MARK}"}}'.encode("latin-1"),
        "overlong UTF-8": SOUND[:-2] + b'\xc0\x80"}',
        "a surrogate in UTF-8": SOUND[:-2] + b'\xed\xa0\x80"}',
        "UTF-8 past the last character": SOUND[:-2] + b'\xf5\x80\x80\x80"}',
        "a lone high surrogate": SOUND[:-2] + rb'\ud800"}',
        "a lone low surrogate": SOUND[:-2] + rb'\udc00"}',
        "surrogates in the wrong order": SOUND[:-2] + rb'\udc00\ud800"}',
        "a cut escape": SOUND[:-2] + rb'\u12"}',
        "an unknown escape": SOUND[:-2] + rb'\x41"}',
        "a control character": SOUND[:-2] + b'\x01"}',
        "a NUL in a string": SOUND[:-2] + b'\x00"}',
        "a NUL after the object": SOUND + b"\x00",
        "two objects": SOUND + SOUND,
        "a form": b"model=jina-embeddings-v4&input=" + MARK.encode(),
        "XML": f"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b '{MARK}'>]><a>&b;</a>".encode(),
        "a pickle": b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.",
        "deep lists": b"[" * 200_000,
        "deep objects": b'{"a":' * 100_000,
        "deep lists that end": b'{"input":' + b"[" * 2000 + b"]" * 2000 + b"}",
        "escaped quotes without end": b'{"input": "' + rb"\"" * 500_000,
    }
    for name, body in bad.items():
        yield posted(f"JSON: {name}", 422, body, field="body")


def wrong_types() -> Iterator[Case]:
    no_string = {"a number": 5, "a list": [MARK], "an object": {MARK: 1}, "true": True, "empty": ""}
    no_bool = {"a number": 1, "a string": "true", "a list": [True], "an object": {"a": MARK}}
    no_format = {"a number": 5, "an object": {}, "unknown": MARK, "empty": [], "in a list": [MARK]}
    dimensions = {
        "zero": 0,
        "negative": -1,
        "a fraction": 1.5,
        "a whole float": 64.0,
        "a string": "64",
        "true": True,
        "a list": [64],
        "past the model's": 10**6,
        "past 64 bits": 2**70,
        "past what Python prints": 10**300,
    }
    wrong: dict[str, dict[str, object]] = {
        "model": no_string,
        "task": {**no_string, "unknown": MARK, "in capitals": "TEXT-MATCHING"},
        "dimensions": dimensions,
    }
    wrong |= dict.fromkeys(
        ("late_chunking", "truncate", "return_multivector", "return_tokenized_input", "normalized"),
        no_bool,
    )
    wrong |= dict.fromkeys(("embedding_type", "encoding_format", "encoding_type"), no_format)
    for name, values in wrong.items():
        for kind, value in values.items():
            yield embed(f"type: {name} is {kind}", 422, **{name: value, "where": name})
        required = name == "model"
        yield embed(f"type: {name} is null", 422 if required else 200, **{name: None})
    yield embed("type: a model of another name", 400, model=MARK, code="INPUT_MODEL_NOT_FOUND")
    yield embed("type: a model that is a path", 400, model="../../etc/" + MARK)
    yield embed("type: an unknown key of any shape", 200, **{MARK: [{"a": [None]}]})
    again = SOUND[:-1] + b', "input": 5}'
    yield posted("type: a key twice, the last one wrong", 422, again, field="input")
    again = b'{"input": 5, ' + SOUND[1:]
    yield posted("type: a key twice, the first one wrong", 200, again)


def wrong_inputs() -> Iterator[Case]:
    ids, text, image = [1, 2, 3], {"text": MARK}, {"image": "AAAA"}
    bad: dict[str, tuple[object, str | None]] = {
        "null": (None, "input"),
        "a number": (5, "input"),
        "a boolean": (True, "input"),
        "an empty list": ([], "input"),
        "an empty object": ({}, "input"),
        "an unknown kind": ({MARK: MARK}, "input"),
        "two kinds": (text | image, "input"),
        "a text that is a number": ({"text": 5}, "input.text"),
        "a text that is null": ({"text": None}, "input"),
        "a text that is a list": ({"text": [MARK]}, "input.text"),
        "an image that is a number": ({"image": 5}, "input.image"),
        "an image that is a list": ({"image": ["AAAA"]}, "input.image"),
        "an image in an image": ({"image": {"image": "AAAA"}}, "input.image"),
        "objects in objects": ({"image": {"url": {"url": MARK}}}, "input.image.url"),
        "null in a list": ([MARK, None], "input.1"),
        "a list in a list in a list": ([[[1]]], "input.0.0"),
        "an empty list of ids": ([[]], "input.0"),
        "strings in a list in a list": ([[MARK]], "input.0.0"),
        "negative ids": ([-1], "input.0"),
        "ids past 31 bits": ([2**31], "input.0"),
        "ids past 64 bits": ([2**70], "input.0"),
        "ids that are fractions": ([1.5], "input.0"),
        "ids that are booleans": ([True, False], None),
        "ids past the vocabulary": ([2**30], "input.0"),
        "ids and texts": ([*ids, MARK], "input.3"),
        "texts and a number": ([MARK, 5], "input.1"),
        "no content": ({"content": []}, "input.content"),
        "content that is a text": ({"content": MARK}, "input.content"),
        "two parts": ({"content": [text, text]}, "input.content"),
        "a PDF among texts": ([{"pdf": "AAAA"}, MARK], "input.0.pdf"),
        "two PDFs": ([{"pdf": "AAAA"}, {"pdf": "AAAA"}], "input.0.pdf"),
        "an URL that is a text": ({"url": MARK}, "input.url"),
        "bytes that are no base64": ({"bytes": f"!{MARK}!"}, "input.bytes"),
        "base64 of the wrong length": ({"image": "AAAAA"}, "input.image"),
        "base64 with padding inside": ({"image": "AA==AAAA"}, "input.image"),
        "base64 of nothing": ({"image": "===="}, "input.image"),
        "base64 of letters beyond ASCII": ({"image": "ÄÖÜß"}, "input.image"),
        "a data URI of another kind": ({"image": f"data:text/html;base64,{MARK}"}, "input.image"),
        "a data URI without base64": (f"data:image/png;base64,{MARK}!", "input"),
        "a data URI with a head without end": (
            {"image": "data:image/png;" + "a=b;" * 5000 + "base64,AAAA"},
            "input.image",
        ),
    }
    for name, (value, where) in bad.items():
        yield embed(f"input: {name}", 422, input=value, where=where)
    conflicts: dict[str, tuple[dict[str, object], str]] = {
        "dimensions of multi-vectors": (
            {"dimensions": 8, "return_multivector": True},
            "dimensions",
        ),
        "tokens without multi-vectors": (
            {"return_tokenized_input": True},
            "return_tokenized_input",
        ),
        "late chunks of images": ({"late_chunking": True, "input": [image]}, "late_chunking"),
        "late chunks of nothing": ({"late_chunking": True, "input": ["a", ""]}, "input.1"),
        "two formats": (
            {"embedding_type": "float", "encoding_format": "ubinary"},
            "encoding_format",
        ),
    }
    for name, (fields, where) in conflicts.items():
        yield embed(f"conflict: {name}", 422, **fields, where=where)


def other_routes() -> Iterator[Case]:
    model = {"model": "jina-embeddings-v4"}
    rerank = model | {"query": MARK, "documents": [MARK]}
    for name, fields, where in [
        ("no query", {"query": None}, "query"),
        ("no documents", {"documents": []}, "documents"),
        ("documents that are a text", {"documents": MARK}, "documents"),
        ("a query that is a PDF", {"query": {"pdf": "AAAA"}}, "query"),
        ("a document that is a PDF", {"documents": [{"pdf": "AAAA"}]}, "documents"),
        ("a query of several", {"query": [MARK, MARK]}, "query.0"),
        ("the best none", {"top_n": 0}, "top_n"),
        ("the best some", {"top_n": "all"}, "top_n"),
        ("an image that is none", {"documents": [MARK, {"image": "AAAA"}]}, "documents.1"),
        ("an unknown task", {"task": MARK}, "task"),
        ("a side as task", {"task": "retrieval.query"}, "task"),
    ]:
        yield posted(f"rerank: {name}", 422, rerank | fields, path=RERANK, field=where)
    yield posted("rerank: another model", 400, rerank | {"model": MARK}, path=RERANK)
    for name, fields, where in [
        ("no sides", {}, "body"),
        ("one side", {"text_1": MARK}, "body"),
        ("sides of two pairs", {"text_1": MARK, "documents": [MARK]}, "body"),
        ("three sides", {"text_1": "a", "text_2": "a", "items": ["a"]}, "body"),
        ("sides that do not match", {"text_1": ["a", "b"], "text_2": ["a"] * 3}, "text_1"),
        ("a side that is a number", {"text_1": 5, "text_2": "a"}, "text_1"),
        ("a side of nothing", {"text_1": [], "text_2": "a"}, "text_1"),
    ]:
        yield posted(f"score: {name}", 422, model | fields, path=SCORE, field=where)


def media_types() -> Iterator[Case]:
    def sent(name: str, status: int, headers: dict[str, str], body: bytes = SOUND) -> Case:
        code = "UNSUPPORTED_MEDIA_TYPE" if status == 415 else None
        return Case(f"media: {name}", Http(lambda: body, EMBEDDINGS, headers), status, code)

    for kind in (
        "text/plain",
        "text/html",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "application/octet-stream",
        "application/jsonp",
        "junk",
        ";",
        "application/json, text/html",
    ):
        yield sent(kind, 415, {"Content-Type": kind})
    for kind in ("application/json; charset=utf-16", "APPLICATION/JSON", "application/a+json"):
        yield sent(kind, 200, {"Content-Type": kind})
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, identity", "x"):
        head = JSON_HEAD | {"Content-Encoding": coding}
        yield sent(f"encoded as {coding}", 415, head, gzip.compress(SOUND))
    yield sent("gzip that does not say so", 422, JSON_HEAD, gzip.compress(SOUND))
    for accept, status in [
        ("application/octet-stream; dtype=fp64", 406),
        (f"application/octet-stream; dtype={MARK}", 406),
        ("application/octet-stream;q=2;dtype=fp64", 200),
        (",;,;q=;=,", 200),
        ("a/b," * 5000, 200),
        ("*/*;q=0", 200),
    ]:
        yield sent(f"accept {accept[:40]} ({len(accept)})", status, JSON_HEAD | {"Accept": accept})


def too_much() -> Iterator[Case]:
    """More than the server of these tests takes: 2 MiB a body, 64 inputs, 65536 characters a text."""
    start = f'{{{MODEL}, "input": '.encode()
    yield posted("much: a body", 413, lambda: b" " * (2 << 20) + SOUND, code="REQUEST_TOO_LARGE")
    yield embed("much: inputs", 422, input=[MARK] * 65, where="input")
    yield embed("much: the most inputs", 200, input=["a"] * 64)
    yield embed("much: characters", 422, input="a" * 65_537, where="input")
    yield embed("much: characters of an object", 422, input=[{"text": "a" * 65_537}])
    yield posted("much: lists", 422, lambda: start + b"[" + b"[]," * 600_000 + b"1]}")
    yield posted("much: objects", 422, lambda: start + b"[" + b"{}," * 600_000 + b"1]}")
    yield posted(
        "much: lists under an unknown key",
        422,
        lambda: SOUND[:-1] + b', "x": [' + b"[]," * 600_000 + b"1]}",
        field="body",
    )
    yield posted("much: numbers", 422, lambda: start + b"[" + b"9e9," * 400_000 + b"1]}")
    yield posted(
        "much: keys",
        200,
        lambda: (
            SOUND[:-1] + b"," + b",".join(b'"%d":0' % number for number in range(100_000)) + b"}"
        ),
    )
    yield posted("much: brackets in a text", 200, lambda: start + b'"' + rb"[{\"" * 1000 + b'"}')
