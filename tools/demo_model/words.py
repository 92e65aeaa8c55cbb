"""Words and numbers to be printed and read. One word in eight is kept from training, by its hash."""

import hashlib
import string
from random import Random

ONSETS = (
    "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gl gr kn pl pr qu sh sk sl sm sn sp st str sw th tr wh"
)
VOWELS = "a e i o u a e i o u ai au ea ee ie oa oo ou y"
CODAS = "b d g k l m n p r s t x ck ct ft ld lk ll lt mp nd ng nk nt ps rd rk rm rn rt sh ss st th"
_SIGNS = (
    "open closed exit enter stop go sale fresh bread coffee tea milk hotel taxi bus train station school bank post "
    "museum market garden river bridge street road north south east west left right up down hello world welcome thank "
    "you yes no push pull hot cold danger caution warning private public parking ticket office room floor lift stairs "
    "water fire police doctor help free new old big small red green blue black white music film book paper pizza salad "
    "soup fish apple banana orange lemon cherry sugar salt pepper summer winter spring autumn monday friday sunday "
    "morning evening night today tomorrow always never quick brown fox jumps over lazy dog house home door window wall "
    "table chair light dark sun moon star cloud rain snow wind earth stone wood iron gold silver glass queue worker "
    "token model vision picture image video frame answer question number letter word"
)
COMMON = tuple(_SIGNS.split())
# Letters whose two cases differ in size alone: a word of only these would have two right readings.
CASE_TWINS = set("ckopsuvwxyz")
LONGEST = 8


def is_held_out(text: str) -> bool:
    """True for the eighth of all words and numbers that training never prints."""
    return hashlib.sha256(text.lower().encode()).digest()[0] < 32


def _syllables(rng: Random) -> str:
    word = ""
    for _ in range(rng.choice((1, 2, 2, 2, 3, 3))):
        word += rng.choice(ONSETS.split()) + rng.choice(VOWELS.split())
        if rng.random() < 0.4:
            word += rng.choice(CODAS.split())
    return word


def _lower_word(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return _syllables(rng)
    if kind < 0.8:
        return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, LONGEST)))
    return rng.choice(COMMON)


def draw_word(rng: Random, held_out: bool, longest: int = LONGEST) -> str:
    """A word of 2 to `longest` letters in lower case, UPPER case or Capitalised, legible without a guess."""
    while True:
        word = _lower_word(rng)
        if not 2 <= len(word) <= longest or set(word) <= CASE_TWINS or is_held_out(word) != held_out:
            continue
        style = rng.random()
        if style < 0.45:
            return word
        if style < 0.75:
            return word.upper()
        if word[0] != "i" and not set(word[1:]) <= CASE_TWINS:
            return word.capitalize()


def draw_number(rng: Random, held_out: bool, longest: int = LONGEST) -> str:
    """Digits, 2 to `longest` of them (one digit is too few to keep any from training)."""
    while True:
        number = "".join(rng.choice(string.digits) for _ in range(rng.randint(2, longest)))
        if is_held_out(number) == held_out:
            return number


def draw_text(rng: Random, held_out: bool, longest: int = LONGEST) -> str:
    return draw_number(rng, held_out, longest) if rng.random() < 0.3 else draw_word(rng, held_out, longest)
