"""Learning from text: losses, forms of data, the loop, and going on online."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers
from torch.utils.data import DataLoader

from agents import DoubleDQN, make_vec_env
from agents.double_dqn.evaluation import evaluate
from agents.double_dqn.losses import sequence_loss
from agents.double_dqn.targets import cross_entropy_loss
from agents.offline import OfflineObjective, learn_from_text, offline_loss, read_rows, text_to_episodes
from agents.offline.learner import TextCheckpoints, TextLearner
from agents.offline.likelihood import fit_temperature, score_texts
from agents.offline.objectives import advantage_weights, expectile_loss, other_actions_loss
from agents.saving.checkpoint import SaveCheckpoints
from agents.saving.checkpoint_folder import CheckpointError, CheckpointFolder, TrainingInterrupted
from agents.saving.files import parse_yaml
from agents.saving.state_file import differences
from textgym import demonstrations, make_task
from textgym.language_models import NGramLM
from textgym.tokenizers import WordTokenizer

REVERSE, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
TINY = {"features_dim": 16, "n_random_features": 8, "n_layers": 1, "n_heads": 2, "feature_map": "softmax"}
TINY_OPTIONS = [part for name in list(TINY)[:-1] for part in ("--set", f"policy_kwargs.{name}={TINY[name]}")]
VALUES = ("td", "cql", "ilql", "mc")


def make_model(seed=0, env_args=ENV_ARGS, env_id=REVERSE, n_envs=4, **kwargs):
    env = make_vec_env(env_id, n_envs, seed=seed, env_kwargs=env_args)
    arguments = {"learning_rate": 5e-3, "batch_size": 32, "policy_kwargs": TINY, "device": "cpu", **kwargs}
    return DoubleDQN("PerformerPolicy", env, seed=seed, **arguments)


def shown(n=64, **kwargs):
    return demonstrations(REVERSE, n, seed=500, **{**ENV_ARGS, **kwargs})


def weights_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.q_net.parameters()])


class TestPureLosses:
    q_t = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [float("nan")] * 3]])
    actions = torch.tensor([[2, 1], [0, 0]])
    valid = torch.tensor([[True, True], [True, False]])

    def test_cross_entropy_is_that_of_the_logits(self):
        loss, each = cross_entropy_loss(self.q_t, self.actions, self.valid)
        rows = self.q_t[self.valid]
        expected = torch.nn.functional.cross_entropy(rows, self.actions[self.valid], reduction="none")
        assert torch.allclose(each[self.valid], expected) and each[1, 1] == 0
        assert torch.isclose(loss, expected.mean())

    def test_cross_entropy_of_legal_actions_alone(self):
        masks = torch.tensor([True, False, True]).expand(2, 2, 3)
        _, each = cross_entropy_loss(self.q_t, self.actions, self.valid, masks)
        assert each[0, 0] == pytest.approx(np.log(1 + np.exp(-2)))
        # The data's own action counts whatever the mask says: otherwise its loss would be infinite.
        assert each[0, 1] == pytest.approx(np.log(np.exp(3) + 2))

    def test_importance_weights_scale_rows_but_not_the_number(self):
        weights = torch.tensor([1.0, 0.5])
        loss, each = cross_entropy_loss(self.q_t, self.actions, self.valid, weights=weights)
        assert torch.isclose(loss, (each * weights[:, None]).sum() / 3)
        token_weights = torch.tensor([[0.0, 0.0], [2.0, float("nan")]])
        loss, _ = cross_entropy_loss(self.q_t, self.actions, self.valid, weights=token_weights)
        assert torch.isclose(loss, 2 * each[1, 0] / 3)

    def test_expectile(self):
        v_t = torch.tensor([[0.0, 0.0], [1.0, 9.0]], requires_grad=True)
        target = torch.tensor([[1.0, -1.0], [1.0, float("nan")]])
        loss = expectile_loss(v_t, target, self.valid, 0.8)
        loss.backward()
        assert loss.item() == pytest.approx(0.5 * (0.8 + 0.2) / 3)
        assert v_t.grad.tolist() == [pytest.approx([-0.8 / 3, 0.2 / 3]), [0.0, 0.0]]

    def test_an_expectile_near_one_is_the_best_of_the_data(self):
        v_t = torch.zeros(1, 1, requires_grad=True)
        target = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
        for _ in range(100):
            (slope,) = torch.autograd.grad(
                expectile_loss(v_t.expand(4, 1), target, torch.ones(4, 1, dtype=torch.bool), 0.95), v_t
            )
            with torch.no_grad():
                v_t -= 2 * slope
        assert v_t.item() == pytest.approx(0.95 / (0.95 + 3 * 0.05), abs=1e-3)  # where the gradients balance

    def test_other_actions(self):
        q_t = self.q_t.clone().requires_grad_()
        loss = other_actions_loss(q_t, self.actions, self.valid, 1.0)
        loss.backward()
        assert loss.item() == pytest.approx(0.5 * ((1 + 0) + (4 + 1) + 0) / 3)
        assert (q_t.grad.gather(-1, self.actions.unsqueeze(-1)) == 0).all()
        masks = torch.tensor([False, True, True]).expand(2, 2, 3)
        assert other_actions_loss(self.q_t, self.actions, self.valid, 1.0, masks).item() == pytest.approx(0.5 / 3)

    def test_advantage_weights_do_not_depend_on_the_unit(self):
        advantage = torch.tensor([[1.0, -1.0], [0.5, float("nan")]])
        one, other = (advantage_weights(scale * advantage, self.valid, 2.0, ceiling=20.0) for scale in (1.0, 100.0))
        assert torch.allclose(one, other) and one[1, 1] == 0 and one[0, 0] > one[1, 0] > one[0, 1]
        assert one.sum() == pytest.approx(3.0)  # a mean of 1
        assert (advantage_weights(advantage, self.valid, 0.0)[self.valid] == 1).all()
        clipped = advantage_weights(advantage, self.valid, 50.0, ceiling=3.0)
        assert clipped[0, 0] == clipped[1, 0] == pytest.approx(1.5) and clipped[0, 1] < 1e-6
        plain = advantage_weights(advantage, self.valid, 2.0)  # what turned out well counts alike, however well
        assert plain[0, 0] == plain[1, 0] > 1 > plain[0, 1] > 0

    def test_nothing_valid_is_no_loss(self):
        nothing = torch.zeros(2, 2, dtype=torch.bool)
        q_t = torch.full((2, 2, 3), float("nan"), requires_grad=True)
        losses = [
            cross_entropy_loss(q_t, self.actions, nothing)[0],
            other_actions_loss(q_t, self.actions, nothing, 0.0),
            expectile_loss(q_t[..., 0], q_t[..., 1], nothing, 0.7),
        ]
        sum(losses).backward()
        assert [loss.item() for loss in losses] == [0.0, 0.0, 0.0] and not q_t.grad.isnan().any()

    def test_errors(self):
        with pytest.raises(ValueError, match=r"actions must have shape \(2, 2\), got \(2,\)"):
            cross_entropy_loss(self.q_t, self.actions[0], self.valid)
        with pytest.raises(ValueError, match="expectile must lie between 0 and 1, got 1"):
            expectile_loss(self.q_t[..., 0], self.q_t[..., 0], self.valid, 1.0)
        with pytest.raises(ValueError, match="sharpness must be at least 0, got -1"):
            advantage_weights(self.q_t[..., 0], self.valid, -1.0)
        with pytest.raises(ValueError, match=r"weights must have shape \(2,\) or \(2, 2\), got \(3,\)"):
            other_actions_loss(self.q_t, self.actions, self.valid, 0.0, weights=torch.ones(3))


class TestOfflineLoss:
    def batch(self, model, terminated=True, rewards=((1.0, 2.0, 4.0),)):
        tokens = np.array([[0, 1, 1, 0, 3]])
        model.replay_buffer.add_episodes(
            tokens, np.array([[2, 3, 4]]), np.array([3]), np.array(rewards), np.array([terminated])
        )
        return model.replay_buffer.sample(2)

    def errors(self, model, batch, name, gamma, **kwargs):
        head = torch.nn.Linear(16, 1)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, 10.0)
        nets = model.policy.q_net, model.policy.q_net_target
        loss, errors, q_t = offline_loss(*nets, head, batch, OfflineObjective(name, gamma, **kwargs))
        return loss, errors + q_t.detach()  # the targets

    def test_td_is_the_loss_of_online_learning(self):
        model = make_model()
        batch = self.batch(model, terminated=False)
        nets = model.policy.q_net, model.policy.q_net_target
        online = sequence_loss(*nets, batch, gamma=0.9, n_steps=2)
        plain = offline_loss(*nets, None, batch, OfflineObjective("td", 0.9, n_steps=2))
        # The way that needs whole rows of values must come to the same.
        whole = offline_loss(*nets, None, batch, OfflineObjective("td", 0.9, n_steps=2, conservatism=1e-30))
        for other in (plain, whole):
            for one, two in zip(online, other, strict=True):
                torch.testing.assert_close(one, two)

    def test_zero_discount_is_the_reward(self):
        for name in VALUES:
            model = make_model(loss="huber")
            _, target = self.errors(model, self.batch(model), name, 0.0)
            torch.testing.assert_close(target, torch.tensor([[1.0, 2.0, 4.0]]).expand(2, 3))

    def test_nothing_follows_a_terminated_text_and_a_cut_one_keeps_its_value(self):
        for terminated, last in ((True, 4.0), (False, 4.0 + 0.5 * 10.0)):
            model = make_model(loss="huber")
            _, target = self.errors(model, self.batch(model, terminated), "ilql", 0.5)
            expected = torch.tensor([[1.0 + 5.0, 2.0 + 5.0, last]]).expand(2, 3)
            torch.testing.assert_close(target, expected)

    def test_monte_carlo_is_the_return(self):
        model = make_model(loss="huber")
        _, target = self.errors(model, self.batch(model), "mc", 0.5)
        torch.testing.assert_close(target, torch.tensor([[3.0, 4.0, 4.0]]).expand(2, 3))

    def test_ensembles(self):
        for name in (*VALUES, "crr", "bc"):
            model = make_model(policy_kwargs={**TINY, "n_ensemble": 3})
            head = torch.nn.Linear(16, 1)
            nets = model.policy.q_net, model.policy.q_net_target
            loss, errors, q_t = offline_loss(
                *nets, head, self.batch(model), OfflineObjective(name, 0.9, conservatism=1.0, other_reward=0.0)
            )
            assert loss.ndim == 0 and errors.shape == q_t.shape == (2, 3)


class TestData:
    rows = (("a b", "b a"), ("c a", "a c"), ("b b", "b"))
    task = make_task("reverse", **ENV_ARGS)

    def forms(self):
        from datasets import Dataset

        mappings = [{"prompt": prompt, "completion": completion} for prompt, completion in self.rows]
        yield list(self.rows)
        yield (row for row in mappings)
        yield Dataset.from_list(mappings)
        yield DataLoader(mappings, batch_size=2)
        yield DataLoader(list(self.rows), batch_size=2)
        yield DataLoader(list(self.rows), batch_size=2, collate_fn=list)
        yield DataLoader(Dataset.from_list(mappings), batch_size=None)

    def test_every_form_gives_the_same_episodes(self):
        expected = np.array([[0, 1, 1, 0, 3], [2, 0, 0, 2, 3], [1, 1, 1, 3, 4]])
        for data in self.forms():
            episodes = text_to_episodes(data, self.task)
            assert episodes.tokens.tolist() == expected.tolist() and episodes.terminated.all()
            assert episodes.n_actions.tolist() == [3, 3, 2]
            assert episodes.rewards.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0]]

    def test_texts_and_files_give_the_same_episodes(self, tmp_path):
        texts = ["a b b a", "c a a c", "b b b"]
        (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n\n")
        for data in (texts, str(tmp_path / "texts.txt"), tmp_path / "texts.txt", DataLoader(texts, batch_size=2)):
            episodes = text_to_episodes(data, self.task, prompt_tokens=2)
            assert episodes.tokens.tolist() == [[0, 1, 1, 0, 3], [2, 0, 0, 2, 3], [1, 1, 1, 3, 4]]
            assert episodes.action_positions[0].tolist() == [2, 3, 4]

    def test_loaders_leave_the_global_generator_alone(self):
        before = torch.random.get_rng_state()
        read_rows(DataLoader(list(self.rows), batch_size=2, shuffle=True))
        assert torch.equal(before, torch.random.get_rng_state())

    def test_long_texts_are_cut_and_only_the_last_piece_ends(self, tmp_path):
        (tmp_path / "text.txt").write_text("a b c\na b c a b")
        lines = text_to_episodes(tmp_path / "text.txt", self.task)
        assert lines.n_actions.tolist() == [3, 4] and lines.terminated.tolist() == [True, True]
        pieces = text_to_episodes(tmp_path / "text.txt", self.task, window=3)
        assert pieces.tokens.tolist() == [[0, 1, 2, 0], [0, 1, 2, 0], [0, 1, 3, 4]]
        assert pieces.terminated.tolist() == [False, False, True]

    def test_rewards_of_the_rows(self):
        data = [("a b", "b a", 0.5), {"prompt": "a c", "completion": "c", "reward": [0.25, -1]}]
        assert text_to_episodes(data, self.task).rewards.tolist() == [[0, 0, 0.5], [0.25, -1, 0]]
        loader = DataLoader([("a b", "b a", 0.5), ("a c", "c", 1.0)], batch_size=2)
        assert text_to_episodes(loader, self.task).rewards.tolist() == [[0, 0, 0.5], [0, 1.0, 0]]

    def test_reward_functions_and_language_models(self):
        def length(prompts, completions, bonus, **columns):
            assert prompts == ["a b", "a c"]
            return [len(text) + more for text, more in zip(completions, bonus, strict=True)]

        data = [
            {"prompt": "a b", "completion": "b a", "bonus": 0},
            {"prompt": "a c", "completion": "c", "bonus": 10},
        ]
        assert text_to_episodes(data, self.task, reward=length).rewards.tolist() == [[0, 0, 3], [0, 11, 0]]
        model = NGramLM(["a b b a", "a c c"])
        rewards = text_to_episodes(data, self.task, reward=model).rewards
        expected = model.text_log_probs(["a b"], ["b a"])[0]
        assert rewards[0].tolist() == pytest.approx([*expected, 0.0], rel=1e-6)

    def test_demonstrations_earn_what_their_environment_paid(self):
        data = shown(16, length=3, vocab_size=4).__class__(REVERSE, 16, 7, 0.4, {"length": 3, "vocab_size": 4})
        task = make_task("reverse", length=3, vocab_size=4)
        episodes = text_to_episodes(data, task)
        demonstrated = list(data)
        assert episodes.rewards.sum(axis=1) == pytest.approx([one.reward for one in demonstrated])
        assert len(np.unique(episodes.rewards)) > 1 and episodes.terminated.all()
        by_text = [
            {"prompt": one.prompt, "completion": task.decode(one.completion_tokens), "seed": 7 + number}
            for number, one in enumerate(demonstrated)
            if one.completion_tokens[-1] == task.eos_id and len(one.completion_tokens) > 1
        ]
        again = text_to_episodes(by_text, task, reward="environment")
        assert len(again) > 3
        wanted = [sum(episodes.rewards[row["seed"] - 7]) for row in by_text]
        assert again.rewards.sum(axis=1) == pytest.approx(wanted)

    def test_replies_and_masks_come_from_the_environment(self):
        data = demonstrations("TextGen/Hangman-v0", 8, seed=3)
        task = make_vec_env("TextGen/Hangman-v0", 1, seed=0).get_attr("task")[0]
        episodes = text_to_episodes(data, task)
        for number, one in enumerate(data):
            text = [*one.prompt_tokens, *one.completion_tokens]
            assert episodes.tokens[number, : len(text)].tolist() == text
            places = np.flatnonzero(one.is_action) + len(one.prompt_tokens)
            assert episodes.action_positions[number, : len(places)].tolist() == places.tolist()
            assert episodes.rewards[number].sum() == pytest.approx(one.reward, abs=1e-6)

    def test_texts_of_a_task_that_ends_by_itself_need_no_eos(self):
        """A walk that has reached its goal is over: plain rows are the same episodes as the demonstrations."""
        data = demonstrations("TextGen/RandomWalks-v0", 32)
        plain = [(prompt, completion, earned) for prompt, completion, earned in data]
        task = make_task("random_walks")
        replayed, read = text_to_episodes(data, task), text_to_episodes(plain, task)
        width = read.tokens.shape[1]
        assert np.array_equal(replayed.tokens[:, :width], read.tokens) and read.terminated.all()
        assert replayed.rewards.sum(axis=1) == pytest.approx(read.rewards.sum(axis=1))

    def test_walks_with_a_mask_are_data_for_an_agent_without_one(self):
        """The walks that the mask made are replayed where there is none: the same rewards, and ends at the goal."""
        data = demonstrations("TextGen/RandomWalks-v0", 64, seed=3, error_rate=1.0, masked=True)
        episodes = text_to_episodes(data, make_task("random_walks"))
        assert episodes.action_masks is None and episodes.terminated.all()
        for row, one in enumerate(data):
            n = episodes.n_actions[row]
            assert n == len(one.completion_tokens) and episodes.rewards[row, n - 1] == pytest.approx(one.reward)
            assert episodes.rewards[row, : n - 1].sum() == 0
        assert (episodes.rewards.sum(axis=1) > 0).any()

    def test_masks_of_a_task_that_has_some(self):
        data = demonstrations("TextGen/Sql-v0", 4, seed=3)
        task = make_vec_env("TextGen/Sql-v0", 1, seed=0).get_attr("task")[0]
        episodes = text_to_episodes(data, task)
        if not task.masked:
            assert episodes.action_masks is None
            return
        steps = np.arange(episodes.n_actions.max())
        for number in range(4):
            for step in steps[: episodes.n_actions[number]]:
                action = episodes.tokens[number, episodes.action_positions[number, step]]
                assert episodes.action_masks[number, step, action]

    @pytest.mark.parametrize(
        ("data", "options", "message"),
        [
            ([], {}, "data must hold at least one text"),
            (7, {}, "data must be a list of texts or rows.* got a single int: 7"),
            ([("a b", "b a"), 7], {}, r"data\[1\] must be a text.* got 7"),
            ([("a b", "b q")], {}, r"data\[0\]: text must consist of the task's tokens, got 'q' in 'b q'"),
            ([("a b", "b a c a b")], {}, r"data\[0\]: completion must have at most 4 tokens.* got 5"),
            ([("a b", "b", "much")], {}, r"data\[0\] must have a finite 'reward'.* got 'much'"),
            ([("a b", "b", [1.0])], {}, r"data\[0\] must have one reward, or one for each of its 2 actions.* got 1"),
            ([("a b", "b", 1.0), ("a b", "b")], {}, r"data\[1\] must have a reward, as other rows do, got none"),
            ([("a b", "b")], {"reward": "environment"}, r"data\[0\] must have a seed for reward='environment'"),
            ([("a b", "b")], {"reward": "best"}, "reward must be a function, a language model.* got 'best'"),
            ([{"prompt": "a b"}], {}, r"data\[0\] must have a string 'completion'"),
            (["a"], {}, "data must hold a text of more than 1 tokens"),
            (["a b"], {"prompt_tokens": 0}, "prompt_tokens must be an integer of at least 1, got 0"),
            (["a b"], {"window": 5}, "window must be at most 4, the budget of the task, got 5"),
            ("/nowhere.txt", {}, "data must be the path of a UTF-8 text file, got '/nowhere.txt'"),
        ],
    )
    def test_errors(self, data, options, message):
        with pytest.raises(ValueError, match=message):
            text_to_episodes(data, self.task, **options)

    def test_a_seed_that_shows_another_prompt(self):
        wrong = [{"prompt": "a b", "completion": "b a", "seed": seed} for seed in range(8)]
        with pytest.raises(ValueError, match=r"must have the prompt that its seed \d+ shows, '.*', got 'a b'"):
            text_to_episodes(wrong, self.task, reward="environment")


class TestLearning:
    @pytest.mark.parametrize("objective", [*VALUES, "crr", "bc"])
    @pytest.mark.filterwarnings("ignore:objective '(bc|crr)'")
    def test_it_learns_to_reverse(self, objective):
        data = shown(200).__class__(REVERSE, 200, 500, 0.3, ENV_ARGS)  # with wrong tokens: bad actions are shown too
        model = make_model()
        before = weights_of(model)
        result = learn_from_text(model, data, objective=objective, steps=80, learning_rate=1e-2)
        assert result.episodes == 200 and result.updates == 80 and result.loss < result.first_loss
        assert not torch.equal(before, weights_of(model))
        returns = evaluate(model, make_vec_env(REVERSE, 9, seed=0, env_kwargs=ENV_ARGS), 36, seed=10_000).returns
        assert returns.mean() > 0.8

    def test_one_seed_is_one_result(self):
        for objective in ("ilql", "td"):
            models = [make_model(seed=seed) for seed in (3, 3, 4)]
            for model in models:
                learn_from_text(model, shown(), objective=objective, steps=5)
            one, same, other = map(weights_of, models)
            assert torch.equal(one, same) and not torch.equal(one, other)

    def test_global_generators_are_left_alone(self):
        model, before = make_model(), torch.random.get_rng_state()
        numpy_before = np.random.get_state()[1].tolist()  # noqa: NPY002  # the point is that it stays
        learn_from_text(model, shown(), objective="ilql", steps=3)
        assert torch.equal(before, torch.random.get_rng_state())
        assert np.random.get_state()[1].tolist() == numpy_before  # noqa: NPY002

    def test_pretrain_then_online(self):
        model = make_model(learning_starts=0, exploration_initial_eps=0.05)
        learn_from_text(model, shown(), steps=10)
        stored, weights = model.replay_buffer.n_episodes, weights_of(model)
        model.learn(100)
        assert stored == 64 and model.replay_buffer.n_episodes > 64  # the demonstrations are still there
        assert not torch.equal(weights, weights_of(model)) and model.num_timesteps >= 100

    def test_texts_are_rehearsed_online(self, tmp_path):
        model = make_model(learning_starts=0, exploration_initial_eps=0.05)
        learn_from_text(model, shown(), steps=3, rehearsal=0.25)
        kept = model.rehearsal
        assert kept.texts.n_episodes == 64 and kept.objective.name == "cql" and kept.objective.conservatism == 1.0
        batch = model._path.sample(16, 0.4)
        assert len(batch.indices) == 12
        before = kept.texts.generator.bit_generator.state
        mixed = model._path.loss(batch).loss
        kept.texts.generator.bit_generator.state = before
        nets = model.policy.q_net, model.policy.q_net_target
        rehearsed, _, _ = offline_loss(*nets, None, kept.texts.sample(4), kept.objective)
        model.rehearsal = None
        alone = model._path.loss(batch).loss
        torch.testing.assert_close(mixed, 0.75 * alone + 0.25 * rehearsed)
        model.rehearsal = kept
        model.save(tmp_path / "model.zip")
        assert DoubleDQN.load(tmp_path / "model.zip").rehearsal.texts.n_episodes == 64

    def test_rehearsal_goes_on_after_a_checkpoint(self, tmp_path):
        def learn(folder, pretrain=True, **options):
            model = make_model(learning_starts=0)
            if pretrain:
                learn_from_text(model, shown(), steps=2, objective="cql")
            model.learn(240, SaveCheckpoints(folder, **options))

        learn(tmp_path / "whole")
        calls = iter(range(100))
        with pytest.raises(TrainingInterrupted):
            learn(tmp_path / "parts", stop=lambda: next(calls) == 20)
        saved = CheckpointFolder(tmp_path / "parts").load()[1]
        assert saved["state"]["rehearsal"]["share"] == 0.5
        learn(tmp_path / "parts", pretrain=False, resume=saved)
        states = [CheckpointFolder(tmp_path / name).load()[1]["state"] for name in ("whole", "parts")]
        assert states[0]["rehearsal"]["texts"]["generator"] != saved["state"]["rehearsal"]["texts"]["generator"]
        assert differences(*states) == []

    def test_only_objectives_with_a_cross_entropy_are_rehearsed_unless_told_otherwise(self):
        model = make_model()
        for objective, expected in (("cql", 0.5), ("td", None), ("ilql", 0.5), ("mc", None)):
            learn_from_text(model, shown(), steps=1, objective=objective)
            assert (model.rehearsal and model.rehearsal.share) == expected
        learn_from_text(model, shown(), steps=1, objective="td", rehearsal=0.1)
        assert model.rehearsal.share == 0.1 and model.rehearsal.objective.name == "td"

    def test_rehearsal_keeps_what_a_rare_reward_does_not_teach(self):
        sparse = ENV_ARGS | {"dense": False}
        data = demonstrations(REVERSE, 64, 500, **sparse)
        outcomes = {}
        for rehearsal in (0.0, 0.5):
            model = make_model(env_args=sparse, learning_starts=0, updates_per_step=0.2, learning_rate=1e-2)
            learn_from_text(model, data, steps=60, rehearsal=rehearsal)
            model.replay_buffer.reset()  # as if newer episodes had pushed the texts out
            model.learn(400)
            env = make_vec_env(REVERSE, 9, seed=0, env_kwargs=sparse)
            outcomes[rehearsal] = evaluate(model, env, 36, seed=10_000).returns.mean()
        assert outcomes[0.5] > 0.9 and outcomes[0.5] > outcomes[0.0]

    def test_priorities_are_used_and_given_back(self):
        model = make_model()
        learn_from_text(model, shown(), objective="td", steps=3, prioritized=True)
        assert model.replay_buffer.prioritized
        tree = model.replay_buffer._tree
        assert len(np.unique(tree.get(np.arange(64)))) > 1
        model = make_model()
        learn_from_text(model, shown(), objective="td", steps=3)
        assert model.replay_buffer.prioritized and len(np.unique(model.replay_buffer._tree.get(np.arange(64)))) == 1

    def test_next_tokens_of_a_corpus_become_probabilities(self):
        env_args = {"prompts": ["a"], "tokenizer": None, "max_new_tokens": 4, "reward": lambda prompts, **_: [0.0]}
        from textgym.tokenizers import CharacterTokenizer

        env_args["tokenizer"] = CharacterTokenizer("abc")
        model = make_model(env_id="TextGen-v0", env_args=env_args, gamma=0.0)
        texts = ["ab", "ab", "ab", "ac"]
        learn_from_text(model, texts, objective="td", steps=80, other_reward=0.0, learning_rate=1e-2)
        q_values = model.q_net(torch.tensor([[0, 4, 5, 5, 5, 5]])).detach()[0]
        assert q_values.tolist() == pytest.approx([0.0, 0.75, 0.25, 0.0], abs=0.1)

    def test_callback_stops_and_is_told(self):
        told = []

        def stop_at_three(progress):
            told.append(progress)
            return progress.update < 3

        result = learn_from_text(make_model(), shown(), epochs=2, callback=stop_at_three)
        assert result.updates == 3 and [one.update for one in told] == [1, 2, 3] and told[0].updates == 4

    def test_learning_rates(self):
        model, rates = make_model(), []

        def note(progress):
            rates.append(model.policy.optimizer.param_groups[0]["lr"])

        learn_from_text(model, shown(), steps=2, callback=note)
        learn_from_text(model, shown(), steps=2, learning_rate=lambda remaining: remaining, callback=note)
        assert rates == [5e-3, 5e-3, 1.0, 0.5]

    def test_cloning_warns_that_it_leaves_no_values(self):
        with pytest.warns(UserWarning, match="objective 'bc' leaves logits"):
            learn_from_text(make_model(), shown(), objective="bc", steps=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            learn_from_text(make_model(), shown(), objective="mc", steps=1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"objective": "sarsa"}, "objective must be one of td, cql, ilql, mc, crr, bc, got 'sarsa'"),
            ({"steps": -1}, "steps must be an integer of at least 0, got -1"),
            ({"epochs": 0}, "epochs must be greater than 0, got 0"),
            ({"steps": 1, "epochs": 1}, "steps=1 and epochs=1 exclude one another"),
            ({"conservatism": -1}, "conservatism must be at least 0, got -1"),
            ({"expectile": 1.0}, "expectile must lie between 0 and 1, got 1.0"),
            ({"sharpness": -0.5}, "sharpness must be at least 0, got -0.5"),
            ({"rehearsal": 1.0}, "rehearsal must be at least 0 and less than 1, got 1.0"),
            ({"objective": "bc", "rehearsal": 0.5}, "rehearsal must be 0 for objective 'bc'"),
            ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
            ({"objective": "bc", "other_reward": 0.0}, "other_reward must be None for objective 'bc'"),
        ],
    )
    def test_errors(self, options, message):
        with pytest.raises(ValueError, match=message):
            learn_from_text(make_model(), shown(), **options)

    def test_models_that_cannot(self):
        with pytest.raises(ValueError, match="model must have an environment of TextGym"):
            learn_from_text(DoubleDQN("MlpPolicy", "CartPole-v1"), ["a"])
        with pytest.raises(ValueError, match="buffer_size of the model must be at least 192, got 100"):
            learn_from_text(make_model(buffer_size=100), shown())
        model = make_model()
        model.env = None
        with pytest.raises(ValueError, match="model must have an environment of TextGym"):
            learn_from_text(model, shown())


class TestResuming:
    @pytest.mark.parametrize(
        "options", [{"objective": "ilql"}, {"objective": "td", "prioritized": True}], ids=["value head", "prioritized"]
    )
    def test_learning_that_was_stopped_ends_with_the_same_bits(self, tmp_path, options):
        whole, stopped, resumed = (make_model() for _ in range(3))
        rate = {"learning_rate": lambda remaining: 1e-2 * remaining}
        expected = learn_from_text(whole, shown(), steps=20, **options, **rate)
        calls = iter(range(100))
        checkpoints = TextCheckpoints(tmp_path, 1e6, stop=lambda: next(calls) == 11)
        with pytest.raises(TrainingInterrupted):
            learn_from_text(stopped, shown(), steps=20, **options, **rate, checkpoints=checkpoints)
        assert [path.name for path in tmp_path.iterdir()] == ["text-000000000011.safetensors"]
        assert stopped.last_checkpoint.endswith("text-000000000011.safetensors")
        again = TextCheckpoints(tmp_path, 1e6)
        assert again.seconds > 0
        result = learn_from_text(resumed, shown(), steps=20, **options, **rate, checkpoints=again)
        assert result == expected
        assert differences(whole.replay_buffer.get_state(), resumed.replay_buffer.get_state()) == []
        assert torch.equal(weights_of(whole), weights_of(resumed))

    def test_a_damaged_checkpoint_is_passed_over_and_another_ones_refused(self, tmp_path):
        learn_from_text(make_model(), shown(), objective="td", steps=3, checkpoints=TextCheckpoints(tmp_path, 0))
        newest, older = sorted(tmp_path.iterdir(), reverse=True)
        newest.write_bytes(newest.read_bytes()[:-1])
        with pytest.warns(UserWarning, match=f"the checkpoint before it, {older.name}, is used"):
            checkpoints = TextCheckpoints(tmp_path)
        with pytest.raises(CheckpointError, match=r"learned from with .*'mc'.*, got .*'td'"):
            learn_from_text(make_model(), shown(), objective="mc", steps=3, checkpoints=checkpoints)

    @pytest.mark.parametrize("what", ["text", "demonstrations"])
    def test_the_command_goes_on(self, textgym, tmp_path, monkeypatch, what):
        corpus = tmp_path / "corpus.txt"
        corpus.write_text("the cat sat on the mat\n" * 60)
        options = {
            "text": ["--from-text", corpus, "--window", 8],
            "demonstrations": [REVERSE, "--from-demonstrations", 64, "--steps", 40, "--n-envs", 4],
        }[what]
        line = ["train", *options, "--epochs", 4, *TINY_OPTIONS, "--set", "batch_size=16", "--checkpoint-seconds", 0]
        code, out, err = textgym(*line, "--run-dir", tmp_path / "whole")
        assert (code, err) == (0, "")
        update, calls = TextLearner._update, iter(range(1_000))

        def dies(learner, report):
            if next(calls) == 7:
                raise MemoryError("killed")
            return update(learner, report)

        with monkeypatch.context() as patch:
            patch.setattr(TextLearner, "_update", dies)
            assert textgym(*line, "--run-dir", tmp_path / "parts")[0] != 0
        code, out, err = textgym("train", "--resume", tmp_path / "parts")
        assert (code, err) == (0, "") and f"Run folder: {tmp_path / 'parts'}" in out
        whole, parts = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()
        assert "has ended" in textgym("train", "--resume", tmp_path / "parts")[1]
        if what == "text":
            (tmp_path / "parts" / "result.json").unlink()
            corpus.write_text("a\n" * 60)
            code, _, err = textgym("train", "--resume", tmp_path / "parts")
            assert code == 2 and f"{corpus} has changed" in err


class TestCommand:
    @pytest.fixture
    def corpus(self, tmp_path):
        path = tmp_path / "corpus.txt"
        path.write_text(("the cat sat on the mat\n" * 4 + "the dog sat on the cat\n") * 16)
        return path

    @pytest.mark.parametrize(("level", "objective", "epochs"), [("char", "td", 4), ("word", "bc", 15)])
    def test_a_corpus(self, textgym, corpus, tmp_path, level, objective, epochs):
        folder = tmp_path / "run"
        options = ["--level", level, "--window", 8, "--objective", objective, "--epochs", epochs, "--run-dir", folder]
        code, out, err = textgym("train", "--from-text", corpus, *options, *TINY_OPTIONS, "--set", "batch_size=16")
        assert (code, err) == (0, "") and "Held out" in out and f"Run folder: {folder}" in out
        result = json.loads((folder / "result.json").read_text())
        # Replay has room for the whole corpus, however long it is.
        config = parse_yaml((folder / "config.yaml").read_text(), "config.yaml")
        assert config["agent"]["buffer_size"] == result["learned"]["actions"]
        assert result["held_out"]["agreement"] > 0.4 and 1 <= result["held_out"]["perplexity"] < 20
        code, out, _ = textgym("validate", folder, "--text", corpus, "--json", tmp_path / "scores.json")
        assert code == 0 and "are the greedy action" in out and "log p" in out
        scores = json.loads((tmp_path / "scores.json").read_text())
        assert scores["agreement"] > 0.4 and len(scores["examples"]) == 8
        assert textgym("validate", folder, "--text", tmp_path / "nowhere.txt")[0] == 2

    def test_demonstrations_then_online(self, textgym, tmp_path):
        folder = tmp_path / "run"
        options = ["--env-arg", "length=2", "--env-arg", "vocab_size=3", "--n-envs", 4, *TINY_OPTIONS]
        options += ["--from-demonstrations", 64, "--noise", 0.2, "--epochs", 2, "--set", "learning_starts=0"]
        code, out, err = textgym("train", REVERSE, *options, "--steps", 64, "--run-dir", folder)
        assert (code, err) == (0, "") and "Learned from 64 texts" in out and "Trained 64 steps" in out
        assert "demonstrations: 64" in (folder / "config.yaml").read_text()
        texts = tmp_path / "texts.tsv"
        texts.write_text("a b\tb a\t1\nb c\tc b\t1\na a\tb\t0\n")
        code, out, _ = textgym("validate", folder, "--text", texts)
        assert code == 0 and "3 texts, 8 tokens" in out and "mean return 0.667" in out
        code, out, err = textgym("train", REVERSE, *options, "--run-dir", tmp_path / "offline", "--quiet")
        assert (code, out.strip(), err) == (0, str(tmp_path / "offline"), "")
        assert json.loads((tmp_path / "offline" / "result.json").read_text())["steps"] == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (f"{REVERSE} --from-demonstrations 9 --objective best", "--objective must be one of td, cql"),
            (f"{REVERSE} --from-demonstrations 9 --objective bc --steps 9", "must leave values to go on online"),
            (f"{REVERSE} --from-demonstrations 9 --noise 2", "Invalid value for '--noise'"),
            ("TextGen/Keywords-v0 --from-demonstrations 9", "TextGen/Keywords-v0 has no oracle"),
            (f"{REVERSE} --from-text CORPUS", "--from-text takes no ID"),
            ("--from-text CORPUS --from-demonstrations 9", "exclude one another"),
            ("--from-text CORPUS --level letter", "--level must be char or word, got 'letter'"),
            ("--from-text CORPUS --vocabulary 1", "--vocabulary must be at least 2, got 1"),
            ("--from-text CORPUS --epochs 0", "--epochs must be greater than 0, got 0"),
            ("--from-text /nowhere", "got '/nowhere': No such file"),
        ],
    )
    def test_errors_are_one_line(self, textgym, corpus, options, message):
        code, out, err = textgym("train", *options.replace("CORPUS", str(corpus)).split())
        assert code == 2 and out == "" and err.count("\n") == 1 and message in err


def test_the_temperature_is_the_likeliest():
    generator = torch.Generator().manual_seed(0)
    q_values = torch.randn(4_000, 5, generator=generator)
    actions = torch.multinomial((q_values / 0.3).softmax(dim=1), 1, generator=generator).squeeze(1)
    assert fit_temperature(q_values, actions) == pytest.approx(0.3, rel=0.05)


def test_scores_of_texts_are_those_of_their_values():
    model = make_model()
    data = [("a b", "b a", 1.0), ("c a", "a", 0.0)]
    episodes = text_to_episodes(data, make_task("reverse", **ENV_ARGS))
    scores = score_texts(model, episodes)
    expected, hits = [], []
    for number in range(2):
        for step in range(episodes.n_actions[number]):
            place = episodes.action_positions[number, step]
            prefix = torch.full((1, 6), 4)
            prefix[0, :place] = torch.from_numpy(episodes.tokens[number, :place])
            q_values = model.q_net(prefix)[0].detach() / scores.temperature
            action = episodes.tokens[number, place]
            expected.append((q_values[action] - q_values.logsumexp(dim=0)).item())
            hits.append(q_values.argmax().item() == action)
    assert scores.actions == 5 and scores.mean_return == 0.5 and scores.agreement == pytest.approx(np.mean(hits))
    assert scores.perplexity == pytest.approx(np.exp(-np.mean(expected)), rel=1e-3)
    ignoring = score_texts(model, episodes, ignore=0)
    assert ignoring.actions == 3


class TestFaithfulRows:
    """What is learned from is what was given."""

    task = make_task(
        "text_generation",
        prompts=["the food"],
        reward=len,
        tokenizer=WordTokenizer("the food is good there in market".split()),
    )

    def test_a_data_frame_is_its_rows(self):
        frame = pd.DataFrame({"prompt": ["the food", "the"], "completion": ["is good", "food"], "reward": [1.0, 0.5]})
        rows = read_rows(frame)
        assert [(row.prompt, row.completion, row.reward) for row in rows] == [
            ("the food", "is good", 1.0),
            ("the", "food", 0.5),
        ]
        with pytest.raises(ValueError, match="data must be a list of"):
            read_rows({"the food", "is good"})

    @pytest.mark.parametrize("text", ["is therein", "foodmarket", "good theremarket"])
    def test_words_are_not_split_into_others(self, text):
        with pytest.raises(ValueError, match=r"data\[0\].*got '(therein|foodmarket|theremarket)'"):
            text_to_episodes([("the food", text)], self.task)

    def test_symbols_of_a_task_are_not_split_either(self):
        task = make_task("keywords")
        words = [task.token_text(token) for token in range(4)]
        assert len(text_to_episodes([(task.decode(np.array([0])), " ".join(words))], task)) == 1
        with pytest.raises(ValueError, match=r"data\[0\]: text must"):
            text_to_episodes([(task.decode(np.array([0])), "".join(words))], task)

    def test_eos_ends_an_episode(self):
        with pytest.raises(ValueError, match=r"data\[0\]: completion must hold EOS at its end alone.*token 1"):
            text_to_episodes([("the food", "is <eos> good", 1.0)], self.task)
        assert len(text_to_episodes([("the food", "is good <eos>", 1.0)], self.task)) == 1
        eos = self.task.eos_id
        row = {
            "prompt": "the",
            "completion": "",
            "prompt_tokens": [0, self.task.sep_id],
            "completion_tokens": [2, eos, 3],
        }
        with pytest.raises(ValueError, match="completion must hold EOS at its end alone"):
            text_to_episodes([row], self.task)
        pieces = text_to_episodes(["the food is good <eos> there is food"], self.task)
        assert len(pieces) == 2 and pieces.terminated.all() and pieces.n_actions.tolist() == [4, 3]
        for number in range(2):
            acted = pieces.tokens[number, pieces.action_positions[number, : pieces.n_actions[number]]]
            assert acted.tolist().count(eos) == 1 and acted[-1] == eos

    def test_a_byte_order_mark_is_no_word(self, tmp_path):
        file = tmp_path / "text.txt"
        file.write_bytes("\ufeffthe food is good".encode())
        assert read_rows(file)[0].completion == "the food is good"
        file.write_text("the food", "utf-16")
        with pytest.raises(ValueError, match="UTF-8 text file"):
            read_rows(file)

    def test_stored_truncation_does_not_cut_completions(self):
        tokenizer = FastTokenizer(
            models.WordLevel({"the": 0, "food": 1, "is": 2, "good": 3, "</s>": 4}, unk_token="</s>")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.enable_truncation(2)
        task = make_task("text_generation", prompts=["the food"], reward=len, tokenizer=tokenizer)
        assert text_to_episodes([("the food is", "good is good")], task).n_actions.tolist() == [4]
