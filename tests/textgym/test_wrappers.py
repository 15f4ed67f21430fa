import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordEpisodeStatistics, RecordVideo, TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import textgym
from agents.representations.extractors import PerformerExtractor
from textgym.language_models import NGramLM, bigram_model
from textgym.tokenizers import CharacterTokenizer, WordTokenizer
from textgym.wrappers import StringObservation, TokenizeObservation, TopKActions, VectorTopKActions

EASY = [env_id for env_id in textgym.env_ids() if env_id.count("-") == 1]


def play(env, seed, steps=30):
    """Observations, rewards and ends of random legal actions, over several episodes."""
    generator, trace = np.random.default_rng(seed), []
    observation, info = env.reset(seed=seed)
    for _ in range(steps):
        assert env.observation_space.contains(observation), observation
        action = generator.choice(np.flatnonzero(info["action_mask"]))
        observation, reward, terminated, truncated, info = env.step(action)
        trace.append((observation, reward, terminated, truncated))
        if terminated or truncated:
            assert env.observation_space.contains(observation), observation
            observation, info = env.reset()
    return trace


# ---------------------------------------------------------------------- StringObservation


@pytest.mark.parametrize("env_id", EASY)
def test_strings_of_every_task_lie_in_their_space(env_id):
    env = StringObservation(gym.make(env_id))
    trace = play(env, seed=0)
    assert all(isinstance(observation, str) for observation, *_ in trace)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*different from the unwrapped version")
        check_env(env, skip_render_check=True)


def test_strings():
    env = StringObservation(gym.make("TextGen/Copy-v0", length=2, vocab_size=4))
    prompt, _ = env.reset(seed=0)
    assert env.step(1)[0] == prompt + " b"
    assert env.step(4)[0] == prompt + " b"  # EOS is not shown
    short = StringObservation(gym.make("TextGen/Copy-v0", length=2, vocab_size=4), max_length=3)
    assert short.reset(seed=0)[0] == prompt[-3:] and short.step(1)[0] == (prompt + " b")[-3:]


def test_strings_of_bytes_that_no_token_holds():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({text: token for token, text in enumerate([*alphabet, "</s>"])}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    env = StringObservation(
        gym.make("TextGen-v0", prompts=["日本"], tokenizer=tokenizer, reward=lambda prompts, **_: [0.0] * len(prompts))
    )
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation) and set(observation) == {"\N{REPLACEMENT CHARACTER}"}


# ---------------------------------------------------------------------- TokenizeObservation


class Signpost(gym.Env):
    """Go where the sign says; the sign is a Text, or a Text in a Dict beside a number."""

    def __init__(self, in_dict=False):
        self.in_dict = in_dict
        text = spaces.Text(12, charset="abcdefghijklmnopqrstuvwxyz ")
        gauge = spaces.Box(0, 9, (2,), np.int64)
        self.observation_space = spaces.Dict({"gauge": gauge, "sign": text}) if in_dict else text
        self.action_space = spaces.Discrete(2)

    def _observe(self):
        self.way = int(self.np_random.integers(2))
        sign = ["go left", "go right"][self.way]
        return {"gauge": np.array([self.way, 7]), "sign": sign} if self.in_dict else sign

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        reward = float(action == self.way)
        return self._observe(), reward, True, False, {}


def test_text_to_tokens():
    env = TokenizeObservation(Signpost(), WordTokenizer(["go", "left"]), context_length=4)
    rows = {tuple(env.reset(seed=seed)[0].tolist()) for seed in range(20)}
    unknown, pad = env.unknown_id, env.pad_id
    assert rows == {(0, 1, pad, pad), (0, unknown, pad, pad)}
    assert env.observation_space == spaces.Box(0, pad, (4,), np.int32)


def test_characters_are_the_default():
    env = TokenizeObservation(Signpost(), context_length=8)
    assert isinstance(env.tokenizer, CharacterTokenizer)
    row, _ = env.reset(seed=0)
    assert env.tokenizer.decode(row[row < env.pad_id].tolist()) in ("go left", "go right")
    assert env.unknown_id not in row


@pytest.mark.parametrize(("keep", "expected"), [("end", "eft"), ("start", "go ")])
def test_texts_that_are_too_long(keep, expected):
    env = TokenizeObservation(Signpost(), context_length=3, keep=keep)
    row = env.observation("go left")
    assert env.tokenizer.decode(row.tolist()) == expected


def test_dictionaries():
    env = TokenizeObservation(Signpost(in_dict=True), context_length=10)
    assert env.keys == ("sign",)
    row = env.observation({"gauge": np.array([1, 7]), "sign": "go"})
    assert row.tolist() == [*env.tokenizer.encode("go"), env.separator_id, *[env.pad_id] * 7]
    both = TokenizeObservation(Signpost(in_dict=True), context_length=10, keys=["gauge", "sign"])
    row = both.observation({"gauge": np.array([1, 7]), "sign": "go"})
    assert row.tolist()[:4] == [*both.tokenizer.encode("1 7"), both.separator_id]
    assert row.tolist()[4:] == [*both.tokenizer.encode("go"), both.separator_id, *[both.pad_id] * 3]


def test_tokenized_environments_pass_the_checks():
    for in_dict in (False, True):
        env = TokenizeObservation(Signpost(in_dict), context_length=16)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".*different from the unwrapped version")
            check_env(env, skip_render_check=True)
            sb3_check_env(env)


def test_a_textgym_environment_there_and_back():
    """Strings of a TextGym environment, tokenized again: the same ids."""
    task = textgym.make_task("text_generation")
    env = TokenizeObservation(StringObservation(gym.make("TextGen-v0")), task.tokenizer, context_length=20)
    plain = gym.make("TextGen-v0")
    row, _ = env.reset(seed=0)
    observation, _ = plain.reset(seed=0)
    assert row[:3].tolist() == observation[:3].tolist() and (row[3:] == env.pad_id).all()


def test_ppo_with_the_performer_learns_to_read_the_sign():
    env = TokenizeObservation(Signpost(), WordTokenizer(["go", "left", "right"]), context_length=3)
    policy_kwargs = {
        "features_extractor_class": PerformerExtractor,
        "features_extractor_kwargs": {"features_dim": 16, "n_layers": 1, "n_heads": 2},
    }
    model = PPO(
        "MlpPolicy", env, n_steps=64, n_epochs=5, learning_rate=1e-2, seed=0, policy_kwargs=policy_kwargs, device="cpu"
    )
    model.learn(320)
    rewards = []
    observation, _ = env.reset(seed=1)
    for _ in range(40):
        observation, reward, *_ = env.step(model.predict(observation, deterministic=True)[0])
        rewards.append(reward)
    assert np.mean(rewards) == 1.0


# ---------------------------------------------------------------------- TopKActions


def test_top_k_of_the_bigram_model():
    env = TopKActions(gym.make("TextGen-v0"), bigram_model(), k=20)
    assert env.action_space == spaces.Discrete(20)
    observation, info = env.reset(seed=0)
    task = env.unwrapped.task
    log_probs = bigram_model().log_probs(observation[None], np.array([3]))[0]
    assert info["candidates"].tolist() == [*np.argsort(-log_probs, kind="stable")[:19].tolist(), task.eos_id]
    assert info["action_mask"].all() and env.action_masks().dtype == np.bool_
    observation, *_ = env.step(4)
    assert observation[3] == info["candidates"][4]
    assert env.step(19)[2]  # EOS


@pytest.mark.parametrize("env_id", ["TextGen-v0", "TextGen/Json-Easy-v0", "TextGen/Wordle-Easy-v0"])
def test_single_and_batch_agree_under_top_k(env_id):
    task = gym.make(env_id).unwrapped.task
    model = bigram_model() if env_id == "TextGen-v0" else _model_of(task)
    n = 3
    batch = VectorTopKActions(gym.make_vec(env_id, num_envs=n), model, k=6)
    singles = [TopKActions(gym.make(env_id), model, k=6) for _ in range(n)]
    generator = np.random.default_rng(0)
    observations, infos = batch.reset(seed=4)
    masks = [single.reset(seed=4 + row)[1]["action_mask"] for row, single in enumerate(singles)]
    for _ in range(40):
        assert np.array_equal(infos["action_mask"], np.stack(masks)) and infos["action_mask"].any(axis=1).all()
        assert observations in batch.observation_space
        actions = np.array([generator.choice(np.flatnonzero(mask)) for mask in masks])
        observations, rewards, terminated, _, infos = batch.step(actions)
        for row, single in enumerate(singles):
            observation, reward, single_terminated, _, info = single.step(actions[row])
            assert "illegal_action" not in info
            assert (reward, single_terminated) == (rewards[row], terminated[row])
            if single_terminated:
                observation, info = single.reset()
            masks[row] = info["action_mask"]
            assert np.array_equal(observation, observations[row])
            assert np.array_equal(info["candidates"], infos["candidates"][row])


def _model_of(task):
    """A model that knows a part of the task's vocabulary."""
    words = [f"w{token}" for token in range(task.vocab_size // 2)]
    return NGramLM([" ".join(words), " ".join(words[::-1])], WordTokenizer(words), order=2)


def test_masks_and_eos_under_top_k():
    """Where a grammar forbids most tokens, the rest is masked, EOS included, and something is always legal."""
    env = TopKActions(gym.make("TextGen/Json-Easy-v0"), _model_of(gym.make("TextGen/Json-Easy-v0").unwrapped.task), k=5)
    seen_masked_eos = False
    for _ in range(20):
        _, info = env.reset()
        terminated = False
        while not terminated:
            mask, candidates = info["action_mask"], info["candidates"]
            legal = env.unwrapped.action_masks()
            assert len(set(candidates.tolist())) == 5 and candidates[-1] == env.unwrapped.task.eos_id
            assert np.array_equal(mask.astype(bool), legal[candidates]) and mask.any()
            assert np.array_equal(env.get_wrapper_attr("action_masks")(), mask.astype(bool))
            seen_masked_eos |= not mask[-1]
            _, _, terminated, _, info = env.step(int(env.action_space.sample(mask)))
    assert seen_masked_eos


def test_top_k_masks_of_truncated_texts():
    envs = VectorTopKActions(gym.make_vec("TextGen/Json-Easy-v0", num_envs=2, max_episode_steps=1), bigram_model(), k=5)
    envs.reset(seed=0)
    *_, truncated, infos = envs.step(envs.action_masks().argmax(axis=1))
    assert truncated.all() and infos["final_info"]["action_mask"].shape == (2, 5)
    assert infos["final_info"]["action_mask"].any(axis=1).all() and not infos["final_info"]["action_mask"].all()


def test_top_k_passes_the_checks_and_trains():
    env = TopKActions(gym.make("TextGen-v0"), bigram_model(), k=8)
    sb3_check_env(env)
    policy_kwargs = {
        "features_extractor_class": PerformerExtractor,
        "features_extractor_kwargs": {"features_dim": 16, "n_layers": 1, "n_heads": 2},
    }
    PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, policy_kwargs=policy_kwargs, device="cpu").learn(32)


# ---------------------------------------------------------------------- Gymnasium's own wrappers


def test_time_limit_and_statistics_on_the_single_environment():
    env = RecordEpisodeStatistics(TimeLimit(gym.make("TextGen/Copy-v0"), 3))
    observation, _ = env.reset(seed=0)
    results = [env.step(observation[step]) for step in range(3)]
    assert [result[3] for result in results] == [False, False, True] and not any(result[2] for result in results)
    assert results[-1][4]["episode"]["l"] == 3 and results[-1][4]["episode"]["r"] == pytest.approx(3 / 7)
    assert gym.make("TextGen/Copy-v0", max_episode_steps=2).spec.max_episode_steps == 2


def test_videos(tmp_path):
    env = RecordVideo(gym.make("TextGen/Copy-v0", render_mode="rgb_array", length=2), str(tmp_path / "videos"))
    env.reset(seed=0)
    while not env.step(0)[2]:
        pass
    env.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video.stat().st_size > 500


def test_gymnasiums_wrappers_on_the_batched_environment():
    envs = gym.make_vec("TextGen/Copy-v0", num_envs=3, length=2, vocab_size=3)
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    envs = gym.wrappers.vector.TransformReward(envs, lambda reward: 10 * reward)
    observations, _ = envs.reset(seed=0)
    prompts = observations[:, :2].copy()
    for step in range(2):
        _, rewards, terminated, *_ = envs.step(prompts[:, step])
        assert rewards == pytest.approx(np.full(3, 10 / 3)) and not terminated.any()
    _, _, terminated, _, infos = envs.step(np.full(3, 3))
    assert terminated.all()
    assert infos["episode"]["r"] == pytest.approx(np.ones(3)) and infos["episode"]["l"].tolist() == [3, 3, 3]
    normal = gym.wrappers.vector.DictInfoToList(gym.make_vec("TextGen/Copy-v0", num_envs=2))
    _, infos = normal.reset(seed=0)
    assert len(infos) == 2 and infos[0]["action_mask"].shape == (16,)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StringObservation(gym.make("CartPole-v1")), "env must be a TextGym environment, got"),
        (lambda: StringObservation(gym.make("TextGen-v0"), 0), "max_length must be at least 1 or None, got 0"),
        (lambda: TokenizeObservation(gym.make("CartPole-v1")), "env must observe a Text, or a Dict that holds one"),
        (lambda: TokenizeObservation(Signpost(), keys=["a"]), "keys must be None for a Text observation"),
        (lambda: TokenizeObservation(Signpost(True), keys=["a"]), r"keys must be some of \['gauge', 'sign'\]"),
        (lambda: TokenizeObservation(Signpost(), keep="middle"), "keep must be 'end' or 'start', got 'middle'"),
        (lambda: TokenizeObservation(Signpost(), context_length=0), "context_length must be an integer of at least 1"),
        (lambda: TopKActions(gym.make("TextGen-v0"), bigram_model(), 1), "k must be an integer of at least 2, got 1"),
        (lambda: TopKActions(gym.make("TextGen/Copy-v0"), bigram_model(), 17), "k must be at most the 16 actions"),
        (lambda: TopKActions(gym.make("TextGen-v0"), "gpt2", 5), "language_model must have vocab_size, log_probs"),
        (
            lambda: VectorTopKActions(gym.make_vec("CartPole-v1", num_envs=2), bigram_model(), 2),
            "env must be a batched TextGym environment",
        ),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_wrong_actions_under_top_k():
    env = TopKActions(gym.make("TextGen-v0"), bigram_model(), 5)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must be one integer in \[0, 5\), got 5"):
        env.step(5)
    envs = VectorTopKActions(gym.make_vec("TextGen-v0", num_envs=2), bigram_model(), 5)
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.array([0, 0]))
    envs.reset(seed=0)
    for actions in ([0, 5], [-1, 0], [0], [0.5, 0.0]):
        with pytest.raises(ValueError, match=r"actions must be 2 integers in \[0, 5\), got"):
            envs.step(np.array(actions))
