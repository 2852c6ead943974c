"""What is said to a captioner and what is taken of its words: prompts as files, answers cleaned
and bounded. A refusal, an empty answer or one without end is a reason and never a caption.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avdata import storage
from avdata.encoders.captioner import Answer
from avdata.errors import UsageError

Role = Literal["video", "audio", "joint"]
ROLES: tuple[Role, ...] = ("video", "audio", "joint")
MAX_CHARACTERS = 1200
"""Of a caption; the text encoders take 512 tokens of the picture's and 64 of the sound's."""
PROMPTS = Path(__file__).parent / "prompts"
THOUGHT = re.compile(r"<(think|thinking|thought)>.*?(</\1>|\Z)", re.DOTALL)
LABEL = re.compile(
    r"^(the )?((video|audio|sound|joint|final) )?(caption|description|answer) ?: ", re.I
)
REFUSAL = re.compile(
    r"^(i'?m (very )?sorry|sorry,|i apologi[sz]e|i (can ?not|can't|am unable|'?m unable|am not able"
    r"|'?m not able|won't)\b|as an ai\b|unfortunately, i\b"
    r"|(there is|there's|i see|i hear) no (video|audio|image|sound file)s? (provided|attached)"
    r"|(please|could you) (provide|upload|attach|share)\b)",
    re.I,
)
QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """The words of one role."""

    text: str
    digest: str


def load_prompt(role: Role, file: Path | None = None) -> Prompt:
    """From a file of one's own or the packaged one; UsageError where it is not or is empty."""
    path = file or PROMPTS / f"{role}.txt"
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a file of text ({error})") from error
    if not text:
        raise UsageError(f"{path}: empty; write what the captioner is to be asked")
    return Prompt(text, storage.digest_json(text))


def cleaned(answer: Answer) -> Answer:
    """The same with a caption fit for use, one line of plain text, or with a reason."""
    if answer.text is None:
        return answer
    text = THOUGHT.sub(" ", answer.text)
    text = "".join(one if one.isprintable() else " " for one in text)
    text = " ".join(text.replace("**", "").split())
    text = _unquoted(LABEL.sub("", text))
    if not any(one.isalnum() for one in text):
        return Answer(None, "empty")
    if REFUSAL.match(text.replace("\u2019", "'")):
        return Answer(None, "refused", text[:300])
    if len(text) > MAX_CHARACTERS:
        return Answer(None, "too_long", f"{len(text)} characters: {text[:100]} ...")
    return Answer(text)


def _unquoted(text: str) -> str:
    while len(text) > 1 and QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text
