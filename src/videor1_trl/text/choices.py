"""Which option an answer names, where it can be read in one way only."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LONGEST = 2_000  # characters of an answer that is looked into

# A letter alone, in brackets, or before one of the marks that set it off; what follows the mark is the option's text
_MARKS = r".:)、"
_CHOICE = re.compile(
    rf"(?:\(\s*([a-z])\s*\)[{_MARKS}]?|\[\s*([a-z])\s*\][{_MARKS}]?|([a-z])(?:[{_MARKS}]|[,;!]?$))(.*)",
    re.IGNORECASE | re.DOTALL,
)
# Scripts that set no spaces between words, where a border between words cannot be seen
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_NOT_WITHIN_A_WORD = rf"(?<![^\W{_UNSPACED}]['’])(?<![^\W{_UNSPACED}])"
# A letter that stands alone in that text names a second option, unless it is the word "a" or "I" before another word.
_LONE_LETTER = re.compile(
    rf"{_NOT_WITHIN_A_WORD}(?![aI]\s+(?!or\b|and\b)\w|A\s+(?!or\b|and\b)\w)([A-Za-z])(?!['’]?[^\W{_UNSPACED}])"
)
# What takes an answer back, or leaves it open
_DENIAL = re.compile(
    r"\b(?:not|no|nor|neither|never|none|wrong|incorrect|false|cannot|maybe|perhaps|or|all of|any of|both)\b|n['’]t\b|&"
    r"|不|没|或|非|ไม่|หรือ|أو|ليس",
    re.IGNORECASE,
)
# A capital letter before a text that does not go on to another; "A" and "I" may be words of that text
_LETTER_AND_TEXT = re.compile(r"([A-Za-z])\s+(?!(?:and|but|vs|versus|even)\b)(.+)")
_LETTER_IS_RIGHT = re.compile(r"([A-Z])\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b(.*)")
_LETTER_AND_REASON = re.compile(r"\(?([A-Z])\)?(?:\s*[,;–—]|(?=\s))(\s*(?:because|since|as|for)\b|(?<=[,;–—]))(.*)")
_TEXT_AND_LETTER = re.compile(r"(.+?)\s*\(([A-Z])\)")

_BOLD = re.compile(r"\*\*([^*]+)\*\*")
# What answers are wrapped in: LaTeX, Markdown, HTML, quotes
_WRAPPED = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\\f?boxed\s*\{(.*)\}",
        r"\\(?:text|textbf|textit|mathrm|mathbf)\s*\{(.*)\}",
        r"\$\$?([^$]+)\$\$?",
        r"\\\((.*)\\\)",
        r"\\\[(.*)\\\]",
        r"<(?:b|i|em|strong)>([^<]*)</\w+>",
        r"\*\*?([^*]+)\*\*?",
        r"__?([^_]+)__?",
        r"`+([^`]+)`+",
        r"[\"“”「『]([^\"“”「」『』]+)[\"“”」』]",
        r"['‘’]([^'‘’]+)['‘’]",
    )
]
# What they are led in by: "So the final answer is", "Answer:", "I choose", and the kind of thing that a letter names
_LEAD = re.compile(
    r"(?:#+\s*)?(?:(?:so|thus|hence|therefore|then)\b,?\s+)?(?:i\s+(?:think|believe)\s+(?:that\s+)?)?"
    r"(?:"
    r"(?:(?:the|my|our)\s+)?(?:(?:final|correct|right|best|most\s+likely)\s+)*(?:answer|ans|option|choice)\s*"
    r"(?:is|was|would\s+be|should\s+be|must\s+be|:|=)\s*:?\s*"
    r"|(?:i|we)\s*(?:would|['’]d)?\s*(?:choose|pick|select)\s+"
    r"|(?:the\s+)?(?:答案|答|正解|选项|選項)\s*(?:是|为|為|:)\s*|选\s*|選\s*"
    r")(?:(?:option|letter)\s+(?=\W?[A-Z]\b))?",
    re.IGNORECASE,
)
_KIND = re.compile(r"(?:option|choice|answer|caption|sentence)\s+(?=\(?[A-Z]\)?(?:\W|$))", re.IGNORECASE)


def bare(text: str) -> str:
    """
    An answer without what it is led in by and wrapped in.

    >>> bare("The final answer is: **B**"), bare("$\\\\boxed{5}$"), bare("Caption A"), bare("left")
    ('B', '5', 'A', 'left')
    """
    return _bared(text)[0]


def _bared(text: str) -> tuple[str, bool]:
    """The bare answer, and whether it was led in."""
    text, led = _BOLD.sub(r"\1", text).strip(), False
    for _ in range(6):  # more than anyone nests
        before = text
        for pattern in _WRAPPED:
            if found := pattern.fullmatch(text.rstrip(".")) or pattern.fullmatch(text):
                text = found[1].strip()
        if found := _LEAD.match(text):
            text, led = text[found.end() :].strip(), True
        text = _KIND.sub("", text, count=1) if _KIND.match(text) else text
        if text == before:
            break
    return text, led


def read_choice(text: str, options: Sequence[str] = (), *, is_letter: bool = False) -> str:
    """
    The letter of the option that an answer names, in upper case; else its text without regard to case and white space.

    "b", "(B)", "B.", "B. left", "B left", "**B**", "The answer is B" and the whole text of an option ("left", "Left, it goes
    there.") name one. The text of an option comes before a letter that it may begin with ("C major"). What names a second
    option, by letter or by text, takes the first back or leaves it open, names none.

    Args:
        text (`str`): of the answer.
        options (`Sequence[str]`, defaults to none): such as `"A. left"`, or without letters in their order.
        is_letter (`bool`): that a letter is asked for, where the options are not known: "B left" is then B.

    >>> options = ["A. left", "B. right"]
    >>> [read_choice(text, options) for text in ("b", "B right", "Answer: right.", "A or B", "left, right")]
    ['B', 'B', 'B', 'a or b', 'left, right']
    """
    return _read_choice(str(text), tuple(options), is_letter)


@functools.lru_cache(maxsize=1024)  # the rollouts of a group have one gold, and few different answers
def _read_choice(text: str, options: tuple[str, ...], is_letter: bool) -> str:
    plain = unicodedata.normalize("NFKC", text).replace("。", ".")
    whole = " ".join(plain.split())
    by_letter = dict(labelled(options))
    forms = [(whole, False), *([_bared(plain.strip())] if len(plain) <= LONGEST else [])]
    forms = [(" ".join(form.split()), led) for form, led in forms]
    for form, _ in forms:
        if (found := _option_of_text(form, by_letter)) is not None:
            return found
    for form, led in dict.fromkeys(forms):
        if (found := _named(form, led, by_letter, is_letter)) is not None:
            return found
    return whole.casefold()


def labelled(options: Sequence[str]) -> list[tuple[str, str]]:
    """
    Options as (letter, text): their own letters where all have one, each another; else those of their places.

    >>> labelled(["A. left", "B. right"]), labelled(["left", "right"]), labelled(["C", "A"])
    ([('A', 'left'), ('B', 'right')], [('A', 'left'), ('B', 'right')], [('A', 'C'), ('B', 'A')])
    """
    if (own := _own_letters(options)) is not None:
        return own
    return [(letter, _spaced(option)) for letter, option in zip(LETTERS, options, strict=False)]


def lettered(options: Sequence[str]) -> list[str]:
    """
    Options with their letters before them, so that a letter can be asked for.

    >>> lettered(["left", "right"]), lettered(["A. left", "B. right"])
    (['A. left', 'B. right'], ['A. left', 'B. right'])
    """
    if _own_letters(options) is not None:
        return list(options)
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def _own_letters(options: Sequence[str]) -> list[tuple[str, str]] | None:
    """The options' own letters and texts, where they have them: one after the other from A, or each another."""
    own = [_label(_spaced(option)) for option in options]
    letters = [letter for letter, _ in own]
    if not own or not all(letter and words for letter, words in own) or len(set(letters)) < len(letters):
        return None
    # "C. elegans" and "E. coli" begin with letters that are none of theirs
    in_order = letters == list(LETTERS[: len(letters)]) or letters == sorted(letters) and letters[0] == "A"
    return own if in_order else None


def _option_of_text(form: str, by_letter: dict[str, str]) -> str | None:
    """The letter of the one option whose text a form is: as it is written, else without regard to case and marks around it."""
    for same in (str.strip, without_marks, _plain_bare):
        found = [letter for letter, words in by_letter.items() if words and same(words) == same(form)]
        if len(found) == 1:
            # a text that is a letter may also be the letter of another option
            return None if same is not _plain_bare and _is_letter(form, by_letter, found[0]) else found[0]
        if found:
            return None
    return None


def _is_letter(form: str, by_letter: dict[str, str], option: str) -> bool:
    """Whether a form is the letter of another option than the one whose text it is."""
    letter = form.strip(" .()").upper()
    return len(letter) == 1 and letter in by_letter and letter != option


def _named(form: str, led: bool, by_letter: dict[str, str], is_letter: bool) -> str | None:
    """The letter that one form of an answer names, `None` where it names none, or more than one."""
    letter, rest = _label(form)
    if letter:
        return letter if _agrees(letter, rest, by_letter) else None
    if found := _LETTER_AND_TEXT.fullmatch(form):
        own = by_letter.get(found[1].upper())
        if own is not None and without_marks(own) == without_marks(found[2]):
            return found[1].upper()
        # without options nobody can say that "C major" is not an answer's text
        is_no_word = found[1] not in "AI" and found[1].isupper() and (found[1] in by_letter or is_letter)
        if is_no_word and _agrees(found[1], found[2], by_letter):
            return found[1]
    if (found := _LETTER_IS_RIGHT.fullmatch(form)) and _agrees(found[1], found[2], by_letter):
        return found[1]
    if found := _LETTER_AND_REASON.match(form):
        is_text = bool(by_letter) and without_marks(by_letter.get(found[1], "")) == without_marks(found[3])
        if (led or is_text) and _agrees(found[1], found[3], by_letter, is_reason=bool(found[2])):
            return found[1]
    if (found := _TEXT_AND_LETTER.fullmatch(_trimmed(form))) and without_marks(
        by_letter.get(found[2], "")
    ) == without_marks(found[1]):
        return found[2]
    named = [letter for letter, words in by_letter.items() if words and _begins(form, words)]
    if len(named) != 1:
        return None
    rest = _trimmed(form)[len(_trimmed(by_letter[named[0]])) :]
    return named[0] if _agrees(named[0], rest, by_letter) else None


def _begins(form: str, words: str) -> bool:
    """Whether a text has an option's as the beginning of a sentence: "Yes, it does.", "Yes it does" of "yes"."""
    plain, words = without_marks(form), without_marks(words)
    if not words or not plain.startswith(words):
        return False
    border = r"[,.;:!]\s|\s*[-–—]\s" + (
        r"|\s+(?:it|he|she|they|there|because|since)\b" if words in ("yes", "no") else ""
    )
    return re.match(border, plain[len(words) :]) is not None


def _agrees(letter: str, rest: str, by_letter: dict[str, str], is_reason: bool = False) -> bool:
    """
    Whether what stands beside a letter, or beside an option's text, names no other option and takes nothing back; what it
    denies within a reason, or as its own option does, takes nothing back.
    """
    plain, own = without_marks(rest), without_marks(by_letter.get(letter, ""))
    if not plain or plain == own:
        return True
    if own and plain.startswith(own) and not plain[len(own) :][:1].isalnum():  # the option's text, and more
        plain = plain[len(own) :]
        rest = _trimmed(rest)[len(own) :]
    others = {without_marks(words) for other, words in by_letter.items() if other != letter} - {own, ""}
    for words in others:
        border = "" if re.search(rf"[{_UNSPACED}\u0600-\u06ff]", words) else r"(?<![\w.])"
        behind = "" if not border else r"(?![\w]|\.\d)"
        if re.search(border + re.escape(words) + behind, plain):
            return False
    denied = set(_DENIAL.findall(plain)) - set(_DENIAL.findall(own))
    if denied and not is_reason and not (own in ("yes", "no") and len(by_letter) == 2):
        return False
    return all(other.upper() == letter for other in _LONE_LETTER.findall(rest))


def without_marks(text: str) -> str:
    """
    A text to compare by: without regard to case, white space and the marks around it.

    >>> without_marks(" Left,  then up. "), without_marks("-5"), without_marks("?")
    ('left, then up', '-5', '?')
    """
    return _trimmed(text).casefold()


def _plain_bare(text: str) -> str:
    """The same, of what a text leads in or wraps."""
    return without_marks(bare(text))


def _trimmed(text: str) -> str:
    spaced = " ".join(text.split())
    marks = " ,;:!?\"'“”‘’「」،"
    # a point before a digit belongs to a number
    return re.sub(r"^\.+(?!\d)", "", spaced.strip(marks)).rstrip(".").strip(marks) or spaced


def _spaced(option: str) -> str:
    """An option in one line, its letters and marks of full width as plain ones."""
    return " ".join(unicodedata.normalize("NFKC", str(option)).replace("。", ".").split())


def _label(text: str) -> tuple[str, str]:
    """The letter that a text begins with, in upper case, and what follows it; no letter where there is none."""
    text = " ".join(text.split())
    label = _CHOICE.fullmatch(text)
    return ((label[1] or label[2] or label[3]).upper(), label[4].strip()) if label else ("", text)
