"""Files that were sound once: cut off, doubled, turned round, in another encoding, filled with what is foreign."""

import codecs
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.attack.conftest import EXAMPLES

FEW = 12


def tried(few: int = FEW) -> settings:
    """A few examples, always the same, in `make test`; many times as many in a deep run, found anew by its seed."""
    return settings(
        max_examples=few * max(1, EXAMPLES // 2),
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def _encoded(codec: str) -> Callable[[bytes], bytes]:
    def encode(raw: bytes) -> bytes:
        return raw.decode("utf-8", "replace").encode(codec, "replace")

    return encode


_WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "as UTF-16": _encoded("utf-16"),
    "as GB 18030": _encoded("gb18030"),
    "as Latin-1": _encoded("latin-1"),
    "with a byte order mark": lambda raw: codecs.BOM_UTF8 + raw,
    "with CRLF": lambda raw: raw.replace(b"\n", b"\r\n"),
    "with CR": lambda raw: raw.replace(b"\n", b"\r"),
    "without line ends": lambda raw: raw.replace(b"\n", b""),
    "twice": lambda raw: raw * 2,
}
_FOREIGN = st.sampled_from(
    [b"\0", b"\xff\xfe", b"\x1a", b"|", b'"', b"}", b"\n\n\n", b"\xe2\x80\xae", b"9" * 400, b"[" * 3000]
)
_LINES = st.sampled_from(
    [b"", b"null", b"[]", b"T|0|0", b"B|0", b"R|||||", b"city: x", b'{"a": 1e999}', b"\xff" * 300_000]
)


@st.composite
def mangled(draw: st.DrawFn, sound: bytes) -> bytes:
    """The file after one to four mishaps."""
    raw = sound
    for _ in range(draw(st.integers(1, 4))):
        raw = draw(_mishap(raw))
    return raw


@st.composite
def _mishap(draw: st.DrawFn, raw: bytes) -> bytes:
    place = draw(st.integers(0, len(raw)))
    lines = raw.split(b"\n")
    at, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    match draw(st.sampled_from(["cut", "insert", "replace", "whole", "drop", "repeat", "swap", "foreign line"])):
        case "cut":
            return raw[:place]
        case "insert":
            return raw[:place] + draw(_FOREIGN | st.binary(max_size=4)) + raw[place:]
        case "replace":
            return raw[:place] + draw(st.binary(min_size=1, max_size=1)) + raw[place + 1 :]
        case "whole":
            return _WHOLE[draw(st.sampled_from(sorted(_WHOLE)))](raw)
        case "drop":
            del lines[at]
        case "repeat":
            lines.insert(at, lines[at])
        case "swap":
            lines[at], lines[other] = lines[other], lines[at]
        case _:
            lines.insert(at, draw(_LINES))
    return b"\n".join(lines)
