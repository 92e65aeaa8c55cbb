"""Text made by rule, for training a small tokenizer: plain English, invented words, Chinese, numbers and code."""

import random
from collections.abc import Iterator


def _words(text: str) -> list[str]:
    return text.split()


_COLOURS = _words("red green blue yellow orange purple black white grey brown pink golden silver dark bright pale")
_THINGS = _words(
    "circle square triangle line star house tree car dog cat bird person child road river mountain table chair "
    "window door picture photograph image street building sky cloud sun moon flower garden boat bridge train "
    "bicycle letter number word sign screen book cup bottle plate hand face eye shadow corner field beach wall"
)
_PLACES = _words("left right top bottom middle centre corner background foreground side edge front back")
_VERBS = _words("shows contains holds has displays presents includes depicts describes covers")
_JOINTS = _words("and or but while because with without near under above between behind beside inside outside")
_SYLLABLES = _words(
    "ba be bi bo bu ca ce co da de di do fa fe fi ga ge go ha he hi ho ja jo ka ke ki la le li lo lu ma me mi mo mu "
    "na ne ni no pa pe pi po qua ra re ri ro sa se si so su ta te ti to tu va ve vi wa we wi za ze str tion ing ment "
    "ness able pre con pro ter ver est ist ous ful less"
)
_CHINESE = "图片中有一个红色的圆形和蓝色方块请描述这张照片里面是什么左边右边上面下面几个人在街道旁树木天空房子猫狗车"


def sentences(seed: int, count: int) -> Iterator[str]:
    """`count` short texts, always the same for a seed."""
    rng = random.Random(seed)
    kinds = (_english, _english, _invented, _chinese, _figures)
    for _ in range(count):
        yield rng.choice(kinds)(rng)


def _english(rng: random.Random) -> str:
    noun = f"{rng.choice(_COLOURS)} {rng.choice(_THINGS)}"
    other = f"{rng.choice(_COLOURS)} {rng.choice(_THINGS)}s"
    place = f"on the {rng.choice(_PLACES)} of the {rng.choice(_THINGS)}"
    return (
        f"The {rng.choice(_THINGS)} {rng.choice(_VERBS)} a {noun} {rng.choice(_JOINTS)} "
        f"{rng.randrange(2, 20)} {other} {place}. What is it? There are {rng.choice(_COLOURS)} ones, I think.\n"
    )


def _invented(rng: random.Random) -> str:
    words = ("".join(rng.choices(_SYLLABLES, k=rng.randrange(1, 4))) for _ in range(12))
    return " ".join(words) + ".\n"


def _chinese(rng: random.Random) -> str:
    start = rng.randrange(len(_CHINESE) - 8)
    return f"{_CHINESE[start : start + rng.randrange(4, 9)]}，{''.join(rng.choices(_CHINESE, k=6))}。\n"


def _figures(rng: random.Random) -> str:
    thing, mark = rng.choice(_THINGS), rng.choice("äöüéñ€→")
    return f'{{"{thing}": [{rng.random():.3f}, {rng.randrange(1000)}], "ok": true}} # {mark}\n'
