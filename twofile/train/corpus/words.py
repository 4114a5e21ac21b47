"""Words and sentences of any language, by Unicode's properties alone: what datatrove's filters count.

datatrove's own tokenisers (NLTK, spaCy and others) download models; this one needs none. A word is a run of letters and
digits with apostrophes inside; a character of a script that puts no spaces between words (Chinese, Japanese, Thai,
Lao, Khmer, Burmese, Tibetan) with its marks; a run of dots, dashes, quotes or rules; or any other single character
that is no space. A sentence ends behind . ! ? or its like where a space follows, behind the full stops of scripts
without spaces, and at a line's end; abbreviations count as ends. So counts differ a little from those that the filters'
thresholds were chosen with.
"""

from __future__ import annotations

from dataclasses import dataclass

import regex
from datatrove.utils.word_tokenizers import WordTokenizer

__all__ = ["Words"]

_DENSE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_LETTER = rf"[[\p{{L}}\p{{N}}]--[{_DENSE}]]"
_RUN = "|".join(f"[{mark}]+" for mark in (r"\.", r"\-", "_", "=", r"\*", r"\#", "`'\"“”‘’«»"))
_WORD = regex.compile(rf"{_LETTER}(?:{_LETTER}|\p{{M}}|['’](?={_LETTER}))*|[{_DENSE}]\p{{M}}*|{_RUN}|\S", regex.V1)
_END = regex.compile(r"""(?:[.!?…։؟।॥።]+["'”’»)\]]*(?=\s)|[。！？｡]+["”’」』）]*|\n)\s*""")


@dataclass(frozen=True)  # equal to its like, so that the filters of a pipeline share what has been split
class Words(WordTokenizer):  # type: ignore[misc]
    """The tokeniser that datatrove's filters take in place of a language's name."""

    def word_tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text)  # type: ignore[no-any-return]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        ends = [match.end() for match in _END.finditer(text)]
        if not ends or ends[-1] < len(text):
            ends.append(len(text))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def sent_tokenize(self, text: str) -> list[str]:
        sentences = (text[start:end].strip() for start, end in self.span_tokenize(text))
        return [sentence for sentence in sentences if sentence]
