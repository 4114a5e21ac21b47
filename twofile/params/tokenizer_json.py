"""Hugging Face's tokenizer files to a vocabulary, and a vocabulary to such files.

Read are tokenizer.json (BPE of both kinds), tokenizer.model (SentencePiece), tokenizer_config.json,
chat_template.jinja, special_tokens_map.json, generation_config.json and config.json. Which rules cut a byte-level text
before merging is recognised by the steps of the `pre_tokenizer`, and named as llama.cpp names it; where several of its
names stand for the same rules (smollm, starcoder, refact and command-r; gpt-2 and mpt) the first is taken. Unicode
normalisation (NFC) is dropped, as llama.cpp drops it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twofile.errors import ParametersError
from twofile.params.sentencepiece import read_sentencepiece
from twofile.params.vocabulary import TokenType, Vocabulary

__all__ = ["read_json", "read_tokenizer", "to_tokenizer_config", "to_tokenizer_json"]


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _digits(individual: bool) -> dict[str, Any]:
    return {"type": "Digits", "individual_digits": individual}


_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_EAST_ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_STEPS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_byte_level(True)],
    "llama-bpe": [_split(_WORDS % "{1,3}"), _byte_level(False)],
    "qwen2": [_split(_WORDS % ""), _byte_level(False)],
    "smollm": [_digits(True), _byte_level(True)],
    "falcon": [
        {"type": "Punctuation", "behavior": "Contiguous"},
        _byte_level(True),
        _digits(False),
        _split("[0-9][0-9][0-9]"),
    ],
    # The two sets of letters and signs that deepseek-llm lists at length are known by how they begin, and not written.
    "deepseek-llm": [
        _split("[\r\n]"),
        _split(r"\s?[A-Za-zµ"),
        _split(r"\s?[!-/:-~"),
        _split(r"\s+$"),
        _split(_EAST_ASIAN),
        _digits(True),
        _byte_level(False),
    ],
    "deepseek-coder": [
        _split("[\r\n]"),
        _split(r"\s?\p{L}+"),
        _split(r"\s?\p{P}+"),
        _split(_EAST_ASIAN),
        _digits(True),
        _byte_level(False),
    ],
}
_SAME = {"starcoder": "smollm", "refact": "smollm", "command-r": "smollm", "mpt": "gpt-2", "default": "gpt-2"}
_OPEN_PATTERNS = (r"\s?[A-Za-zµ", r"\s?[!-/:-~")
_TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>")
_SPACE = "\u2581"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; {} where there is no such file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ParametersError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ParametersError(f"{path} is no JSON object")
    return value


def read_tokenizer(folder: Path, vocab_size: int) -> Vocabulary:
    """The vocabulary of a Hugging Face folder, filled up to `vocab_size` with unused tokens.

    Raises ParametersError naming the pre-tokenizer or tokenizer that is not supported."""
    data = read_json(folder / "tokenizer.json")
    try:
        if not data and not (folder / "tokenizer.model").is_file():
            raise ParametersError(
                f"{folder} has neither tokenizer.json nor tokenizer.model",
                "open it with transformers' AutoTokenizer and call save_pretrained, which writes tokenizer.json",
            )
        return _vocabulary(folder, data, vocab_size)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ParametersError(f"the tokenizer of {folder} cannot be read: {type(error).__name__} {error}") from error


def _vocabulary(folder: Path, data: dict[str, Any], vocab_size: int) -> Vocabulary:
    model = data.get("model", {})
    if data and ("merges" not in model or model.get("type", "BPE") != "BPE"):
        raise ParametersError(f"the tokenizer of {folder} is {model.get('type')}: only BPE is supported")
    spm = not data or bool(model.get("byte_fallback"))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", [])]
    ids: dict[int, str] = {id_: text for text, id_ in model.get("vocab", {}).items()}
    types: dict[int, int] = {}
    scores: dict[int, float] = {}
    prefix = False
    defaults: dict[str, int] = {}
    if spm:
        prefix = _prefix_space(data)
        if (folder / "tokenizer.model").is_file():
            original = read_sentencepiece(folder / "tokenizer.model")
            prefix = prefix if data else original.prefix
            defaults = original.ids
            for id_, (text, score, kind) in enumerate(original.pieces):
                ids[id_], scores[id_], types[id_] = text, score, kind
        else:
            ranks = {merge.replace(" ", ""): -float(rank) for rank, merge in reversed([*enumerate(merges, 1)])}
            scores = {id_: ranks.get(text, -float(len(merges) + 1 + id_)) for id_, text in ids.items()}
        for id_, text in ids.items():
            if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
                types[id_], scores[id_] = TokenType.BYTE, 0.0
        pre = "default"
    else:
        pre = _recognise(data, folder)
    unknown = model.get("unk_token")
    for token in data.get("added_tokens", []):
        id_, text = token["id"], token["content"]
        control = token.get("special") or _looks_special(text)
        ids[id_] = text
        types[id_] = TokenType.CONTROL if control else TokenType.USER_DEFINED
        scores[id_] = 0.0
    for id_, text in ids.items():
        if spm and text == unknown:
            types[id_], scores[id_] = TokenType.UNKNOWN, 0.0
    if max(ids) >= vocab_size:
        raise ParametersError(f"the tokenizer of {folder} has the token {max(ids)}, the model only {vocab_size}")
    if not all(isinstance(text, str) for text in ids.values()):
        raise ValueError("a token is no text")
    tokens = [ids.get(id_, f"[PAD{id_}]") for id_ in range(vocab_size)]
    kinds = [types.get(id_, TokenType.NORMAL) if id_ in ids else TokenType.UNUSED for id_ in range(vocab_size)]
    special = _special(folder, tokens, kinds, defaults)
    add_bos, add_eos = _adds(folder, data, spm, tokens, special)
    return Vocabulary(
        model="llama" if spm else "gpt2",
        pre=pre,
        tokens=tuple(tokens),
        types=tuple(int(kind) for kind in kinds),
        scores=tuple(scores.get(id_, 0.0) for id_ in range(vocab_size)) if spm else (),
        merges=() if spm else tuple(merges),
        **special,
        add_bos=add_bos,
        add_eos=add_eos,
        add_space_prefix=prefix,
        chat_template=_chat_template(folder),
    )


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """A step, or those of a Sequence, which lie under `inner`."""
    if part is None:
        return []
    return [step for entry in part[inner] for step in _steps(entry, inner)] if part["type"] == "Sequence" else [part]


def _recognise(data: dict[str, Any], folder: Path) -> str:
    def key(steps: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        result: list[tuple[Any, ...]] = []
        for step in steps:
            kind = step["type"]
            if kind == "ByteLevel":
                result.append((kind, step.get("use_regex", True), step.get("add_prefix_space", True)))
            elif kind == "Split":
                pattern = step["pattern"].get("Regex") or step["pattern"].get("String")
                begin = next((start for start in _OPEN_PATTERNS if pattern.startswith(start)), pattern)
                result.append((kind, begin, step["behavior"], step.get("invert", False)))
            else:
                result.append((kind, step.get("individual_digits"), step.get("behavior")))
        return result

    for step in _steps(data.get("normalizer"), "normalizers"):
        if step["type"] != "NFC":
            raise ParametersError(
                f"the tokenizer of {folder} normalises texts by {step['type']}, which is not supported"
            )
    steps = _steps(data.get("pre_tokenizer"), "pretokenizers")
    found = key(steps)
    for name, known in _STEPS.items():
        if key(known) == found:
            return name
    raise ParametersError(
        f"the tokenizer of {folder} cuts texts by none of the rules that are known:"
        f" {json.dumps(steps, ensure_ascii=False)[:500]}"
    )


def _prefix_space(data: dict[str, Any]) -> bool:
    """Whether a space is put in front of a text; the two places where tokenizer.json says so."""
    for step in _steps(data.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend":
            return bool(step["prepend"] == _SPACE)
    for step in _steps(data.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "Metaspace":
            return bool(
                step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never") != "never"
            )
    return False


def _looks_special(text: str) -> bool:
    """As llama.cpp's converter has it: some files forget to say that these are control tokens."""
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or (
        text.startswith(("<|", "<｜", "<unused")) and text.endswith(("|>", "｜>", ">"))
    )


def _special(folder: Path, tokens: list[str], kinds: list[int], defaults: dict[str, int]) -> dict[str, int | None]:
    """The ids of bos, eos, eot, unk and pad: by their texts, else by the ids of config.json, else `defaults`."""
    texts: dict[str, Any] = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    config = read_json(folder / "config.json") | read_json(folder / "generation_config.json")
    places = {text: id_ for id_, text in reversed([*enumerate(tokens)])}
    found: dict[str, int | None] = {}
    ends: list[int] = []
    for name in ("bos", "eos", "unk", "pad"):
        text = texts.get(f"{name}_token")
        text = text.get("content") if isinstance(text, dict) else text
        given = config.get(f"{name}_token_id")
        numbers = [
            n for n in (given if isinstance(given, list) else [given]) if type(n) is int and 0 <= n < len(tokens)
        ]
        found[name] = (
            places[text] if isinstance(text, str) and text in places else next(iter(numbers), defaults.get(name))
        )
        if name == "eos":
            ends = [n for n in numbers if n != found["eos"]]
    candidates = ends or [id_ for id_, kind in enumerate(kinds) if kind == TokenType.CONTROL and id_ != found["eos"]]
    by_text = [places[text] for text in _TURN_ENDS if places.get(text) in candidates]
    found["eot"] = next(iter([*by_text, *ends]), None)
    return found


def _adds(
    folder: Path, data: dict[str, Any], spm: bool, tokens: list[str], special: dict[str, int | None]
) -> tuple[bool, bool]:
    """Whether bos is put before a text and eos after it: tokenizer_config.json says so, else the post-processor."""
    config = read_json(folder / "tokenizer_config.json")
    adds = {"bos": spm and not data.get("post_processor"), "eos": False}
    for step in _steps(data.get("post_processor"), "processors"):
        if step["type"] == "TemplateProcessing":
            for name, end in (("bos", 0), ("eos", -1)):
                token = step["single"][end].get("SpecialToken", {}).get("id")
                adds[name] = special[name] is not None and token == tokens[special[name] or 0]
    for name in adds:
        if isinstance(config.get(f"add_{name}_token"), bool):
            adds[name] = config[f"add_{name}_token"]
    return adds["bos"] and special["bos"] is not None, adds["eos"] and special["eos"] is not None


def _chat_template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several under names
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template if isinstance(template, str) else None


def to_tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """The contents of tokenizer.json. Raises ParametersError for rules that cannot be written there."""
    v = vocabulary
    tokens = {text: id_ for id_, text in enumerate(v.tokens) if v.types[id_] != TokenType.UNUSED}
    added = [
        {
            "id": id_,
            "content": text,
            "special": v.types[id_] != TokenType.USER_DEFINED,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for text, id_ in tokens.items()
        if v.types[id_] in (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    ]
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": v.pre == "llama-bpe",
        "vocab": tokens,
    }
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    decoder: dict[str, Any] = _byte_level(True)
    if v.model == "llama":
        model |= {"byte_fallback": True, "fuse_unk": True, "merges": _merges_by_score(v, tokens)}
        model["unk_token"] = v.tokens[v.unk] if v.unk is not None else None
        prepend = [{"type": "Prepend", "prepend": _SPACE}] if v.add_space_prefix else []
        normalizer = _sequence(
            "normalizers", [*prepend, {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
        )
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if v.add_space_prefix else []
        replace = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
        decoder = _sequence("decoders", [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip])
    else:
        steps = _STEPS.get(_SAME.get(v.pre, v.pre))
        if steps is None or v.pre == "deepseek-llm":
            raise ParametersError(f"the pre-tokenizer {v.pre!r} cannot be written as a tokenizer.json")
        pre_tokenizer = _sequence("pretokenizers", steps) if len(steps) > 1 else steps[0]
        model["merges"] = [[merge[:cut], merge[cut + 1 :]] for merge in v.merges for cut in [merge.index(" ", 1)]]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _post_processor(v),
        "decoder": decoder,
        "model": model,
    }


def to_tokenizer_config(vocabulary: Vocabulary, context_length: int) -> dict[str, Any]:
    """The contents of tokenizer_config.json."""
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
    }
    for name in ("bos", "eos", "unk", "pad"):
        token = getattr(vocabulary, name)
        if token is not None:
            config[f"{name}_token"] = vocabulary.tokens[token]
    if vocabulary.chat_template is not None:
        config["chat_template"] = vocabulary.chat_template
    return config


def _sequence(inner: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", inner: steps}


def _post_processor(v: Vocabulary) -> dict[str, Any] | None:
    before = [v.bos] if v.add_bos and v.bos is not None else []
    after = [v.eos] if v.add_eos and v.eos is not None else []
    if not before and not after:
        return None

    def template(*parts: tuple[str, int]) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = []
        for name, number in parts:
            result += [{"SpecialToken": {"id": v.tokens[id_], "type_id": number}} for id_ in before]
            result.append({"Sequence": {"id": name, "type_id": number}})
            result += [{"SpecialToken": {"id": v.tokens[id_], "type_id": number}} for id_ in after]
        return result

    return {
        "type": "TemplateProcessing",
        "single": template(("A", 0)),
        "pair": template(("A", 0), ("B", 1)),
        "special_tokens": {
            v.tokens[id_]: {"id": v.tokens[id_], "ids": [id_], "tokens": [v.tokens[id_]]} for id_ in (*before, *after)
        },
    }


def _merges_by_score(v: Vocabulary, tokens: dict[str, int]) -> list[list[str]]:
    """The merges that make the pieces of a SentencePiece vocabulary, the best score first."""
    pieces = {text: id_ for text, id_ in tokens.items() if v.types[id_] == TokenType.NORMAL}
    merges: list[tuple[float, int, int, str, str]] = []
    for text, id_ in pieces.items():
        for cut in range(1, len(text)):
            left, right = pieces.get(text[:cut]), pieces.get(text[cut:])
            if left is not None and right is not None:
                merges.append((-v.scores[id_], left, right, text[:cut], text[cut:]))
    return [[left, right] for *_, left, right in sorted(merges)]
