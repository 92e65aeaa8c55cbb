"""The few rules of grammar that the answers need."""

from collections.abc import Sequence

from tools.demo_model.palette import NUMBERS, PLURALS


def capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def a(noun: str) -> str:
    """With its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def listed(items: Sequence[str]) -> str:
    """`x`, `x and y`, `x, y and z`."""
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} and {items[-1]}"


def plural(noun: str) -> str:
    """Of a noun phrase that ends in its noun: `red cross` → `red crosses`."""
    head, _, last = noun.rpartition(" ")
    return f"{head} {PLURALS[last]}".strip()


def counted(count: int, noun: str) -> str:
    """`three red circles`, `one star`, `no stars`."""
    return f"{NUMBERS[count]} {noun if count == 1 else plural(noun)}"


def there_are(count: int, noun: str) -> str:
    return f"There {'is' if count == 1 else 'are'} {counted(count, noun)}."
