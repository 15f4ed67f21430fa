"""TRL's ``rollout_func``: the tokens that the model sampled, on every id, and in TRL's own trainer (extra ``trl``)."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from tests.textgym.test_text_steps import BASE, native_turns
from textgym.adapters import TokenRollouts
from textgym.adapters.conversations import ChatTokens, play
from textgym.adapters.sampling import sampler

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(template=TEMPLATE):
    """One that knows all text, and the pair "ab" beside its letters: a text has several tokenizations."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE({**vocabulary, "ab": len(vocabulary)}, [("a", "b")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in ("<|im_start|>", "<|im_end|>", "<|pad|>")])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    wrapped.chat_template = template
    return wrapped


def tiny_model(tokenizer, positions=2048, writes=None):
    """One of random weights, which writes ``writes`` and the end of a message, or anything."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "max_position_embeddings": positions, "initializer_range": 0.2},
        **{"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        if writes is not None:
            bias = torch.full((len(tokenizer),), -100.0)
            bias[tokenizer.convert_tokens_to_ids([*writes, tokenizer.eos_token])] = 0.0
            model.lm_head.bias = torch.nn.Parameter(bias)
    return model


def writer_of(rows_of_ids):
    """Writes given messages, one for each row and turn, as a model would that had sampled them."""
    turns = iter(rows_of_ids)

    def write(rows, limit):
        return [(ids, [-1.0] * len(ids)) for ids in next(turns)]

    return write


@pytest.mark.parametrize("env_id", BASE)
def test_every_task_pays_what_the_environment_pays(env_id):
    tokenizer = byte_tokenizer()
    chat, rollouts = ChatTokens(tokenizer), TokenRollouts(env_id)
    for seed in range(3):
        task, turns, tokens = native_turns(env_id, seed, oracle=False)
        messages = [task.decode(np.array(actions)) for actions, _, _ in turns]
        given_up = rollouts._steps.takes_turns and turns[-1][0][-1] == task.eos_id and messages[-1]
        ids = [[tokenizer.encode(f"{message}<|im_end|>")] for message in messages + [""] * bool(given_up)]
        (one,) = rollouts.begin([rollouts.prompt(seed)], chat)
        assert one.prompt_ids == tokenizer.apply_chat_template(
            [{"role": "user", "content": rollouts.prompt(seed)[0]["content"]}],
            add_generation_prompt=True,
            return_dict=False,
        )
        play([one], writer_of(ids), chat, 100_000)
        assert one.over and one.steps.info["tokens"].tolist() == tokens.tolist()
        assert one.episode_return == sum(total for _, _, total in turns)
        assert one.n_actions == sum(len(actions) for actions, _, _ in turns)
        written = [token for token, own in zip(one.completion_ids, one.env_mask, strict=True) if own]
        assert written == [token for ((message),) in ids for token in message]
        assert {own for own, log_p in zip(one.env_mask, one.logprobs, strict=True) if log_p == 0.0} <= {0}


def test_ids_are_kept_as_they_were_sampled():
    tokenizer = byte_tokenizer()
    a, b, pair = tokenizer.convert_tokens_to_ids(["a", "b", "ab"])
    end = tokenizer.eos_token_id
    assert tokenizer.encode("ab") == [pair] and tokenizer.decode([a, b]) == "ab"
    rollouts = TokenRollouts("TextGen/Hangman-v0")
    chat = ChatTokens(tokenizer)
    group = rollouts.begin([rollouts.prompt(0)] * 2, chat)
    turns = [[[a, b, end], [pair, end]], *([[a, end]] * 2 for _ in range(20))]
    play(group, writer_of(turns), chat, 100_000)
    assert group[0].completion_ids[:3] == [a, b, end] and group[1].completion_ids[:2] == [pair, end]
    assert group[0].texts == group[1].texts and group[0].episode_return == group[1].episode_return
    # What follows a message is appended: the rest of the conversation is the same.
    assert group[0].completion_ids[3:] == group[1].completion_ids[2:]
    assert tokenizer.encode(tokenizer.decode(group[0].completion_ids)) != group[0].completion_ids


def test_a_conversation_is_what_the_template_makes_of_it():
    tokenizer = byte_tokenizer()
    rollouts, chat = TokenRollouts("TextGen/GuessNumber-v0"), ChatTokens(tokenizer)
    (one,) = rollouts.begin([rollouts.prompt(3)], chat)
    turns = [[tokenizer.encode(f"{guess}<|im_end|>")] for guess in ("5 0", "2 5", "7 5", "1 2 3 4 5 6 7 8 9 0 1 2 3 4")]
    play([one], writer_of(turns), chat, 100_000)
    *turns, _ = one.texts if one.texts[-1].startswith("<") else [*one.texts, ""]
    roles = [{"role": ("assistant", "user")[place % 2], "content": text} for place, text in enumerate(turns)]
    whole = tokenizer.apply_chat_template([*rollouts.prompt(3), *roles], tokenize=False)
    assert tokenizer.decode(one.prompt_ids + one.completion_ids) == whole.rstrip("\n")
    theirs = [token for token, own in zip(one.completion_ids, one.env_mask, strict=True) if not own]
    assert tokenizer.decode(theirs).count("<|im_start|>user\n") == len(turns) // 2


def test_a_message_that_is_cut_off_is_ended_by_the_environment():
    tokenizer = byte_tokenizer()
    a, end = tokenizer.convert_tokens_to_ids("a"), tokenizer.eos_token_id
    chat = ChatTokens(tokenizer)
    assert chat.reply("x", last=a)[0] == end and chat.reply("x", last=a)[1:] == chat.reply("x", last=end)
    plain = ChatTokens(byte_tokenizer(template=None))
    assert tokenizer.decode(plain.reply("x", last=a)) == "\nx\n"
    assert tokenizer.decode(plain.prompt([{"role": "user", "content": "one", "seed": 3}])) == "one\n"
    rollouts = TokenRollouts("TextGen/Hangman-v0")
    (one,) = rollouts.begin([rollouts.prompt(0)], chat)
    budget = 3 + len(chat.reply("_ _ _ _", last=a))
    play([one], writer_of([[[a] * 50]] * 9), chat, budget)
    assert len(one.completion_ids) <= budget and one.env_mask[-1] == 1  # the last is never a reply


@pytest.mark.parametrize(
    "settings", [{"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.8}, {"temperature": 1.5, "top_k": 5}]
)
def test_log_probabilities_are_those_of_the_draw(settings):
    tokenizer = byte_tokenizer()
    model = tiny_model(tokenizer).eval()
    rows = [tokenizer.encode("one"), tokenizer.encode("and another")]
    torch.manual_seed(3)
    config = GenerationConfig(do_sample=True, **{"top_k": 0, **settings})
    before = config.to_dict()
    written = sampler(model, config, tokenizer.pad_token_id, (tokenizer.eos_token_id,))(rows, 12)
    assert config.to_dict() == before
    for row, (ids, logprobs) in zip(rows, written, strict=True):
        assert len(ids) == len(logprobs) and (len(ids) == 12 or ids[-1] == tokenizer.eos_token_id)
        with torch.no_grad():
            logits = model(torch.tensor([row + ids])).logits[0, len(row) - 1 : -1] / settings["temperature"]
        if "top_k" in settings:
            logits[logits < logits.topk(5).values[:, -1:]] = -torch.inf
        if "top_p" in settings:
            ordered, places = logits.softmax(-1).sort(descending=True)
            gone = (ordered.cumsum(-1) - ordered) >= 0.8
            logits.scatter_(1, places, logits.gather(1, places).masked_fill(gone, -torch.inf))
        expected = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).squeeze(1)
        assert logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_group_of_eight_plays_one_episode_in_every_process():
    rollouts, chat = TokenRollouts("TextGen/Hangman-v0"), ChatTokens(byte_tokenizer())
    group = rollouts.begin([rollouts.prompt(11)] * 8, chat)
    first = {tuple(one.steps.info["tokens"].tolist()) for one in group}
    assert len(first) == 1 and len({tuple(one.prompt_ids) for one in group}) == 1
    assert len({one.add([1], [0.0], "e") for one in group}) == 1
    code = (
        "from tests.textgym.test_trl_rollouts import ChatTokens, TokenRollouts, byte_tokenizer\n"
        "rollouts = TokenRollouts('TextGen/Hangman-v0')\n"
        "(one,) = rollouts.begin([rollouts.prompt(11)], ChatTokens(byte_tokenizer()))\n"
        "begun = (one.steps.info['tokens'].tolist(), one.prompt_ids)\n"
        "print(repr((begun, one.add([1], [0.0], 'e'), one.episode_return)))"
    )
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    (again,) = rollouts.begin([rollouts.prompt(11)], chat)  # as after a restart
    begun = again.steps.info["tokens"].tolist(), again.prompt_ids
    answer = again.add([1], [0.0], "e")
    assert eval(there) == (begun, answer, again.episode_return) and tuple(begun[0]) in first


def test_misuse():
    rollouts = TokenRollouts("TextGen/Hangman-v0")
    chat = ChatTokens(byte_tokenizer())
    for prompt in ("text", [{"role": "user", "content": "x"}], [{"role": "user", "content": "x", "seed": -1}], None):
        with pytest.raises(ValueError, match="prompt must be messages of which one has a 'seed' of at least 0"):
            rollouts.begin([prompt], chat)
    with pytest.raises(ValueError, match="prompt must end with the prompt of the episode of seed 3"):
        rollouts.begin([[{"role": "user", "content": "x", "seed": 3}]], chat)
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        rollouts.dataset(0)
    with pytest.raises(ValueError, match="max_message_tokens must be an integer of at least 1, got 0"):
        TokenRollouts("TextGen/Hangman-v0", max_message_tokens=0)
    with pytest.raises(ValueError, match="id_or_task must be one of"):
        TokenRollouts("Nope-v0")
    nameless = byte_tokenizer()
    nameless.eos_token = None
    with pytest.raises(ValueError, match="tokenizer must have an EOS token"):
        ChatTokens(nameless)
    with pytest.raises(ValueError, match=r"context of 64 tokens is too short for a prompt of \d+ and 16 new ones"):
        play(rollouts.begin([rollouts.prompt(0)], chat), writer_of([]), chat, 16, context=64)


class TestTrainer:
    """TRL's own, on a model of random weights."""

    def trainer(self, tmp_path, rollouts, tokenizer, model=None, n=4, **config):
        trl = pytest.importorskip("trl", reason="TRL is not installed")
        arguments = trl.GRPOConfig(
            output_dir=str(tmp_path),
            **{"per_device_train_batch_size": 16, "num_generations": 8, "max_steps": 2},
            **{"use_cpu": True, "bf16": False, "report_to": [], "logging_steps": 1, "save_strategy": "no"},
            **{"max_completion_length": 256, **config},
        )
        return trl.GRPOTrainer(
            model=tiny_model(tokenizer, writes="abcde") if model is None else model,
            processing_class=tokenizer,
            args=arguments,
            train_dataset=rollouts.dataset(n),
            rollout_func=rollouts,
            reward_funcs=rollouts.episode_return,
        )

    @pytest.mark.parametrize(("env_id", "template"), [("TextGen/Hangman-v0", TEMPLATE), ("TextGen/Reverse-v0", None)])
    def test_it_trains(self, tmp_path, env_id, template):
        env_args = {"length": 2, "vocab_size": 5} if "Reverse" in env_id else {}
        tokenizer = byte_tokenizer(template)

        class Seen(TokenRollouts):
            calls: list

            def begin(self, prompts, chat):
                self.calls.append((prompts, super().begin(prompts, chat)))
                return self.calls[-1][1]

        rollouts = Seen(env_id, max_message_tokens=1, **env_args)
        rollouts.calls, rewarded = [], []
        trainer = self.trainer(tmp_path, rollouts, tokenizer)
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        ask = trainer._calculate_rewards
        trainer._calculate_rewards = lambda *given: rewarded.append((given, ask(*given))) or rewarded[-1][1]
        trainer.train()
        assert len(rollouts.calls) == len(rewarded) == 2
        for (prompts, played), ((inputs, _, _, completion_ids), rewards) in zip(rollouts.calls, rewarded, strict=True):
            assert len(prompts) == len(played) == 16
            for start in (0, 8):  # a group: one episode, and one first observation
                group = played[start : start + 8]
                assert len({one["seed"] for (one,) in prompts[start : start + 8]}) == 1
                assert len({tuple(one.prompt_ids) for one in group}) == 1
                assert len({tuple(one.texts) for one in group}) > 1
                assert len({one.episode_return for one in group}) > 1
            assert completion_ids == [one.completion_ids for one in played]
            assert rewards[:, 0].tolist() == pytest.approx([one.episode_return for one in played])
            for (message,), one, row in zip(prompts, played, inputs, strict=True):
                assert row["episode_return"] == one.episode_return == natively(env_id, message["seed"], one, **env_args)
        log = [entry for entry in trainer.state.log_history if "reward" in entry]
        assert len(log) == 2 and "rewards/episode_return/mean" in log[0]
        assert any(not torch.equal(old, new) for old, new in zip(before, trainer.model.parameters(), strict=True))

    def test_log_probabilities_are_those_that_the_trainer_finds(self, tmp_path):
        tokenizer = byte_tokenizer()
        rollouts = TokenRollouts("TextGen/Hangman-v0", max_message_tokens=1)
        trainer = self.trainer(tmp_path, rollouts, tokenizer, temperature=0.8)
        output = trainer._generate_and_score_completions([rollouts.dataset(2)[i // 8] for i in range(16)])
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        width = output["completion_ids"].shape[1]
        with torch.no_grad():
            found, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width)
        own = output["tool_mask"].bool() & output["completion_mask"].bool()
        assert own.any(dim=1).all() and not output["tool_mask"].all()
        torch.testing.assert_close(output["sampling_per_token_logps"][own], found[own], atol=1e-4, rtol=0)

    def test_vllm_and_a_context_that_is_too_short(self, tmp_path):
        tokenizer = byte_tokenizer()
        rollouts = TokenRollouts("TextGen/Reverse-v0")
        trainer = self.trainer(tmp_path, rollouts, tokenizer, tiny_model(tokenizer, positions=64))
        with pytest.raises(ValueError, match="context of 64 tokens is too short"):
            trainer.train()
        trainer.use_vllm = True
        with pytest.raises(ValueError, match="use_vllm must be False"):
            rollouts([rollouts.prompt(0)], trainer)


def natively(env_id, seed, played, **env_args):
    """What the tokens of a rollout earn in the environment itself."""
    assert played.refusal is None
    env = gym.make(env_id, **env_args)
    env.reset(seed=seed)
    tokens, own = played.steps.info["tokens"], played.steps.info["is_action"]
    total = 0.0
    for token in tokens[own]:
        total += env.step(int(token))[1]
    return total
