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
THOUGHT = re.compile(r"\A.*</(think|thinking|thought)>|<(think|thinking|thought)>.*\Z", re.DOTALL)
"""Chat templates may open a thought in the question, so that answers only close it."""
WHAT = "(video|audio|image|picture|frame|sound|recording|clip|file|media)( file| clip| track)?s?"
ASIDE = re.compile(
    r"^((sure( thing)?|certainly|of course|absolutely|okay|ok)[,.!]+ )?"
    r"(here(['\u2019]s| is) (a|an|the|your|my) ([^:.!?]{0,40} )?"
    r"(caption|description)\b[^:.!?]{0,60}: ?)?",
    re.I,
)
LABEL = re.compile(
    r"^(the )?((video|audio|sound|joint|final) )?(caption|description|answer) ?: ", re.I
)
UNABLE = "( can ?not| can't| could not| couldn't| won't|('?m| am) (unable|not able))"
REFUSAL = re.compile(
    rf"^((i'?m|i am) (very |so |really )?sorry\b|sorry,|(my )?apologies\b|i apologi[sz]e"
    rf"|(i'?m|i am) afraid (that )?(i|there|you|no)\b|i( also)?{UNABLE}\b|as an ai\b"
    r"|i (don't|do not|didn't|did not) (actually |currently )?"
    rf"(have|((see|hear|find|detect|receive) (any|an?|the) {WHAT}\b))"
    r"|unfortunately,? (i|there|no)\b|it (seems|looks like|appears) (that )?you\b"
    rf"|((there (is|was|are|were)|there's|i see|i hear|i received) )?no {WHAT} "
    r"((was|were|is|are|has been|have been) )?"
    r"(provided|attached|included|given|received|uploaded|shared|supplied)\b"
    rf"|the {WHAT} (was|were|is|are) not (provided|attached|included|given|uploaded)\b"
    r"|(please|could you( please)?|can you( please)?) (provide|upload|attach|share|send)\b)",
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
    text = _unquoted(LABEL.sub("", ASIDE.sub("", text)))
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
