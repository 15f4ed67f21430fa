"""When compressing what an agent reads pays: ``python -m benchmarks.representations [pruning|autoencoder|cache]``.

Real sentences and a real sentence encoder of 22 million parameters (see ``benchmarks/sentences.py``); everything in one
process on one thread. Timed contestants take turns, and of each the fastest repeat counts. Seconds are those of the
processor, so that whatever else runs on the machine is not counted; on one thread that is the time on a quiet core.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import spearmanr
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecEnv

from agents.pruning.pruned_transformer import PrunedTransformer
from agents.representations.embed_observation import VectorEmbedObservation
from agents.representations.embedding_extractor import StateEmbeddingExtractor
from agents.representations.state_autoencoder import StateAutoEncoder
from agents.representations.state_embedding import PretrainedEmbedding
from agents.saving.json_lines import append
from agents.vec_env import TextGenVecEnv
from benchmarks.comparison import print_table
from benchmarks.sentences import ENCODER_PACKAGE, embedded, normalised, sentence_encoder, stdlib_sentences
from textgym import TextGenVectorEnv

app = typer.Typer(help="When compressing what an agent reads pays.", add_completion=False, no_args_is_help=True)
Row = dict[str, Any]
Out = Annotated[Path, typer.Option(help="File of the results, JSON lines.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer sentences and steps: to see that it runs.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes of the autoencoder through the sentences.")]
RESULTS = Path("results/representations.jsonl")
SPARSITIES = (0.3, 0.5, 0.7)
SPEED_BAR, RECALL_BAR, CACHE_BAR = 1.5, 0.6, 10.0
NEIGHBOURS = 10
LEARNING_STARTS = 32


@app.command()
def pruning(out: Out = RESULTS, quick: Quick = False) -> None:
    """How far a pruned encoder's embeddings are from the whole one's, and how fast it is."""
    torch.set_num_threads(1)
    sentences = stdlib_sentences(32 if quick else 256)
    rows = measure_pruning(sentences, SPARSITIES[:1] if quick else SPARSITIES, repeats=1 if quick else 4)
    _finish("pruning", out, rows, {"sentences": len(sentences), "speed_bar": SPEED_BAR})


def measure_pruning(sentences: list[str], sparsities: tuple[float, ...], repeats: int) -> list[Row]:
    """Prune the encoder in every way, compare embeddings with the whole one's and time 32 of the sentences."""
    settings: list[tuple[str, Row]] = [("whole", {})]
    for sparsity in sparsities:
        settings += [
            ("weights, global", {"method": "magnitude", "scope": "global", "sparsity": sparsity}),
            ("weights, layer", {"method": "magnitude", "scope": "layer", "sparsity": sparsity}),
            ("heads and neurons, layer", {"method": "structured", "scope": "layer", "sparsity": sparsity}),
        ]
    half = {"method": "structured", "scope": "layer", "ffn_sparsity": 0.5, "head_sparsity": 1 / 3}
    settings.append(("half the neurons, a third of the heads", half))
    encoders: list[PretrainedEmbedding] = []
    rows: list[Row] = []
    for name, arguments in settings:
        embedding = sentence_encoder()
        pruned = PrunedTransformer(embedding.model, **arguments).make_permanent()
        encoders.append(embedding)
        vectors = normalised(embedding.embed(sentences))
        if not rows:
            whole = vectors
        rows.append(
            {
                "pruned": name,
                "sparsity": round(pruned.report().sparsity, 4),
                "million parameters": sum(p.numel() for p in embedding.model.parameters()) / 1e6,
                "cosine": float((vectors * whole).sum(axis=1).mean()),
                "spearman": _rank_agreement(vectors, whole),
            }
        )
    timed: dict[Any, Callable[[], object]] = {
        index: lambda encoder=encoder: encoder.embed(sentences[:32])  # type: ignore[misc]
        for index, encoder in enumerate(encoders)
        # Masked weights are dense matrices like any other: one stands for all.
        if index == 0 or rows[index]["million parameters"] < rows[0]["million parameters"] or index == 1
    }
    seconds = _fastest(timed, repeats)
    for index, row in enumerate(rows):
        took = seconds.get(index)
        row |= {"ms for 32": took and 1e3 * took, "speedup": took and seconds[0] / took}
    return rows


@app.command()
def autoencoder(out: Out = RESULTS, quick: Quick = False, epochs: Epochs = 20) -> None:
    """What is left of embeddings in fewer dimensions, beside principal components of the same number."""
    torch.set_num_threads(1)
    vectors = embedded(stdlib_sentences(600 if quick else 8000))
    rows = measure_autoencoder(vectors, (8, 32) if quick else (8, 16, 32, 64), 5 if quick else epochs)
    facts = {"sentences": len(vectors), "epochs": 5 if quick else epochs, "recall_bar": RECALL_BAR}
    _finish("autoencoder", out, rows, facts)


def measure_autoencoder(vectors: NDArray[np.float32], latent_dims: tuple[int, ...], epochs: int) -> list[Row]:
    """Compress vectors and look for the neighbours of a tenth that was not learned from, among all of them."""
    n_queries = len(vectors) // 10
    train = vectors[n_queries:]
    mean = train.mean(axis=0)
    _, _, directions = np.linalg.svd(train - mean, full_matrices=False)
    neighbours = _neighbours(vectors, n_queries)
    variance = float(((vectors[:n_queries] - mean) ** 2).mean())
    rows: list[Row] = []
    for latent_dim in latent_dims:
        components = directions[:latent_dim]
        codes = {"principal components": (vectors - mean) @ components.T}
        decoded = {"principal components": codes["principal components"] @ components + mean}
        seconds = {"principal components": 0.0}
        for name, weight in (("autoencoder, reconstruction alone", 0.0), ("autoencoder", 1.0)):
            start = time.process_time()
            model = StateAutoEncoder(vectors.shape[1], latent_dim, neighbour_weight=weight)
            model.fit(train, epochs=epochs)
            seconds[name] = time.process_time() - start
            with torch.no_grad():
                code = model.encode(torch.from_numpy(vectors))
                codes[name], decoded[name] = code.numpy(), model.decode(code).numpy()
        for name, code_vectors in codes.items():
            error = float(((decoded[name] - vectors)[:n_queries] ** 2).mean()) / variance
            found = _neighbours(normalised(code_vectors), n_queries)
            recall = np.mean([len(np.intersect1d(*pair)) for pair in zip(neighbours, found, strict=True)]) / NEIGHBOURS
            rows.append(
                {
                    "dimensions": latent_dim,
                    "method": name,
                    "unexplained": error,
                    f"recall@{NEIGHBOURS}": float(recall),
                    "memory saved": 1 - latent_dim / vectors.shape[1],
                    "seconds": seconds[name],
                }
            )
    return rows


@app.command()
def cache(out: Out = RESULTS, quick: Quick = False) -> None:
    """Steps a second of DQN on Classify with the encoder in its network or before it, and whether it learns."""
    torch.set_num_threads(1)
    rows = measure_cache(*((64, 256) if quick else (64, 2_048)))
    _finish("cache", out, rows, {"speedup_bar": CACHE_BAR})


def measure_cache(uncached_steps: int, cached_steps: int) -> list[Row]:
    """Train DQN in each way from an empty cache; the last eighth of the steps is timed on its own as well.

    Args:
        uncached_steps: Environment steps without a cache, which are slow.
        cached_steps: Environment steps with one.
    """
    encoder = sentence_encoder()
    rows: list[Row] = []
    for name, steps, cache_size in (
        ("in network", uncached_steps, 0),
        ("in network, cached", cached_steps, 65_536),
        ("observed, no last texts", cached_steps, 65_536),
    ):
        torch.manual_seed(0)
        envs = TextGenVectorEnv(8, "classify")
        embedding = PretrainedEmbedding(
            encoder.model, encoder.tokenizer, decode=envs.task.decode, cache_size=cache_size
        )
        policy: dict[str, Any] = {"net_arch": [64]}
        if name.startswith("in network"):
            env: VecEnv = TextGenVecEnv(envs)
            policy |= {
                "features_extractor_class": StateEmbeddingExtractor,
                "features_extractor_kwargs": {"embedding": embedding},
            }
        else:
            terminal = "no last" not in name
            env = TextGenVecEnv(VectorEmbedObservation(envs, embedding, terminal))  # type: ignore[arg-type]
        env.seed(0)
        model = DQN(
            "MlpPolicy",
            env,
            learning_rate=1e-3,
            buffer_size=cached_steps,
            learning_starts=LEARNING_STARTS,
            train_freq=1,
            gradient_steps=2,
            policy_kwargs=policy,
            seed=0,
            device="cpu",
        )
        model.learn(LEARNING_STARTS + 8, reset_num_timesteps=False)  # not timed: before that there is no training
        seconds = [_seconds(model, part) for part in (steps * 7 // 8, steps // 8)]
        buffer = model.replay_buffer
        assert buffer is not None
        stored = buffer.observations.nbytes + getattr(buffer, "next_observations", buffer.observations).nbytes
        looked_up = embedding.cache.hits + embedding.cache.misses
        rows.append(
            {
                "embedding": name,
                "steps": steps,
                "steps/s": (steps * 7 // 8 + steps // 8) / sum(seconds),
                "at the end": steps // 8 / seconds[1],
                "hits": embedding.cache.hits / looked_up,
                "cache MB": embedding.cache.nbytes / 1e6,
                "replay MB": stored / 1e6,
                "reward at the end": float(np.mean([episode["r"] for episode in model.ep_info_buffer or ()])),
            }
        )
    for row in rows:
        row["speedup"] = row["steps/s"] / rows[0]["steps/s"]
        row["speedup at the end"] = row["at the end"] / rows[0]["at the end"]
    return rows


def _seconds(model: DQN, steps: int) -> float:
    start = time.process_time()
    model.learn(steps, reset_num_timesteps=False)
    return time.process_time() - start


def _fastest(contestants: dict[Any, Callable[[], object]], repeats: int) -> dict[Any, float]:
    """Fewest seconds of the processor that each contestant took; they take turns, after one to warm up."""
    best = dict.fromkeys(contestants, np.inf)
    for repeat in range(repeats + 1):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            if repeat:
                best[name] = min(best[name], time.process_time() - start)
    return best


def _rank_agreement(vectors: NDArray[np.float32], whole: NDArray[np.float32]) -> float:
    pairs = np.triu_indices(len(vectors), k=1)
    return float(spearmanr((vectors @ vectors.T)[pairs], (whole @ whole.T)[pairs]).statistic)


def _neighbours(vectors: NDArray[np.float32], n_queries: int) -> NDArray[np.int64]:
    """The nearest other vectors of each query, by cosine, (n_queries, NEIGHBOURS), in no order."""
    similarities = vectors[:n_queries] @ vectors.T
    np.fill_diagonal(similarities, -np.inf)
    return np.argpartition(-similarities, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def _finish(name: str, out: Path, rows: list[Row], facts: Row) -> None:
    """Print the table and add it to the file."""
    print_table(f"{name}, one thread", rows)
    machine = {"platform": platform.platform(), "torch": torch.__version__, "threads": 1}
    append(out, {"name": name, "machine": machine, "encoder": ENCODER_PACKAGE, **facts, "rows": rows})
    Console().print(f"wrote {out}", soft_wrap=True)


if __name__ == "__main__":
    app()
