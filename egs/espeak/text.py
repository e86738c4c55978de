"""Sentences of the default corpus: upper-case words without punctuation, numbers spelled out.

Every word is used about equally often among those of its kind. No two words sound alike in any of
the accents, so that a transcript follows from the sound alone: no TO beside TWO, no OUR beside HOUR
(tests/egs/test_espeak.py asks espeak). espeak speaks some pairs as one word (IN THE, OF THE, ON
THE …): the patterns avoid them.
"""

import random
import re
import zlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

WORDS = {
    "digit": "zero one two three four five six seven eight nine",
    "teen": """ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen""",
    "ten": "twenty thirty forty fifty sixty seventy eighty ninety",
    "ordinal": """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
        thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
        thirtieth""",
    "day": "monday tuesday wednesday thursday friday saturday sunday",
    "month": """january february march april may june july august september october november
        december""",
    "when": "today tomorrow yesterday tonight again later soon now early often",
    "part": "morning afternoon evening night week month year",
    "unit": """dollars euros kilometres metres minutes seconds pages boxes bottles tickets people
        degrees percent grams""",
    "name": """maria oscar julia peter hannah david sofia victor laura martin emma thomas olivia
        simon alice george nina robert clara daniel eva felix greta hugo irene jacob karen lucas
        monica paula rachel samuel teresa walter yvonne""",
    "surname": """anderson bennett carter dixon edwards fletcher gibson harrison ingram jackson
        keller morrison newton osborne patterson robinson stevens turner watson zimmerman""",
    "city": """london paris berlin madrid chicago toronto sydney tokyo dublin boston lisbon vienna
        prague oslo cairo nairobi moscow budapest helsinki athens""",
    "place": "home work school hospital station airport office library market museum theatre hotel",
    "room": "kitchen bedroom bathroom garage hallway garden basement attic balcony cellar",
    "device": "light lamp fan heater radio television camera alarm printer window door speaker",
    "music": "jazz classical folk country electronic opera blues gospel",
    "colour": """red green yellow orange purple black white brown silver golden pink grey crimson
        violet scarlet turquoise beige""",
    "adjective": """hungry sleepy quiet angry clever lazy happy young brave curious tiny huge
        gentle noisy lonely strange friendly nervous famous wild careful patient stubborn polite
        elegant graceful jealous cheerful""",
    "animal": """fox rabbit tiger elephant monkey donkey camel eagle parrot pigeon spider lizard
        dolphin penguin squirrel hamster kitten puppy wolf badger beaver giraffe zebra leopard
        turtle salmon octopus crocodile buffalo goose lobster ostrich""",
    "person": """teacher doctor farmer sailor painter singer lawyer soldier student engineer
        dancer banker gardener captain driver writer nurse judge scientist musician plumber
        carpenter baker barber juggler waiter""",
    "thing": """basket hammer bicycle umbrella blanket candle mirror guitar piano violin pencil
        notebook suitcase wallet jacket sweater trumpet ladder bucket shovel kettle saucepan
        telescope magnet compass envelope newspaper photograph statue necklace keyboard curtain""",
    "food": """bread cheese butter pasta chicken potato tomato carrot onion pepper garlic lemon
        banana apple cherry mango coconut pumpkin mushroom spinach chocolate biscuit pudding
        pancake sandwich omelette cucumber""",
    "scene": """mountain river forest village castle bridge island valley desert harbour meadow
        tunnel tower cottage factory cathedral orchard waterfall lighthouse stadium""",
    "where": "near under behind beside above across towards beyond",
    "moved": """walked jumped climbed travelled wandered crawled danced galloped marched slipped
        hurried vanished""",
    "did": """carried dropped painted borrowed noticed repaired collected polished wanted watched
        lifted followed ignored discovered remembered admired invited rescued""",
    "cooked": "cooked tasted ordered shared prepared refused served chopped fried finished",
    "how": """slowly quickly quietly suddenly carefully happily badly loudly bravely secretly
        eagerly gladly politely""",
    "said": "says thinks believes knows hopes imagines",
    "large": "hundred thousand and",  # what numbers are made of besides digits, teens and tens
}
WORDS = {kind: words.split() for kind, words in WORDS.items()}

# (weight, pattern): {kind} is a word of WORDS, or a number or date spelled out in `fill`.
PATTERNS = [
    (8, "{digits}"),
    (4, "call number {digits}"),
    (4, "the code is {digits}"),
    (8, "{name} {surname} {digits}"),
    (5, "{day} {date}"),
    (5, "{day} {date} {year}"),
    (5, "the meeting is after {date}"),
    (5, "{name} {surname} was born before {date}"),
    (5, "it is {hour} {minute} {when}"),
    (7, "half past {hour} this {part}"),
    (7, "quarter past {hour} every {day} {part}"),
    (5, "set an alarm at {hour} {minute} {when}"),
    (6, "{number} {unit}"),
    (8, "{name} {surname} bought {number} {unit}"),
    (5, "add {number} {unit} and {number} {unit}"),
    (12, "call {name} {surname} at {place} {when}"),
    (10, "turn off a {room} {device}"),
    (10, "switch on every {device} near my {room}"),
    (8, "play some {music} music {when}"),
    (12, "please send {name} {surname} your {thing}"),
    (12, "find a cheap {place} near {city}"),
    (9, "drive from {city} past {city}"),
    (9, "show me flights from {city} next {day}"),
    (7, "open the {colour} {device} and stop the {music} music"),
    (20, "the {adjective} {animal} {moved} {how} {where} the {scene}"),
    (12, "my {adjective} {person} {did} a {colour} {thing}"),
    (16, "{name} {cooked} some {food} and {food} {when}"),
    (10, "the {colour} {animal} {did} that {adjective} {person}"),
    (12, "the {ordinal} {person} {did} your {adjective} {animal}"),
    (14, "every {person} {did} the {thing} {where} this {scene}"),
    (10, "{name} {said} that {animal} is {adjective}"),
    (10, "your {thing} was {where} the {colour} {scene}"),
    (12, "the {ordinal} {person} {cooked} my {food} {how}"),
    (8, "last {month} the {animal} {did} some {thing}"),
]
WEIGHTED = [pattern for weight, pattern in PATTERNS for _ in range(weight)]

SHARES = {"dev": 1, "test_clean": 2, "test_other": 2}  # of twenty; train has the rest


def spell(number: int) -> str:
    """A whole number from 0 to 9999 in English words."""
    digits = WORDS["digit"]
    if number >= 1000:
        rest = f" {spell(number % 1000)}" if number % 1000 else ""
        return f"{digits[number // 1000]} thousand{rest}"
    if number >= 100:
        rest = f" and {spell(number % 100)}" if number % 100 else ""
        return f"{digits[number // 100]} hundred{rest}"
    if number >= 20:
        rest = f" {digits[number % 10]}" if number % 10 else ""
        return WORDS["ten"][number // 10 - 2] + rest
    return (digits + WORDS["teen"])[number]


def spell_ordinal(number: int) -> str:
    """An ordinal from 1 to 31 in English words."""
    if number <= 20:
        return WORDS["ordinal"][number - 1]
    if number == 30:
        return "thirtieth"
    return f"{WORDS['ten'][number // 10 - 2]} {WORDS['ordinal'][number % 10 - 1]}"


def set_of(text: str) -> str:
    """The one set in which a sentence may be used; so none is in two sets, whatever the seed."""
    place = zlib.crc32(text.encode()) % 20
    for name, share in SHARES.items():
        if place < share:
            return name
        place -= share
    return "train"


class SentenceMaker:
    """An endless iterator over random sentences of one set, in upper case.

    Words, patterns and small numbers are drawn from urns without being put back, and an urn that is
    half empty gets one of each again, so that a small corpus has all of them about equally often.
    Those of a sentence that belongs to another set are put back.
    """

    def __init__(self, rng: random.Random, set_name: str) -> None:
        self.rng = rng
        self.set_name = set_name
        self.urns: dict[str, list] = {}
        self.drawn: list[tuple[str, object]] = []

    def __iter__(self) -> "SentenceMaker":
        return self

    def __next__(self) -> str:
        while True:
            self.drawn.clear()
            pattern = self.draw("pattern", WEIGHTED)
            text = re.sub(r"{(\w+)}", lambda match: self.fill(match[1]), pattern).upper()
            if set_of(text) == self.set_name:
                return text
            for kind, item in self.drawn:
                self.urns[kind].append(item)

    def draw(self, kind: str, items: Sequence[T]) -> T:
        """Draw from the urn ``kind``, which is filled from ``items``."""
        urn = self.urns.setdefault(kind, [])
        if 2 * len(urn) <= len(items):
            urn.extend(items)
        item = urn.pop(self.rng.randrange(len(urn)))
        self.drawn.append((kind, item))
        return item

    def fill(self, kind: str) -> str:
        """Words in the place of ``{kind}``."""
        rng = self.rng
        match kind:
            case "digits":
                return " ".join(rng.choices(WORDS["digit"], k=rng.randint(3, 8)))
            case "number":
                length = self.draw(kind, (1, 2, 3, 4))
                small = self.draw("small", range(10, 20))
                return spell(small if length == 1 else rng.randint(20, 10**length - 1))
            case "year":
                century = rng.choice((17, 18, 19, 20))
                return f"{spell(century)} {spell(self.draw(kind, range(10, 100)))}"
            case "hour":
                return spell(self.draw(kind, range(1, 13)))
            case "minute":
                return spell(self.draw(kind, (*range(10, 20), *range(10, 20), *range(10, 60))))
            case "date":
                return f"{self.fill('month')} {spell_ordinal(self.draw(kind, range(1, 32)))}"
        return self.draw(kind, WORDS[kind])


def vocabulary() -> set[str]:
    """All words that sentences can have, in upper case."""
    texts = [*(re.sub(r"{\w+}", "", pattern) for _, pattern in PATTERNS)]
    texts += [word for words in WORDS.values() for word in words]
    return {word.upper() for text in texts for word in text.split()}
