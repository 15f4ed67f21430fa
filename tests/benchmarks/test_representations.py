"""The benchmark of representations: what needs no large encoder."""

import numpy as np

from benchmarks.representations import measure_autoencoder
from benchmarks.sentences import normalised


def test_what_is_left_in_fewer_dimensions():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(150, 3)) @ random.normal(size=(3, 12))  # of three dimensions alone
    rows = measure_autoencoder(normalised(vectors.astype(np.float32)), (2, 6), epochs=2)
    methods = ["principal components", "autoencoder, reconstruction alone", "autoencoder"]
    assert [(row["dimensions"], row["method"]) for row in rows] == [(d, m) for d in (2, 6) for m in methods]
    by_name = {(row["dimensions"], row["method"]): row for row in rows}
    enough = by_name[6, "principal components"]
    assert enough["unexplained"] < 0.1 and enough["recall@10"] > 0.9 and enough["memory saved"] == 0.5
    assert all(0 <= row["recall@10"] <= min(1, enough["recall@10"] + 0.02) for row in rows)
