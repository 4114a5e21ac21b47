"""From a tuned model to curves of reward against KL: pairs, a reward model, DPO, PPO, GRPO and best-of-n, by an oracle.

    python recipes/wordstories.py --stories DATA/pretrain/tinystories_train.jsonl.xz --into WORDS
    twofile tune stories WORDS/talks.jsonl --out SFT.gguf --type F32 --context 128 --minutes 20
    python recipes/feedback.py pairs --model SFT.gguf --words WORDS --into RUN [--pairs 5000]
    twofile reward SFT.gguf RUN/pairs.jsonl --out RUN/judge.gguf --type F32 --context 128
    python recipes/feedback.py best --model SFT.gguf --judge RUN/judge.gguf --words WORDS --into RUN
    python recipes/feedback.py METHOD --model SFT.gguf --judge RUN/judge.gguf --words WORDS --into RUN [--seed 1 2 3]

METHOD: dpo, ppo, grpo or rloo; or gold, which is grpo by the oracle itself, to see what of a curve is the reward
model's fault. Pairs are replies of the model itself, of which the oracle (`gold` of wordstories.py) tells the better;
the reward model learns from them and PPO, GRPO and RLOO from the reward model; gold is measured beside it on prompts
that nobody has learned from. Each point is a line of RUN/points.jsonl: method, seed, step, KL in nats a reply, reward
and gold. What was measured is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from wordstories import gold

from twofile.engine.engine import Engine
from twofile.train.feedback.best import curve
from twofile.train.feedback.judges import of_model, of_program
from twofile.train.feedback.learn import open_prompts, prefer, reinforce
from twofile.train.feedback.online import Online, Prompt
from twofile.train.feedback.rollout import Reply, Rollouts
from twofile.train.loop import Plan
from twofile.train.pretrain.calibrate import faster_in_bfloat16
from twofile.train.start import Start
from twofile.train.tune.settings import Settings

ORACLE = Path(__file__).parent / "wordstories.py"
LONGEST, CONTEXT = 80, 128
MEASURED = 200  # prompts that nothing learns from: the last ones of the file
BETAS = (0.3, 0.1, 0.03)  # of DPO: each is a point
LEAST = 0.5  # of 5 points between the two replies of a pair: less would be a tie to a reader
NUMBERS = (1, 2, 4, 8, 16, 32, 64)


def replies(start: Start, prompts: Sequence[Prompt], each: int, seed: int) -> list[list[Reply]]:
    """`each` replies to every prompt."""
    with Rollouts(start.hyper, start.vocabulary) as rollouts:
        rollouts.load(start.model())
        asked = [prompt.ids for prompt in prompts for _ in range(each)]
        found = rollouts.replies(asked, range(seed, seed + len(asked)), LONGEST)
    return [found[i : i + each] for i in range(0, len(found), each)]


def write_pairs(start: Start, prompts: list[Prompt], into: Path, wanted: int) -> None:
    """Two replies to each prompt, over and over, until there are so many pairs of which one is better."""
    rows: list[dict[str, Any]] = []
    turn = 0
    while len(rows) < wanted:
        for prompt, (one, other) in zip(prompts, replies(start, prompts, 2, turn * 10**6), strict=True):
            a, b = (gold(prompt.messages, reply.text, prompt.row) - (not reply.ended) for reply in (one, other))
            if abs(a - b) >= LEAST:
                chosen, rejected = (one, other) if a > b else (other, one)
                rows.append({
                    "messages": list(prompt.messages), "chosen": chosen.text, "rejected": rejected.text,
                    "words": prompt.row["words"], "gold": [max(a, b), min(a, b)],
                })  # fmt: skip
        turn += 1
        print(f"{len(rows)} pairs", flush=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:wanted])
    (into / "pairs.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pairs", "best", "dpo", "ppo", "grpo", "rloo", "gold"])
    for name in ("--model", "--words", "--into"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    start = Start.open(given.model)
    with Engine(given.model) as engine:
        prompts = open_prompts((given.words / "prompts.jsonl",), engine, CONTEXT + 1 - LONGEST, print)
    learned, measured = prompts[:-MEASURED], prompts[-MEASURED:]
    if given.what == "pairs":
        return write_pairs(start, learned, given.into, given.pairs)
    if given.judge is None:
        parser.error(f"{given.what} needs --judge")
    judge, oracle, points = of_model(given.judge, given.model), of_program(ORACLE, "gold"), given.into / "points.jsonl"
    if given.what == "best":
        found = replies(start, measured, max(NUMBERS), 7 * 10**7)
        every = [prompt for prompt in measured for _ in range(max(NUMBERS))]
        flat = [reply for one in found for reply in one]
        shape = (len(measured), -1)
        proxy, truth = (np.array(of(every, flat)).reshape(shape) for of in (judge, oracle))
        for n, (kl, value), (_, reward) in zip(
            NUMBERS, curve(proxy, truth, NUMBERS), curve(proxy, proxy, NUMBERS), strict=True
        ):
            _add(points, {"method": "best", "seed": 0, "step": n, "kl": kl, "reward": reward, "gold": value})
        return None
    rows = given.into / "learned.jsonl"
    rows.write_text("".join(json.dumps(prompt.row) + "\n" for prompt in learned), encoding="utf-8")
    for seed in given.seed:
        for setting in BETAS if given.what == "dpo" else (0.01,):
            run = given.into / f"{given.what}-{seed}-{setting}"
            plan = Plan(
                steps=given.steps, warmup=5, decay=0.3, matrix_rate=0.002, vector_rate=0.0005,
                bfloat16=faster_in_bfloat16(), compile=False, save_minutes=3,
                validate_every=given.steps if given.what == "dpo" else max(1, given.steps // 6),
            )  # fmt: skip
            method = "grpo" if given.what == "gold" else given.what
            settings = Settings(
                method, given.model, (given.into / "pairs.jsonl",), plan, CONTEXT, batch=32, micro=16, seed=seed,
                options={"beta": setting, "doubt": 0.0},
            )  # fmt: skip
            if given.what == "dpo":
                policy = prefer(settings, run).model
                options = {"method": "grpo", "longest": LONGEST}
                told = dataclasses.replace(settings, stage="grpo", options=options)
                with Rollouts(start.hyper, start.vocabulary) as rollouts:
                    stage = Online(told, policy, start.model(), rollouts, judge, learned, measured, gauge=oracle)
                    found_ = stage.validate(policy)
                _add(points, _point("dpo", seed, setting, found_))
                continue
            options = {"method": method, "longest": LONGEST, "kl": setting, "updates": 2, "group": 4}
            settings = dataclasses.replace(settings, data=(rows,), batch=64, held_out=0.0, options=options)
            reinforce(settings, run, oracle if given.what == "gold" else judge, measured=measured, gauge=oracle)
            for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()):
                if "held_out_gold" in line and "loss" in line:
                    _add(points, _point(given.what, seed, line["step"], line))
    return None


def _point(method: str, seed: int, step: float, found: Any) -> dict[str, Any]:
    names = {"kl": "held_out_kl", "reward": "held_out_reward", "gold": "held_out_gold", "length": "held_out_length"}
    return {"method": method, "seed": seed, "step": step, **{name: found[key] for name, key in names.items()}}


def _add(path: Path, point: dict[str, Any]) -> None:
    key = {name: point[name] for name in ("method", "seed", "step")}
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not any(key.items() <= one.items() for one in known):
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(point) + "\n")
        print(point, flush=True)


if __name__ == "__main__":
    main()
