"""The mark inside a `.preview.png` that we wrote for other programs, so that we never take it for somebody else's."""

from __future__ import annotations

import json

#: Type and content of the chunk right behind the first one of the PNG.
CHUNK = b"tEXt" + b"loravault\0" + json.dumps({"v": 1, "preview": True}).encode()
#: Signature, first chunk, and the length of ours.
_AT = 8 + 25 + 4
#: As much of it as stands in the bytes by which kinds of pictures are told; a picture that was made begins otherwise.
_BEGINNING = CHUNK[:26]


def is_exported(head: bytes) -> bool:
    """Whether a file that begins so (64 bytes) is a preview that we exported."""
    return head[_AT : _AT + len(_BEGINNING)] == _BEGINNING
