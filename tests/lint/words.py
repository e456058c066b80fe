"""Words of the project's old dialect, and the plain words to write instead.

A pattern matches whole words, in any case. Text in backticks is never checked, nor is a quoted block of Markdown.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Word(NamedTuple):
    """One word or phrase to avoid.

    Attributes:
        pattern: regular expression; word boundaries are added on both sides.
        instead: what to write.
    """

    pattern: str
    instead: str


WORDS: Final = (
    Word(r"anew", "again, or a verb with re-: restart, reopen"),
    Word(r"for ever", "forever, or without limit"),
    Word(r"(?:be|been|is|are) had", "be available, or cannot be pulled"),
    Word(r"but for", "except for"),
    Word(r"(?:is|are|was|were|be|been|being) told|told of|tell of|tells of|telling of|told so", "report, record, say"),
    Word(r"so (?:does|do|did|is|are|has|have) (?:it|they|the|an?|its|their|every|each|all)", "... also ..."),
    Word(r"of those of", "among the ... of"),
    Word(r"lets? go|letting go", "release"),
    Word(r"looks? at|looked at|looking at|looks? again|looks? whether", "read, check, reconcile"),
    Word(r"ask(?:s|ed)? for for", "ask for"),
    Word(r"by hand", "manually, from the command line"),
    Word(r"worlds?", "observed state, cluster"),
    Word(r"eyes?", "context"),
    Word(r"troubles?", "error, problem"),
    Word(r"patience", "retry policy, time limit"),
    Word(r"in line|the line of|next in line", "queued, chain"),
    Word(r"makers?", "pool, worker"),
    Word(r"walks", "reads the tree, list cache"),
    Word(r"strays?", "orphan"),
    Word(r"neighbou?rs?", "related objects"),
    Word(r"goes on|go on|went on|going on|gone on", "continue"),
    Word(r"whoever", "anyone who"),
    Word(r"of ours|of theirs|of one's own", "our, their"),
    Word(r"stamps?|stamped", "timestamp, has a timestamp"),
    Word(r"in vain", "without result"),
    Word(r"deaf", "silent"),
    Word(r"heard|hears?|hearing", "receive events"),
    Word(r"mend(?:s|ed|ing)?", "fix"),
    Word(r"spoil(?:s|t|ed)?", "invalidate"),
    Word(r"forgiven?|forgives", "tolerate"),
    Word(r"beside", "next to, compared with, in addition to"),
    Word(r"(?:gives?|gave|given|giving) back", "return, restore, release"),
    Word(r"figures?", "metric, number, measurement"),
    Word(r"(?<!there )(?:is|are|was|were) no (?!longer|more|less|fewer|one|such|different|way|\w+er\b)\w+", "is not a"),
    Word(r"what is asked|what was asked|what is said|what was said", "the request, the message"),
    Word(r"for whom|by whom", "a noun"),
    Word(r"as it is|as they are", "unchanged"),
    Word(r"not any more|no more than that", "no longer"),
)

OPENINGS: Final = (
    Word(r"Who", "make the subject a noun: anyone who ..., a user who ..."),
    Word(r"What", "make the subject a noun, or an imperative"),
    Word(r"Of", "put subject and verb first"),
    Word(r"So (?:does|do|did|is|are|has|have)", "... also ..."),
)
"""Words with which no sentence that ends in a full stop begins."""

ALLOWED: Final[dict[str, frozenset[str]]] = {}
"""True uses of these words: text as it stands there, in lower case, by file."""
