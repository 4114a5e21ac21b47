"""lm-evaluation-harness itself against `twofile serve`, beside `twofile evaluate`, item by item.

    .venv/bin/pip install '.[bench]' && .venv/bin/python bench/harness.py [MODEL] --data DATA [--limit 500]

The harness asks for log-probabilities over the API (`local-completions`, `echo`) of the same items of BLiMP and LAMBADA
that `evaluate` measures in its own process; it cuts texts into tokens by the tokenizer that `export` writes. Printed
are the figures of both, on how many items they differ, and the largest difference in ln p. DATA is the tasks' folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lm_eval

from twofile.engine.engine import Engine
from twofile.evaluate.tasks.run import draw
from twofile.evaluate.tasks.scoring import Scorer
from twofile.evaluate.tasks.table import TASKS
from twofile.evaluate.tasks.task import Choice, Said
from twofile.params.names import resolve


def config(name: str, items: list[Choice], folder: Path) -> dict[str, Any]:
    """The task as the harness reads it: items with one option are scored, those with several chosen from."""
    path = folder / f"{name}.jsonl"
    rows = [
        {"id": item.id, "context": item.options[0][0], "options": [said for _, said in item.options]} for item in items
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    chosen = len(items[0].options) > 1
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice" if chosen else "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{options}}" if chosen else None,
        "doc_to_target": 0 if chosen else "{{options[0]}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }


def theirs(
    name: str, path: Path, configs: list[dict[str, Any]], folder: Path, context: int, begins: bool
) -> dict[str, dict[str, Any]]:
    """The harness over the API: (ln p, greedy) of each option and `acc`, by task and item."""
    subprocess.run([sys.executable, "-m", "twofile", "export", str(path), str(folder / "tokenizer")], check=True)
    command = [sys.executable, "-m", "twofile", "serve", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            found = lm_eval.simple_evaluate(
                model="local-completions",
                model_args={
                    "model": name,
                    "base_url": f"{address}/completions",
                    "tokenizer_backend": "huggingface",
                    "tokenizer": str(folder / "tokenizer"),
                    "num_concurrent": 4,
                    "max_length": context,
                    "add_bos_token": begins,  # what the file asks for
                },
                tasks=configs,
                batch_size=16,
                log_samples=True,
                bootstrap_iters=0,
            )
        finally:
            server.terminate()
    return {
        task: {sample["doc"]["id"]: _read(sample) for sample in samples} for task, samples in found["samples"].items()
    }


def _read(sample: dict[str, Any]) -> tuple[list[tuple[float, bool]], float]:
    said = [one[0] if isinstance(one[0], list | tuple) else one for one in sample["filtered_resps"]]
    return [(float(logp), bool(greedy)) for logp, greedy in said], float(sample["acc"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="base")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--limit", type=int, default=500)
    given = parser.parse_args()
    path = resolve(given.model)
    items: dict[str, list[Choice]] = {}
    ours: dict[str, list[tuple[list[Said], float]]] = {}
    with Engine(path) as engine:
        context, begins = engine.context_length, engine.info.add_bos
        for name in ("blimp", "lambada"):
            task = TASKS[name]
            drawn = draw(task.load(given.data, 0), given.limit, 0)
            items[name] = [item for item in drawn if isinstance(item, Choice)]
            scorer = Scorer(engine)
            ours[name] = [
                (said, task.judge(items[name][number], said)["acc"]) for number, said in scorer.choices(items[name])
            ]
    with tempfile.TemporaryDirectory() as folder:
        configs = [config(name, items[name], Path(folder)) for name in items]
        found = theirs(path.stem, path, configs, Path(folder), context, begins)
    for name, mine in ours.items():
        other = [found[name][item.id] for item in items[name]]
        differ = sum(a != b for (_, a), (_, b) in zip(mine, other, strict=True))
        far = max(
            abs(a.logp - b)
            for (said, _), (told, _) in zip(mine, other, strict=True)
            for a, (b, _) in zip(said, told, strict=True)
        )
        shares = [sum(acc for _, acc in one) / len(one) for one in (mine, other)]
        print(
            f"{name}: acc {shares[0]:.4f} here, {shares[1]:.4f} by the harness, n = {len(mine)}; "
            f"{differ} items differ, ln p by {far:.2g} at most"
        )


if __name__ == "__main__":
    main()
