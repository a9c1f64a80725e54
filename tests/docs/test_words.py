"""The field's terms: words that this project once used for them stay away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("advkit", "docs", "README.md", "recipes")
KINDS = {".py", ".md", ".toml", ".jinja", ".yml", ".sh", ".txt", ".ipynb"}

WORDS = {
    "command": r"(a|the|each|every|two|three|four|five|six|seven) trades?",
    "is robust, was misclassified": (
        r"stands?|stood|fell|fallen|falls? to|survives an attacker|withstands?|withstood"
    ),
    "adaptive attack": r"knows? of (it|the defence|the detector|them)|attacks? that (knows?|does not know)",
    "lower and upper bounds": r"(proved|bounded) from below|from both sides",
    "the attack with its parameters": r"likeliest|three-targets|ce-again|square-again|square-longer",
    "search target": r"\.(aim|goal)",
    "the engine's parts": r"seats?|seated|sat down|tally|tallies|pace|passage|searchers?|attend|sole|\.alone",
    "the training's parts": r"made_of|made of what|held[_ ]to|told|witness|drawer|opponents?|keeper|sight",
    "default threat model": r"customary",
    "batch size, step": r"images an? (update|game)|to play|plays?",
    "classified correctly": r"tells? .{0,20}apart",
    "expensive": r"dear",
    "input range": r"black and white",
    "threshold not met; internal error": r"a bar that you|a mistake in advkit",
    "sanity checks": r"asking whether to believe|whether to believe it",
    "GAN inversion": r"find the latent vectors of which",
    "randomized smoothing": r"votes under noise",
    "rotations and translations": r"turning and shifting",
    "query": r"oracle\.(look|ask)",
    "what the thing is": r"heeds?|befalls?|what came of",
}
"""What to write: the pattern that it takes the place of."""

ARGUED = {
    "advkit/attacks/ensembles/cascade.py": {
        "likeliest",
        "three-targets",
        "ce-again",
        "square-again",
        "square-longer",
    },
    "advkit/core/names.py": {"opponent"},
    "advkit/trained_attacks/generators/game.py": {"opponent"},
    "advkit/trained_attacks/generators/objectives/advgan.py": {"opponent"},
    "advkit/trained_attacks/generators/settings.py": {"opponent"},
    "docs/changelog.md": {"opponent"},
}
"""Keys of stages, from which random numbers follow, and a setting of 0.1.0 that recipes use."""


def files(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in KINDS)


@pytest.mark.parametrize("instead", WORDS)
def test_a_word_of_our_own(instead):
    pattern = re.compile(rf"(?<![\w-])(?:{WORDS[instead]})(?![\w-])")
    if WORDS[instead].startswith(r"\.") or "oracle" in WORDS[instead]:
        pattern = re.compile(rf"(?:{WORDS[instead]})(?![\w-])")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for place in PLACES
        for path in files(place)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
        if match[0] not in ARGUED.get(path.relative_to(ROOT).as_posix(), ())
    ]
    assert found == []
