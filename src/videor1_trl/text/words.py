"""The words of a text in any script, signs among them, for the comparison of free answers."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import regex
from nltk.stem.porter import PorterStemmer


# Scripts that set no spaces between words: every character (with its marks) counts as one
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_CHARACTER = rf"[{_UNSPACED}]\p{{M}}*"
_WORD = rf"(?:(?![{_UNSPACED}])[\p{{L}}\p{{N}}]\p{{M}}*)+"
_NUMBER = r"\d+(?:[.,]\d+)+"
# A sign before a number or a name, relations and operators, units; what ends or joins sentences is none
_SIGN = (
    r"[<>!]=|(?<![\p{L}\p{N}])[-+](?=\s*[.\p{L}\p{N}])|-(?=\s)|(?<=\d)[-/:](?=\d)|(?<=[\p{L}\p{N}])/(?=[\p{L}\p{N}])"
    r"|(?<=\p{L})['#](?=\s|$)|[\p{Sm}\p{Sc}\p{So}%‰°^*\u00b2\u00b3\u00b9\u2070-\u2079\u207a\u207b\u2080-\u208b]"
)
_SCRIPTS = regex.compile(r"([\u00b2\u00b3\u00b9\u2070-\u208b]+)")  # which would become plain numbers: x² is not x2
_SCRIPT = regex.compile(r"[\u00b2\u00b3\u00b9\u2070-\u208b]")
_TOKENS = regex.compile(rf"{_NUMBER}|{_CHARACTER}|{_WORD}|{_SIGN}")
_SPACED = regex.compile(rf"([{_UNSPACED}]\p{{M}}*)")
_GROUPED = regex.compile(r"(?<=^\d{1,3}(?:,\d{3})*),(?=\d{3}(?:,\d{3})*(?:\.\d+)?$)")  # commas that set off thousands
# English words that carry no answer; those of order, place and denial ("before", "up", "not") may carry it, and are none
_EMPTY = """
    a an the this that these those and or but so than then also if as of to at by for from with in on into onto
    is are was were be been being am do does did has have had having will would can could shall should may might must
    it its he him his she her hers they them their we us our you your i me my who whom whose which what there here
"""
_stem = lru_cache(maxsize=100_000)(PorterStemmer().stem)


def words_of(text: str) -> list[str]:
    """
    The words of a text, in lower case, English ones by their stems as in ROUGE: characters where a script sets no spaces, and
    the signs that change what is said; without punctuation.

    >>> words_of("The cats ran."), words_of("x < 0"), words_of("-5 %"), words_of("向左移动。")
    (['the', 'cat', 'ran'], ['x', '<', '0'], ['-', '5', '%'], ['向', '左', '移', '动'])
    >>> words_of("1,000 km at 3.5"), words_of("3,5")
    (['1000', 'km', 'at', '3.5'], ['3,5'])
    """
    plain = "".join(
        each if _SCRIPT.match(each) else unicodedata.normalize("NFKC", each) for each in _SCRIPTS.split(text)
    )
    for sign, other in (("−", "-"), ("–", "-"), ("—", "-"), ("≤", "<="), ("≥", ">="), ("≠", "!=")):
        plain = plain.replace(sign, other)
    plain = plain.lower()
    return [_GROUPED.sub("", word) if word[0].isdigit() else stem(word) for word in _TOKENS.findall(plain)]


def stem(word: str) -> str:
    """As rouge-score has it: Porter's stem of words of more than three letters."""
    return _stem(word) if len(word) > 3 and word.isascii() and word.isalpha() else word


EMPTY_WORDS = frozenset(words_of(_EMPTY))


def spaced(text: str) -> list[str]:
    """
    What a text is read as, word by word, nothing left out; character by character where a script sets no spaces.

    >>> spaced("Exit 出口 2"), spaced("a,b c")
    (['Exit', '出', '口', '2'], ['a,b', 'c'])
    """
    return _SPACED.sub(r" \1 ", text).split()


def plain_signs(text: str) -> str:
    """
    A text with its signs of full width and the like as plain ones; a half and a square stay what they are.

    >>> plain_signs("12.5\uff0d20\u00bd")
    '12.5-20½'
    """
    return "".join(
        sign if sign.isnumeric() and not sign.isdecimal() else unicodedata.normalize("NFKC", sign) for sign in text
    )
