"""Defaults on token sequences, what switches them off, and runs from before them."""

from agents import DoubleDQN, make_vec_env
from agents.double_dqn.defaults import as_before, default_batch_size

SMALL = {"features_dim": 16, "n_heads": 2}


def made(**kwargs) -> DoubleDQN:
    env = make_vec_env("TextGen/Reverse-v0", n_envs=8, seed=0, env_kwargs={"length": 2, "vocab_size": 4})
    return DoubleDQN("PerformerPolicy", env, seed=0, device="cpu", **{"policy_kwargs": SMALL, **kwargs})


def test_defaults_on_sequences_and_what_switches_them_off():
    model = made()
    assert (model.current_q_lambda, model.priority_beta, model.priority_beta_final, model.keep_best) == (
        0.9,
        0.0,
        0.0,
        True,
    )
    model.learn(640)
    assert model.current_q_lambda == 0.0
    encoder = model.policy.q_net.encoder
    assert len(encoder.performer.net.layers) == 1 and len(encoder.previous_embeddings) == 1
    given = made(
        policy_kwargs={**SMALL, "features_extractor_kwargs": {"n_layers": 2}, "n_gram": 1}
    ).policy.q_net.encoder
    assert len(given.performer.net.layers) == 2 and not given.previous_embeddings
    for kwargs in ({"n_steps": 3}, {"lower_bound": True}):
        assert made(**kwargs).q_lambda is None
    assert made(q_lambda=0.0).q_lambda == 0.0


def test_runs_from_before_are_resumed_as_they_were():
    old = {"q_lambda": None, "n_steps": 1, "exploration": "ucb", "exploration_kwargs": None, "policy_kwargs": None}
    assert as_before(old) == {
        **{"n_steps": 1, "exploration": "ucb", "exploration_kwargs": {"coefficient": 0.02}, "q_lambda": 0.0},
        **{"policy_kwargs": {"n_layers": 2, "n_gram": 1}, "loss": "huber", "keep_best": False, "best_share": 0.0},
        **{"priority_beta_final": 1.0, "self_imitation": False},
    }
    kept = as_before(old | {"n_steps": 3, "exploration": "epsilon", "policy_kwargs": {"n_layers": 3}})
    assert (kept["q_lambda"], kept["exploration_kwargs"], kept["policy_kwargs"]) == (
        None,
        None,
        {"n_layers": 3, "n_gram": 1},
    )
    newer = {"loss": None, "q_lambda": None}
    assert as_before(newer) == newer | {"self_imitation": False}
    assert as_before(newer | {"self_imitation": True}) == newer | {"self_imitation": True}


def test_an_update_reads_about_as_many_tokens_whatever_the_context():
    assert [default_batch_size(length) for length in (5, 14, 28, 84, 4_096)] == [64, 64, 36, 16, 16]
    assert made().batch_size == 64 and made(batch_size=7).batch_size == 7
    assert DoubleDQN("PerformerPolicy", "TextGen/Hangman-v0", policy_kwargs=SMALL).batch_size == 16
