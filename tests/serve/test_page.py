"""The files of the page: that its words are there in every language, and its colours can be told apart."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import derain
from derain.serve.endpoints import ASSETS, PAGE
from derain.serve.live_page import FILES
from derain.serve.models import offered

FOUND = json.loads(ASSETS["words.json"].read_text("utf-8"))
SCRIPTS = {name: path.read_text("utf-8") for name, path in ASSETS.items() if path.suffix == ".js"}
HTML = (PAGE / "index.html").read_text("utf-8")


def test_every_word_is_there_in_every_language() -> None:
    for key, texts in FOUND["words"].items():
        assert list(texts) == list(FOUND["languages"]), key
        names = {language: sorted(re.findall(r"\{(\w+)\}", text)) for language, text in texts.items()}
        assert all(found == names["en"] for found in names.values()), key
        assert all(text and text == text.strip() for text in texts.values()), key


def test_the_words_are_those_that_the_page_asks_for() -> None:
    code = "".join([*SCRIPTS.values(), FILES["/live.js"].read_text("utf-8")])
    asked = set(re.findall(r'word\("(\w+)"', code)) | set(re.findall(r'data-(?:word|label)="(\w+)"', HTML))
    asked |= set(re.findall(r'"(key_\w+)"', code)) | set(re.findall(r'"(\w+)" : "(?:\w+)"\)', code))
    for chosen in re.findall(r'word\([^()"]+\? "(\w+)" : "(\w+)"', code):
        asked |= set(chosen)
    own = {key for key in FOUND["words"] if not key.startswith("served:")}
    assert asked == own


def test_the_english_of_the_html_is_that_of_the_words() -> None:
    for key, text in re.findall(r'data-word="(\w+)"[^>]*>([^<]+)<', HTML):
        assert FOUND["words"][key]["en"] in (text, "Brush size"), key


def test_french_signs_stay_with_their_words() -> None:
    for key, texts in FOUND["words"].items():
        assert not re.search(r"[^\u00a0.][;:?!]", texts["fr"]), key


def test_what_is_translated_is_what_the_server_says() -> None:
    """Each translated text is one of the package, with its {parts} in place of what varies."""
    titles = {model.title for model in offered(())}
    assert titles <= {key.removeprefix("served:") for key in FOUND["words"]}
    said = re.compile("|".join(sorted({*_patterns(), *map(re.escape, titles)})))
    for key, texts in FOUND["words"].items():
        text = key.removeprefix("served:")
        if text != key:
            assert texts["en"] == text
            assert said.fullmatch(text) or said.fullmatch(f"NAME: {text}"), text


def _patterns() -> list[str]:
    """Regular expressions of the texts in the source; those of almost nothing but parts are left out."""
    found = []
    for path in sorted(Path(derain.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.escape(node.value))
            if isinstance(node, ast.JoinedStr):
                fixed = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
                if sum(len(part.strip()) for part in fixed if part) >= 4:
                    found.append("".join(".*" if part is None else re.escape(part) for part in fixed))
    return found


def test_no_message_of_an_upload_was_forgotten() -> None:
    """Refusals of fixed words that the page shows; those of other requests are for programs."""
    for name, programs in NOT_SHOWN.items():
        tree = ast.parse((PAGE.parent / name).read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refused":
                text = node.args[1]
                if isinstance(text, ast.Constant) and text.value not in programs:
                    assert f"served:{text.value}" in FOUND["words"], text.value


NOT_SHOWN: dict[str, set[str]] = {
    "uploads.py": set(),
    "guard.py": set(),
    "jobs.py": {
        "the queue is full; try again in a minute.",  # the page tries again by itself
        "no such job; it may have been deleted.",  # it has own words for that
    },
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_edges_and_texts_stand_out(scheme: str) -> None:
    """WCAG 2.2: 3:1 for the edges of controls (1.4.11), 4.5:1 for text (1.4.3)."""
    style = ASSETS["style.css"].read_text("utf-8")
    block = re.findall(r":root \{(.*?)\}", style, re.S)[0 if scheme == "light" else 1]
    colour = dict(re.findall(r"--([\w-]+): (#\w+)", block))
    grounds = [colour[name] for name in ("paper", "card", "soft")]
    assert min(contrast(colour["edge"], ground) for ground in grounds) >= 3
    assert min(contrast(colour["main"], ground) for ground in (*grounds, colour["rule"])) >= 3
    assert min(contrast(colour["ink"], ground) for ground in grounds) >= 4.5
    assert min(contrast(colour["faint"], colour[ground]) for ground in ("paper", "card")) >= 4.5
    assert contrast(colour["on-main"], colour["main"]) >= 4.5
    assert contrast(colour["bad"], colour["bad-paper"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2 of two colours #rgb or #rrggbb."""

    def luminance(text: str) -> float:
        digits = text[1:] if len(text) == 7 else "".join(2 * sign for sign in text[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
