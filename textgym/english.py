"""Embedded English: a word list and bigram counts, from the dictionaries that the ``symspellpy`` package ships.

Both were counted on web text, so the words that make an example embarrassing or unreadable are left out: everything
sexual or rude, and words that are harmless alone but not in random company (bodies, illness, groups of people); drugs
and gambling; names of people, places, nations, faiths and brands; abbreviations; the debris of web pages and shops.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_N_REVIEWED = 2250
"""Only the most frequent words have been read through; the exclusions below are complete for those and no others."""

_SHORT_WORDS = frozenset("a i am an as at be by do go he if in is it me my no of oh on or so to up us we".split())
"""All words of one or two letters that are let in: most others on the web are abbreviations."""

_SENSITIVE = """
abuse adult amateur anal ass bed bondage breast cancer casino cock cum dating dead died drug drugs fat fuck fucking
gay girl girls hardcore hot incest lesbian mature milf naked nude oral pics poker porn porno pussy rape sex sexy teen
teens tits xxx
"""
_NAMES = """
africa african amazon america american angeles apple arizona asia asian australia australian bible black bob boston
british bush california canada canadian canon carolina charles chicago china chinese chris christian christmas church
colorado columbia david ebay england english europe european florida ford france francisco french george georgia
german germany god google harry houston illinois india indian indiana ipod iraq ireland israel italian italy jack
jackson james japan japanese java jersey jesus jim joe john johnson jones kansas kong latin lee linux london louis mac
martin mary mexico michael michigan microsoft mike minnesota motorola native nokia ohio ontario oregon pacific paris
paul paypal pennsylvania peter race religion religious richard robert russia russian saint samsung santa scott seattle
smith sony spain spanish steve texas thomas tom vegas virginia washington western white william williams yahoo york
zealand
"""
_DEBRIS = """
accessories accommodation admin ads affiliate affiliates anti apparel apr aug ave bin blog blogs browse browser bug
classifieds click com configuration copyright dec del desktop directory disclaimer download downloads edit email est
etc eur fax feb fees forum forums fri gear gets getting hardware homepage hosting hotels iii inc info int interface
internet jan jul jun keyword keywords las listing listings loan loans login los ltd mailing mar max menu messages min
mini mon mortgage multi multimedia net newsletter non nov oct online parent password pop prev printer pro programme
registered rental rentals reserved ringtones san sat sec sep server servers sitemap skip software sponsor sponsored
string sub submit submitted subscribe sun tags tech tel thread thu topics trademarks tue user username users van via
visitors vol web website websites wed windows wireless zip
"""
_DULL = """
account accounting accounts additional administration administrative advanced advertisement advertising affairs
agencies agency agent agents agreement analysis annual applicable application applications applied appropriate
approval approximately archive archives assessment assistance auction auctions audio automatically availability basis
bid budget buyer cable capacity card cards cart categories category cells certificate channel client clients clinical
code column command comment comments commerce commercial communications companies compare compliance component
components computer computers computing conditions consumer contact content contents context contract corporate
corporation costs credit customer customers data database dates default definition description designated detailed
details determined development device devices digital directions disc discount display distribution document
documentation documents domain domestic draft edition editor electrical electronic element enable enterprise entries
equipment estate evaluation executive extension external facilities facility federal feedback file files filter
following format forms functions fund funding funds gallery gas generated goods graphics guidelines guides host
housing icon implementation inch included includes index industrial input install installation institute instructions
insurance integrated interactive investment item items license limited link links listed load logo machine mail
maintenance management manual manufacturer manufacturers manufacturing marketing maximum membership merchant methods
minimum modified module monitor monitoring multiple navigation network networking networks object operating operation
operations optional options orders organization output overview owner owners package packages page pages panel
partners patch path payment phones platform policy portable post posted posts powered prices pricing print procedure
procedures processes processing product products profile programming property proposed provided provider providers
provides providing publication publications publisher publishing purchase quantity range rank rate rated rates rating
ratings reference references regarding register registration regulations releases relevant remote reporting reports
request requests require requirements requires reserve resolution resources respective retail reviews sale sales
sample search searches section sections sector security select seller sellers separate sequence services session sets
shipping shopping site solutions sorted specified standards statements statistics status stock storage store stores
strategy suite summary supplies survey system systems tables technical techniques technologies telephone terms text
title tool tools transfer transportation types unit units updates upgrade urban variable vehicle vehicles version
video videos views virtual warranty wholesale worldwide zone
"""
"""Words of shops, offices and software: harmless, and on the web so frequent that every phrase would turn on them."""

_EXCLUDED = frozenset((_SENSITIVE + _NAMES + _DEBRIS + _DULL).split())


@dataclass(frozen=True, eq=False)
class English:
    """The most frequent English words, most frequent first, with counts of words and of pairs.

    Attributes:
        words: ``V`` lower-case words.
        counts: Count of each word, shape ``(V,)``, float64, all positive.
        first: First word of each counted pair, as an index into ``words``, shape ``(B,)``, int64, ascending.
        second: Second word of each counted pair, shape ``(B,)``, int64.
        pair_counts: Count of each pair, shape ``(B,)``, float64, all positive.
    """

    words: tuple[str, ...]
    counts: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    pair_counts: NDArray[np.float64]


@cache
def load_english(vocab_size: int = 1500) -> English:
    """The ``vocab_size`` most frequent words that are fit to print, and the pairs that they form.

    The dictionaries are read on the first call (about 0.15 s) and the result is kept.

    Args:
        vocab_size: Number of words ``V`` (between 2 and the number of words reviewed, about 1,900).

    Raises:
        ValueError: If ``vocab_size`` is out of range.
        ModuleNotFoundError: If ``symspellpy`` is not installed.
    """
    words, counts = _reviewed_words()
    if not 2 <= vocab_size <= len(words):
        raise ValueError(f"vocab_size must lie in [2, {len(words)}] for the embedded English words, got {vocab_size}")
    words = words[:vocab_size]
    index = {word: number for number, word in enumerate(words)}
    fields = _read("frequency_bigramdictionary_en_243_342.txt").split()
    pairs = [
        (index[first], index[second], int(count))
        for first, second, count in zip(fields[::3], fields[1::3], fields[2::3], strict=True)
        if first in index and second in index
    ]
    pairs.sort()
    first, second, pair_counts = np.array(pairs, np.int64).reshape(-1, 3).T.copy()
    return English(words, counts[:vocab_size], first, second, pair_counts.astype(np.float64))


@cache
def _reviewed_words() -> tuple[tuple[str, ...], NDArray[np.float64]]:
    lines = _read("frequency_dictionary_en_82_765.txt").split("\n", _N_REVIEWED)[:_N_REVIEWED]
    entries = [line.split() for line in lines]
    kept = [
        (word, float(count))
        for word, count in entries
        if word in _SHORT_WORDS or (len(word) > 2 and word not in _EXCLUDED)
    ]
    return tuple(word for word, _ in kept), np.array([count for _, count in kept])


def _read(name: str) -> str:
    # Located without importing: the package's own import would load code that nothing here needs.
    spec = find_spec("symspellpy")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("the embedded English needs the package symspellpy: pip install symspellpy")
    return (Path(spec.submodule_search_locations[0]) / name).read_text("utf-8-sig")
