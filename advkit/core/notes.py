"""Facts that a reader of a number has to know, such as what was assumed or left out."""

from __future__ import annotations

from advkit.core.config import StrictModel


class Note(StrictModel):
    """One such fact. Decisions go by ``code``; ``text`` is for people and may be reworded."""

    code: str
    text: str

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code=code, text=text)  # type: ignore[call-arg]

    def __str__(self) -> str:
        return self.text
