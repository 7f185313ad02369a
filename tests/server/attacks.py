"""What hostile requests are made of; each attack is drawn from a generator of random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

KEY = "k3y-of-the-server"
SECRET = "s3cret-of-a-prompt"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

Then = Literal["read", "close", "first", "half-close"]


@dataclass
class Attack:
    """What is sent over one connection.

    Attributes:
        kind: What it is called in reports.
        segments: Bytes to send, and seconds to wait between them.
        then: Read answers, close at once, close after the first token, or close one direction.
        answers: How many answers are read.
        long: Whether it may run out of time.
    """

    kind: str
    segments: list[bytes | float]
    then: Then = "read"
    answers: int = 1
    long: bool = False


# -- JSON that `json.dumps` would not write --------------------------------------------------------

NUMBERS = (
    *("1e999", "-1e999", "1" + "0" * 5000, "9" * 4200, "-0", "-0.0", "1e-400", "NaN", "Infinity"),
    *("-Infinity", "0", "-1", "1.5", "2147483648", "9223372036854775808", "1E400", "1e308"),
    *("18446744073709551616", "0.1e1", "01", "+1", "1_000", "0x10", "1."),
)
STRINGS = (
    *('""', '" "', '"a"', f'"{SECRET}"', r'"\ud800"', r'"\udc00\ud800"', r'"\u0000"', r'"\u0085"'),
    *(r'"\n\r"', '"\u202e"', '"🦊"', '"<|im_end|>"', '"{{7*7}}"', '"../../etc/passwd"', '"p-punc"'),
    *('"tiny"', '"auto"', '"base"', r'"\x"', '"\n"', '"' + "A" * 70000 + '"'),
)
NESTED = tuple(
    left * depth + right * depth
    for depth in (3, 100, 900, 5000, 90000)
    for left, right in (("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"))
)
OTHERS = ("null", "true", "false", "[]", "{}", "[null]", '{"":{}}', "[1,2]", '["a","b"]', "[[]]")
RAW = (b'"\xff\xfe"', b'"\xc3"', b'"\xed\xa0\x80"', b"\x00", b'"\xf4\x90\x80\x80"', b"'a'", b"")

FIELDS = (
    *("model", "messages", "prompt", "n", "stop", "stream", "stream_options", "logprobs"),
    *("top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "response_format", "seed"),
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "user", "gamma", "threshold"),
    *("router", "signal_model", "first", "boundary", "line_breaks", "top_k", "min_p", "base"),
    *("aligned", "regex", "choices", "json_schema", "show_schema", "alternatives", "timeout"),
    *(
        "continue_final_message",
        "raw",
        "echo",
        "suffix",
        "logit_bias",
        "frequency_penalty",
        "best_of",
    ),
)
INNER = ("role", "content", "tool_calls", "tool_call_id", "name", "type", "text", "function")


def value(rng: Random, depth: int = 0) -> bytes:
    """Return the JSON, or nearly so, of any value."""
    pick = rng.random()
    if pick < 0.05:
        return rng.choice(RAW)
    if pick < 0.15:
        return rng.choice(NESTED[:6] if depth else NESTED).encode()
    if pick < 0.35 and depth < 3:
        parts = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        if rng.random() < 0.5:
            return b"[" + b",".join(parts) + b"]"
        names = [rng.choice((*INNER, *FIELDS, "\\ud800", SECRET)).encode() for _ in parts]
        pairs = [b'"' + name + b'":' + part for name, part in zip(names, parts, strict=True)]
        return b"{" + b",".join(pairs) + b"}"
    return rng.choice(rng.choice((NUMBERS, STRINGS, OTHERS))).encode()


def body(rng: Random, path: str, **more: object) -> dict[str, bytes]:
    """Return a body that is allowed, as JSON by field; it asks for a few tokens only."""
    asked: dict[str, object] = {"model": "tiny", "max_tokens": rng.randint(1, 6)}
    if path == CHAT:
        asked["messages"] = [{"role": "user", "content": f"Suggest a gift. {SECRET}"}]
    else:
        asked["prompt"] = rng.choice((f"Once {SECRET}", ["One", "two"], [5, 6, 7], [[5], [6]]))
    if rng.random() < 0.4:
        asked["stream"] = True
    if rng.random() < 0.3:
        asked |= {"logprobs": True, "top_logprobs": 3} if path == CHAT else {"logprobs": 2}
    return {name: json.dumps(each).encode() for name, each in {**asked, **more}.items()}


def joined(fields: dict[str, bytes] | list[tuple[str, bytes]]) -> bytes:
    pairs = list(fields.items()) if isinstance(fields, dict) else fields
    return b"{" + b",".join(b'"' + name.encode() + b'":' + each for name, each in pairs) + b"}"


def post(path: str, data: bytes, *headers: bytes, length: int | None = None) -> bytes:
    """Return a request with a body."""
    lines = [
        f"POST {path} HTTP/1.1".encode(),
        b"Host: 127.0.0.1",
        f"Authorization: Bearer {KEY}".encode(),
        *(headers or (b"Content-Type: application/json",)),
        f"Content-Length: {len(data) if length is None else length}".encode(),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


def either(rng: Random) -> str:
    return rng.choice((CHAT, CHAT, TEXT))


# -- attacks ---------------------------------------------------------------------------------------


def wrong_fields(rng: Random) -> Attack:
    """Some fields have a value that they may not have, or that nobody expects."""
    path = either(rng)
    fields = body(rng, path)
    for _ in range(rng.randint(1, 3)):
        fields[rng.choice(FIELDS)] = value(rng)
    return Attack("fields", [post(path, joined(fields))], long=b"timeout" in joined(fields))


def wrong_messages(rng: Random) -> Attack:
    """Messages, tools and formats that have almost the right form."""
    messages = [
        joined({**{"role": b'"user"', "content": b'"Hi"'}, rng.choice(INNER): value(rng)})
        for _ in range(rng.randint(1, 3))
    ]
    fields = body(rng, CHAT) | {"messages": b"[" + b",".join(messages) + b"]"}
    schema = joined({"type": b'"object"', "properties": value(rng), "required": value(rng)})
    function = joined({"name": b'"f"', "parameters": rng.choice((schema, value(rng)))})
    tool = joined({"type": b'"function"', "function": rng.choice((function, value(rng)))})
    if rng.random() < 0.4:
        fields |= {"tools": b"[" + tool + b"]", "tool_choice": rng.choice((b'"auto"', value(rng)))}
    elif rng.random() < 0.5:
        inner = joined({"name": b'"s"', "schema": rng.choice((schema, value(rng)))})
        fields["response_format"] = joined({"type": b'"json_schema"', "json_schema": inner})
    return Attack("messages", [post(CHAT, joined(fields))])


def wrong_ids(rng: Random) -> Attack:
    """Ids of models with settings behind them."""
    name = rng.choice(("tiny", "tiny", "TINY", "", "../tiny", "a" * 5000, "\\ud800", "tiny\\n"))
    told = rng.choice((*FIELDS, "\\ud800", "__class__", "", "gamma", "gamma"))
    said = rng.choice(("0.5", "1e999", "NaN", "9" * 5000, "\\udfff", "{", "[" * 900, "h", "", "-0"))
    model = f'"{name}@{told}={said}{rng.choice(("", ",", ",a=b", "@", ",gamma=0.1"))}"'.encode()
    path = either(rng)
    data = joined(body(rng, path) | {"model": model})
    return Attack("model ids", [post(path, data)], long=b"timeout" in data)


def no_json(rng: Random) -> Attack:
    """Bodies that are no JSON, no object, too long, cut off, or that repeat their keys."""
    path = either(rng)
    good = joined(body(rng, path))
    cut = good[: rng.randrange(len(good))]
    choices = (
        *(cut, b"", b" ", b"\xef\xbb\xbf" + good, good.decode().encode("utf-16"), good + b"x"),
        *(rng.randbytes(rng.randrange(300)), good.replace(b":", b";", 1), b"null", b'"a"', b"7"),
        *(value(rng), rng.choice(NESTED).encode(), good + good, b"\x1f\x8b\x08" + good),
        joined([*body(rng, path).items(), *body(rng, path).items(), ("n", value(rng))]),
        joined({**body(rng, path), "k" * 200_000: b"1"}),
        joined({**body(rng, path), **{f"k{i}": b"1" for i in range(3000)}}),
        joined({**body(rng, path), "x": b'"' + b"A" * (2**20) + b'"'}),
    )
    return Attack("no JSON", [post(path, rng.choice(choices))])


def wrong_types(rng: Random) -> Attack:
    """Content types that are missing, wrong, or odd."""
    path = either(rng)
    kind = rng.choice(
        (
            *(b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"),
            *(b"", b"application/json; charset=utf-16", b"APPLICATION/JSON", b"\xff\xfe"),
            *(b"application/jsonp", b"application/json;" + b"a" * 3000, b"*/*", b"text/json"),
        )
    )
    data = joined(body(rng, path))
    return Attack("types", [post(path, data, b"Content-Type: " + kind)])


def wrong_lengths(rng: Random) -> Attack:
    """Lengths that are not those of the body, and chunks."""
    path = either(rng)
    data = joined(body(rng, path))
    if rng.random() < 0.4:
        told = rng.choice((len(data) + 9, 2**21, 10**30, max(len(data) - 5, 0), 0))
        return Attack("lengths", [post(path, data, length=told)])
    head = post(path, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    size = f"{len(data):x}".encode()
    good = size + b"\r\n" + data + b"\r\n0\r\n\r\n"
    chunks = rng.choice(
        (
            *(good, good, b"".join(b"1\r\n%c\r\n" % each for each in data) + b"0\r\n\r\n"),
            *(size + b";a=b\r\n" + data + b"\r\n0\r\nX: y\r\n\r\n", b"zz\r\n" + data, b"-1\r\n"),
            *(b"f" * 30 + b"\r\n", b"0\r\n\r\n", (b"10000\r\n" + b" " * 65536 + b"\r\n") * 20),
        )
    )
    both = head.replace(b"Transfer-", b"Content-Length: 3\r\nTransfer-")
    return Attack("lengths", [rng.choice((head, head, head, both)) + chunks])


def slow(rng: Random) -> Attack:
    """Bodies that come slowly, or not at all."""
    path = either(rng)
    request = post(path, joined(body(rng, path)))
    cuts = sorted(rng.randrange(len(request) - 20, len(request)) for _ in range(2))
    parts = [request[: cuts[0]], request[cuts[0] : cuts[1]], request[cuts[1] :]]
    pause = rng.choice((0.01, 0.05))
    slowly: list[bytes | float] = [parts[0], pause, parts[1], pause, parts[2]]
    never: list[bytes | float] = [parts[0]] if cuts[0] < len(request) else [request]
    return Attack("slow", rng.choice((slowly, slowly, never)))


def gone(rng: Random) -> Attack:
    """Callers who go: before, within or behind the body, before or behind the first token."""
    path, then = either(rng), rng.choice(("close", "close", "first", "half-close"))
    more = {"stream": True} if then == "first" else {}
    request = post(
        path, joined(body(rng, path, **{"n": rng.randint(1, 3), "max_tokens": 200, **more}))
    )
    segments: list[bytes | float] = [request]
    if then == "close":
        head = request.index(b"\r\n\r\n") + 4
        end = rng.choice((20, head, head + 10, len(request), len(request)))
        segments = [request[:end], *rng.choice(((), (), (0.03,)))]
    return Attack("gone", segments, then)  # type: ignore[arg-type]


def pipelined(rng: Random) -> Attack:
    """Several requests at once over one connection."""
    paths = [either(rng) for _ in range(rng.randint(2, 5))]
    requests = [post(path, joined(body(rng, path))) for path in paths]
    segments: list[bytes | float] = [b"".join(requests)]
    return Attack("pipelined", segments, rng.choice(("read", "read", "close")), len(requests))


def odd_http(rng: Random) -> Attack:
    """Methods, versions, targets and headers."""
    method = rng.choice(("GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "X-Y"))
    target = rng.choice(
        (
            *("/", "/v1/models", "/v1/models/tiny", "/metrics", "/health", "/docs", CHAT, "/v1"),
            *("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/v1//models"),
            *("/v1/models/%00", "/v1/models/%ff%fe", "/v1/models/" + "a" * 9000, "/playground.js/"),
            *("/v1/models/..%2f..%2fapp.py", "/gate.py", "/v1/models/%0d%0aX: y", "/openapi.json"),
            *("/v1/models?" + "q=1&" * 2000, "/%s%n", "*", "http://evil.example/v1/models", "/\\"),
        )
    )
    headers = [b"Host: 127.0.0.1", f"Authorization: Bearer {KEY}".encode()]
    change = rng.randrange(9)
    odd: tuple[list[bytes], ...] = (
        [b"Host: evil.example"],
        headers[:1],
        [headers[0], b"Authorization: Bearer \xff" + SECRET.encode()],
        [*headers, b"X-Request-Id: " + rng.choice((b"a" * 500, b"\xff", b"ok-1", b"a b", b'"'))],
        [*headers, *(b"X-%d: y" % i for i in range(500))],
        [*headers, b"X: " + b"a" * 100_000],
        [*headers, b"Upgrade: websocket", b"Connection: Upgrade"],
        [*headers, b"Expect: 100-continue", b"Content-Length: 0"],
        [*headers, b"Origin: null", b"Access-Control-Request-Method: POST"],
    )
    version = rng.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", ""))
    line = f"{method} {target} {version}".rstrip().encode()
    ending = b"\r\nConnection: close\r\n\r\n"
    return Attack("odd HTTP", [line + b"\r\n" + b"\r\n".join(odd[change]) + ending])


def heavy(rng: Random) -> Attack:
    """Much is asked for: samples, tokens, stops, choices, long prompts."""
    path = either(rng)
    words = [f"w{i}" for i in range(3000)]
    more: dict[str, object] = rng.choice(
        (
            *({"n": 4096}, {"n": 129}, {"n": 10**18}, {"max_tokens": 10**15, "timeout": 0.05}),
            *(
                {"stop": words},
                {"stop": "x" * 100_000},
                {"choices": words},
                {"choices": ["a" * 9999]},
            ),
            *({"n": 40, "max_tokens": 2}, {"top_logprobs": 64, "alternatives": 64}, {"n": 128.0}),
            *({"timeout": 1e-9}, {"timeout": 0.01, "max_tokens": 900}, {"seed": 2**64 - 1}),
        )
    )
    fields = body(rng, path, **more)
    if rng.random() < 0.2:
        name = "messages" if path == CHAT else "prompt"
        long = "word " * 40_000
        said = (
            [{"role": "user", "content": long}]
            if path == CHAT
            else rng.choice(
                (long, ["a"] * 5000, [1] * 5000, [[1]] * 200, [10**9], [-1], [[]], [""], [1, "a"])
            )
        )
        fields[name] = json.dumps(said).encode()
    return Attack("heavy", [post(path, joined(fields))], long=b"timeout" in joined(fields))


def grammars(rng: Random) -> Attack:
    """Schemas, patterns and tools that take long or blow up."""
    deep: dict[str, object] = {"type": "string"}
    for _ in range(rng.choice((5, 100, 200))):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    loop = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    wide = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(300)}}
    more: dict[str, object] = rng.choice(
        (
            *({"json_schema": deep}, {"json_schema": loop}, {"json_schema": wide}),
            *(
                {"json_schema": {"$ref": "http://127.0.0.1/a"}},
                {"json_schema": {"enum": [*range(3000)]}},
            ),
            *({"json_schema": {"type": "string", "maxLength": 10**9}}, {"regex": "(a|b"}),
            *(
                {"json_schema": {"not": {}}},
                {"json_schema": {"pattern": "(?=a)b", "type": "string"}},
            ),
            *({"regex": "(a{1,1000}){1,1000}"}, {"regex": "(" * 500 + "a" + ")" * 500}),
            *({"regex": "(?:a?){200}a{200}"}, {"regex": "[\\s\\S]{1,100000}"}, {"regex": "\\1"}),
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}]},
        )
    )
    fields = body(rng, CHAT, timeout=1.0, **more)
    return Attack("grammars", [post(CHAT, joined(fields))], long=True)


KINDS: dict[Callable[[Random], Attack], int] = {
    **{wrong_fields: 30, wrong_messages: 12, wrong_ids: 6, no_json: 10, wrong_types: 4},
    **{wrong_lengths: 6, slow: 3, gone: 8, pipelined: 3, odd_http: 12, heavy: 5, grammars: 1},
}


def attack(rng: Random) -> Attack:
    """Return an attack of any kind."""
    (make,) = rng.choices([*KINDS], [*KINDS.values()])
    return make(rng)
