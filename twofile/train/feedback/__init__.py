"""Learning from comparisons and rewards: pairs, a reward model, DPO; and PPO, GRPO and RLOO on a model's own replies.

Read top-down: `pairs` and `comparisons` (what people preferred), the objectives `bradley_terry`, `dpo`, `ppo`, `grpo`
(each its formulas alone), the stages `reward`, `preference` and `online` on the loop that all of training shares.
"""
