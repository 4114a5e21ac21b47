"""Reward model, DPO, PPO, GRPO, RLOO: each learns what it should, and goes on exactly after SIGKILL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.test_main import call
from tests.tiny import tiny_parameters
from tests.train.tiny import kill_at_checkpoint, resumed
from twofile.engine.engine import Engine
from twofile.errors import TrainError
from twofile.train.feedback.comparisons import PairCounts, comparisons
from twofile.train.feedback.judges import of_model, of_program
from twofile.train.feedback.learn import Learned, learn_rewards, prefer, reinforce
from twofile.train.feedback.online import OPTIONS, Online, Prompt
from twofile.train.feedback.pairs import Pair
from twofile.train.feedback.quality import judged
from twofile.train.feedback.reward import head, open_reward_model, scores
from twofile.train.feedback.rollout import Reply, Rollouts
from twofile.train.loop import Plan
from twofile.train.start import Start
from twofile.train.tune.examples import Example, template_of
from twofile.train.tune.lora import LowRank
from twofile.train.tune.settings import Settings

STAGES = ("reward", "dpo", "ppo", "grpo", "rloo")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_parameters("qwen3", "F32", 1, tmp_path / "base.gguf")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"once upon {i}", "chosen": "a little day", "rejected": "the girl was"} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def likes_e(messages: object, reply: str, row: object) -> float:
    """More of the letter e is better."""
    return 10 * reply.count("e") / max(1, len(reply))


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of the steps."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def made(stage: str, base: Path, data: Path, run: Path, **changes: Any) -> Learned[Any]:
    """Run a stage to its end, or from where it was."""
    plan = Plan(
        steps=changes.pop("steps", 20), warmup=2, decay=0.3, matrix_rate=0.01, vector_rate=0.01, bfloat16=False,
        compile=False, validate_every=5,
    )  # fmt: skip
    options: dict[str, Any] = {"reward": {"centre": 0.01}, "dpo": {"beta": 0.1, "doubt": 0.0}}.get(stage) or {
        "method": stage, "group": 4, "longest": 12, "updates": 2, "kl": 0.01, "unfinished": 0.0,
        "kl_target": 5.0 if stage == "ppo" else 0.0,
    }  # fmt: skip
    shape: dict[str, Any] = {"context": 64, "batch": 16, "micro": 8, "held_out": 0.2}
    settings = Settings(stage, base, (data,), plan, options=options | changes.pop("options", {}), **(shape | changes))
    if stage == "reward":
        return learn_rewards(settings, run, lambda _: None)
    if stage == "dpo":
        return prefer(settings, run, lambda _: None)
    return reinforce(settings, run, of_program(Path(__file__), "likes_e"), lambda _: None)


@pytest.mark.parametrize("stage", ["dpo", "grpo", "ppo", "reward"])
def test_low_rank_changes(base: Path, pairs: Path, tmp_path: Path, stage: str) -> None:
    """They learn, nothing else moves, and replies are made with them in place."""
    found = made(stage, base, pairs, tmp_path / "run", options={"lora": 4})
    moved = {name for name, weight in found.model.named_parameters() if weight.requires_grad}
    heads = {"reward": {"reward"}, "ppo": {"value"}}.get(stage, set())
    assert {name.rpartition(".")[2] for name in moved if name.split(".")[0] not in heads} == {"lora_a", "lora_b"}
    begun = Start.open(base).model().state_dict()
    assert all(torch.equal(weight, begun[n]) for n, weight in found.model.state_dict().items() if n in begun)
    assert (
        max(float(part.lora_b.detach().abs().max()) for part in found.model.modules() if isinstance(part, LowRank)) > 0
    )
    if stage in ("grpo", "ppo"):
        assert all(line["gap"] < 1e-4 for line in logged(tmp_path / "run") if "gap" in line)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_resumed_is_the_same(base: Path, pairs: Path, tmp_path: Path, stage: str) -> None:
    whole = made(stage, base, pairs, tmp_path / "whole")
    run = tmp_path / "killed"
    code = (
        "from pathlib import Path; from tests.train.feedback.test_stages import made;"
        f"made({stage!r}, Path({str(base)!r}), Path({str(pairs)!r}), Path({str(run)!r}))"
    )
    first = kill_at_checkpoint(code, run)
    second = kill_at_checkpoint(code, run, after=first)
    last = made(stage, base, pairs, run)
    assert last.result.finished
    assert resumed(run) == [first, second]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, last.model.state_dict()[name]), name
    assert whole.result.validation == last.result.validation


def test_a_reward_model_tells_the_better(base: Path, pairs: Path, tmp_path: Path) -> None:
    found = made("reward", base, pairs, tmp_path / "run", steps=30)
    assert found.quality is not None
    assert found.quality.accuracy.value == 1.0
    kept = json.loads((tmp_path / "run" / "quality.json").read_text())
    assert kept["accuracy"][0] == 1.0
    assert sum(one["n"] for one in kept["calibration"]) == kept["n"]
    assert found.result.validation["nats"] < 0.3


def test_its_file_gives_the_same_rewards(
    base: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "judge.gguf"
    options = ["--steps", "10", "--context", "64", "--type", "F32", "--run", str(tmp_path / "run")]
    assert call("reward", str(base), str(pairs), "--out", str(out), *options, "--held-out", "0.2") == 0
    assert "accuracy" in capsys.readouterr().out
    model = open_reward_model(out)
    rows = [Example(np.arange(5 + i), np.arange(5 + i) > 2) for i in range(4)]
    found = scores(model, rows)
    alone = [float(scores(model, [row])) for row in rows]  # padding is nothing
    assert found.tolist() == pytest.approx(alone, abs=1e-5)
    assert found.std() > 0
    assert head(model)["twofile.reward.weight"] == pytest.approx(model.reward.weight[0].tolist())
    replies = [Reply(tuple(row.ids[3:].tolist()), (), "", True) for row in rows]
    prompts = [Prompt((), (0, 1, 2), {})] * 4
    assert of_model(out, base)(prompts, replies) == pytest.approx(found.tolist(), abs=1e-5)
    with Engine(out) as engine:  # a parameters file like others
        assert len(engine.tokenize("once"))
    with pytest.raises(TrainError, match="no reward model"):
        open_reward_model(base)


def test_dpo_prefers_the_chosen(base: Path, pairs: Path, tmp_path: Path) -> None:
    found = made("dpo", base, pairs, tmp_path / "run")
    assert found.result.validation["accuracy"] == 1.0
    assert found.result.validation["margin"] > 2
    assert logged(tmp_path / "run")[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)  # it begins as the reference


@pytest.mark.parametrize("method", ["ppo", "grpo", "rloo"])
def test_reinforcement_raises_the_reward(base: Path, pairs: Path, tmp_path: Path, method: str) -> None:
    made(method, base, pairs, tmp_path / "run", steps=40)
    steps = logged(tmp_path / "run")
    first, last = (np.mean([line["reward"] for line in part]) for part in (steps[:4], steps[-4:]))
    assert last > first + 0.5
    assert steps[0]["kl"] == pytest.approx(0.0, abs=1e-3)
    assert steps[-1]["kl"] > 0.5
    assert max(line["gap"] for line in steps) < 1e-3  # float32 on both sides


def test_the_engine_and_the_trainer_say_the_same_of_a_reply(base: Path) -> None:
    start = Start.open(base)
    model = start.model()
    for type, near in (("F32", 1e-4), ("Q8_0", 0.5)):
        with Rollouts(start.hyper, start.vocabulary, type=type) as rollouts:
            rollouts.load(model)
            prompts = [start.vocabulary.tokens.index("e"), 5, 7], [1, 2]
            one, two = rollouts.replies(prompts, [1, 2], 8)
            again = rollouts.replies(prompts[1:], [2], 8)
            assert again == [two]  # whatever else is asked for
        for prompt, reply in zip(prompts, (one, two), strict=True):
            ids = torch.tensor([[*prompt, *reply.ids]])
            with torch.no_grad():
                nats = model(ids[:, :-1], ids[:, 1:])[0, len(prompt) - 1 :]
            assert (-nats).tolist() == pytest.approx(list(reply.logp), abs=near)


def test_a_correction_weighs_what_the_engine_said_otherwise(base: Path, pairs: Path, tmp_path: Path) -> None:
    start = Start.open(base)
    plan = Plan(steps=1, bfloat16=False, compile=False)
    settings = Settings(
        "grpo", base, (pairs,), plan, 64, batch=8, micro=8, options=OPTIONS | {"longest": 8, "cap": 1.5}
    )
    prompts = [Prompt(({"role": "user", "content": "x"},), (1, 2, 3), {})]
    with Rollouts(start.hyper, start.vocabulary, type="Q4_0") as rollouts:
        stage = Online(settings, start.model(), start.model(), rollouts, lambda p, r: [0.0] * len(r), prompts, [])
        (micro,) = stage.batch(0)
        correction_BT = micro["correction_BT"][micro["weights_BT"] > 0]
        assert 1.0 < float(correction_BT.max()) <= 1.5
        assert stage.figures()["gap"] > 0.01
        assert float(micro["share_BT"].sum()) == pytest.approx(1.0)


def test_pairs_that_are_too_long_are_counted(base: Path) -> None:
    user, said = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
    with Engine(base, backend="numpy") as engine:
        template, _ = template_of(engine)
        long = {"role": "assistant", "content": "B" * 100}
        counts = PairCounts()
        (one,) = comparisons([Pair((user,), said, said), Pair((user,), said, long)], template, 40, counts)
        assert counts.too_long == 1
        assert engine.detokenize(one.chosen.ids[one.chosen.supervised].tolist(), special=True) == "A<|im_end|>"
        many = comparisons([Pair((user, said, user), said, said)], template, 200)[0].chosen
        assert engine.detokenize(many.ids[many.supervised].tolist(), special=True) == "A<|im_end|>"  # the last alone


def test_rows_as_long_as_the_context(base: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    context = Start.open(base).hyper.context_length
    with Engine(base, backend="numpy") as engine:
        template, _ = template_of(engine)
        room = context - len(template.render([{"role": "user", "content": "Q"}])) - 1
    sides = [{"prompt": "Q", "chosen": "x" * (room - i), "rejected": "y" * (room - i)} for i in range(4)]
    long.write_text("".join(json.dumps(row) + "\n" for row in sides))
    for stage in ("reward", "dpo"):
        made(stage, base, long, tmp_path / stage, steps=1, context=context, batch=4, micro=4, held_out=0.0)


def test_another_stage_is_not_resumed(base: Path, pairs: Path, tmp_path: Path) -> None:
    made("dpo", base, pairs, tmp_path / "run", steps=5)
    with pytest.raises(TrainError, match="a run of dpo, not of reward"):
        made("reward", base, pairs, tmp_path / "run", steps=10)
    made("dpo", base, pairs, tmp_path / "run", steps=6, options={"beta": 0.9})
    assert json.loads((tmp_path / "run" / "tune.json").read_text())["options"]["beta"] == 0.1


def test_nothing_outside_a_reply_can_overflow(base: Path, pairs: Path) -> None:
    plan = Plan(steps=1, bfloat16=False, compile=False)
    settings = Settings("grpo", base, (pairs,), plan, 64, batch=4, micro=4, options={**OPTIONS, "longest": 4})
    start = Start.open(base)
    with Rollouts(start.hyper, start.vocabulary) as rollouts:
        prompts = [Prompt(({"role": "user", "content": "x"},), (1, 2, 3), {})]
        stage = Online(settings, start.model(), start.model(), rollouts, lambda p, r: [1.0] * len(r), prompts, [])
        (micro,) = stage.batch(0)
    nats_BT = torch.where(micro["weights_BT"] > 0, -micro["old_BT"], 500.0).requires_grad_(True)
    loss = stage.loss(lambda *_: nats_BT, micro)  # type: ignore[arg-type]
    loss.backward()  # type: ignore[no-untyped-call]
    assert nats_BT.grad is not None
    assert nats_BT.grad.isfinite().all()


def test_quality_worked_out() -> None:
    chosen, rejected = np.array([2.0, 0.0, 1.0, 0.0]), np.array([0.0, 2.0, 1.0, -0.1])
    found = judged(chosen, rejected, np.array([(4, 2), (2, 4), (3, 3), (5, 1)]))
    assert found.accuracy.value == pytest.approx(2.5 / 4)
    assert found.longer is not None
    assert found.longer.value == pytest.approx(2 / 3)
    assert sum(one.n for one in found.calibration) == 4
    sure = next(one for one in found.calibration if one.said > 0.8)
    assert (sure.n, sure.true.value) == (2, 0.5)


def test_what_cannot_be(base: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="in groups of 5"):
        made("grpo", base, pairs, tmp_path / "a", options={"group": 5})
    with pytest.raises(TrainError, match="no prompts"):
        made("grpo", base, pairs, tmp_path / "b", options={"longest": 60})
    with pytest.raises(TrainError, match="no pairs"):
        made("dpo", base, pairs, tmp_path / "c", context=16)
    with pytest.raises(TrainError, match="no function nothing"):
        of_program(Path(__file__), "nothing")
    program = tmp_path / "judge.py"
    program.write_text("def judge(messages, reply, row):\n    return 'good'\n")
    with pytest.raises(TrainError, match="no finite number"):
        of_program(program, "judge")([Prompt((), (1,), {})], [Reply((1,), (0.0,), "x", True)])
