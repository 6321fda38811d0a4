"""Whether a text is written in another language than English, as far as short words tell."""

from __future__ import annotations

import re
import unicodedata

_ENGLISH = frozenset(
    "the a an of to and in is are was for on with that this it i you your not be can have do will "
    "as at by from or but if my they we he she what how there here which".split()
)
# Short words of languages in Latin letters that are not English words too.
_OTHERS = frozenset(
    "der das und ist nicht ich ein eine einen mit für auf dem den sie wir aber mir kann dabei leid "
    "le la les des une est je vous pas que qui dans avec pour sur mais ne suis peux cela "
    "el los las una es que con por para pero lo se puedo siento eso su "
    "il gli un di che non per sono posso questa questo con mi ti "
    "o um uma não com isso em posso mas do da "
    "de het een niet ik van en op met maar dat kan".split()
)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def is_foreign(text: str, language: str = "en") -> bool:
    """Whether `text` is not English: by its script, or by its short words.

    `language` is the BCP 47 tag of the prompt: where that is not English, a text without any
    English short word counts as foreign too. A text of no known short word, and in Latin letters,
    is not foreign to an English prompt: code and invented words are neither.
    """
    letters = [sign for sign in text if sign.isalpha()]
    if not letters:
        return False
    latin = sum("LATIN" in unicodedata.name(sign, "") for sign in letters)
    if latin < len(letters) / 2:
        return True
    words = [word.casefold() for word in _WORD.findall(text.replace("\u2019", "'"))]
    english = sum(word.split("'")[0] in _ENGLISH for word in words)
    others = sum(word.split("'")[0] in _OTHERS for word in words)
    if others >= 2 and others > english:
        return True
    return english == 0 and not language.lower().startswith("en")
