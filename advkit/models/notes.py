"""What a person should know of a model that was loaded: a sentence, with a code to decide by."""

from __future__ import annotations

from typing import Literal, get_args

Code = Literal[
    "card",
    "origin",
    "architecture-found",
    "size-assumed",
    "size-trained",
    "weights-by-shape",
    "weights-left-out",
    "weights-converted",
    "normalisation-assumed",
    "normalisation-read",
    "output-unwrapped",
    "input-copied",
    "train-mode",
    "random",
]
"""``card``: what the card of a model file says. The others are said by advkit when it loads or inspects."""


class Note(str):
    """The sentence itself, for people.

    Args:
        code: what it is about; nothing else of a note is ever decided on.
        text: the sentence.
    """

    __slots__ = ("code",)
    code: Code

    def __new__(cls, code: Code, text: str) -> Note:
        """A sentence with its code."""
        if code not in get_args(Code):
            raise ValueError(f"no code of a note: {code}")
        note = super().__new__(cls, text)
        note.code = code
        return note

    def __getnewargs__(self) -> tuple[Code, str]:  # type: ignore[override]
        return self.code, str(self)
