"""Text files as editors on any system write them: UTF-8 with or without a byte order mark, LF or CRLF."""

from __future__ import annotations

from typing import Final

from psa.core.errors import UserError

_WAY_OUT: Final = "Save it as UTF-8"
_UTF_8_MARK: Final = b"\xef\xbb\xbf"
_MARKS: Final = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def decode_text(content: bytes, where: str) -> str:
    """Return the text of a file, with LF at the end of each line. Raise UserError that names its encoding."""
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise UserError(f"{where} must be UTF-8 text, it is {encoding}", _WAY_OUT)
    # Ctrl-Z, which old editors of DOS and Windows put at the end of a text
    body = content.removeprefix(_UTF_8_MARK).rstrip(b"\x1a")
    if b"\0" in body:
        raise UserError(f"{where} must be UTF-8 text, it holds zero bytes: UTF-16 or no text", _WAY_OUT)
    try:
        return body.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where} must be UTF-8 text, line {line} holds the byte 0x{body[error.start]:02x}: perhaps "
            "Latin-1 or Windows-1252",
            _WAY_OUT,
        ) from None
