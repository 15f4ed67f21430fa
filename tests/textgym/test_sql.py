import time

import numpy as np
import pytest

import textgym
from textgym.tasks.sql import Sql, score_query
from textgym.tasks.sql_questions import answers, databases, questions
from textgym.tasks.sql_sandbox import MAX_ROWS, ReadOnlyDatabase


@pytest.fixture
def database():
    rows = [("rex", 3), ("kit", 5), ("bo", 9), *((f"pet{number}", number) for number in range(20))]
    return ReadOnlyDatabase({"pets": ([("name", "TEXT"), ("age", "INTEGER")], rows)})


def test_reads(database):
    assert database.execute("SELECT name FROM pets WHERE age = 5 ORDER BY name") == (("kit",), ("pet5",))
    assert database.execute("select count(*) from pets") == ((23,),)
    assert database.execute("SELECT round(avg(age), 1) FROM (SELECT age FROM pets WHERE age < 2)") == ((0.5,),)
    assert database.execute("WITH old AS (SELECT * FROM pets WHERE age > 18) SELECT name FROM old") == (("pet19",),)


def nested(expression, depth):
    """A query whose expressions, written into one another, have ``4 ** depth`` terms."""
    query = "SELECT name AS a FROM pets"
    for _ in range(depth):
        query = f"SELECT {expression} AS a FROM ({query})"
    return query


def balanced(name, terms):
    """A sum that is wide and not deep."""
    if terms == 1:
        return name
    return f"({balanced(name, terms // 2)}+{balanced(name, terms - terms // 2)})"


HOSTILE = {
    "insert": "INSERT INTO pets VALUES ('x', 1)",
    "update": "UPDATE pets SET age = 0",
    "delete": "DELETE FROM pets",
    "drop": "DROP TABLE pets",
    "create": "CREATE TABLE x (y)",
    "temporary table": "CREATE TEMP TABLE x (y)",
    "attach": "ATTACH 'stolen.db' AS x",
    "attach in memory": "ATTACH ':memory:' AS x",
    "pragma": "PRAGMA query_only = OFF",
    "pragma function": "SELECT * FROM pragma_database_list",
    "schema": "SELECT sql FROM sqlite_master",
    "vacuum into": "VACUUM INTO 'stolen.db'",
    "transaction": "BEGIN EXCLUSIVE",
    "two statements": "SELECT 1; DROP TABLE pets",
    "extension": "SELECT load_extension('evil')",
    "file": "SELECT readfile('/etc/passwd')",
    "blob bomb": "SELECT zeroblob(1000000000)",
    "format bomb": "SELECT printf('%1000000000d', 1)",
    "like bomb": "SELECT name FROM pets WHERE name LIKE '" + "%a" * 500 + "'",
    "endless loop": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
    "cross join": "SELECT count(*) FROM " + ", ".join(f"pets p{number}" for number in range(12)),
    "sorted cross join": "SELECT count(*) FROM (SELECT a.age FROM pets a, pets b, pets c, pets d, pets e ORDER BY 1)",
    "nested expressions": nested("a||a||a||a", 12),
    "nested twice": "SELECT {1} b FROM (SELECT {0} a FROM pets) WHERE {2}".format(
        *(balanced(name, 25) for name in ("age", "a", "b"))
    ),
    "chained expressions": f"WITH b AS (SELECT {balanced('age', 40)} AS a FROM pets) SELECT {balanced('a', 40)} FROM b",
    "deep": "SELECT " + "(" * 500 + "1" + ")" * 500,
    "deep sum": "SELECT " + "+".join(["1"] * 200),
    "many selects": " UNION ALL ".join(["SELECT 1"] * 100),
    "megabyte": "SELECT '" + "a" * 1_000_000 + "'",
    "null character": "SELECT 1\x00",
    "surrogate": "SELECT '\ud800'",
    "bad text": "SELECT CAST(x'ff' AS TEXT)",
    "control characters": "\x1b[2J\x07",
    "parameter": "SELECT ?",
    "overflow": "SELECT sum(9223372036854775807) FROM pets",
    "empty": "",
    "comment": "-- nothing",
}


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE)
def test_hostile_queries_are_refused_in_time(database, query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"^query"):
        database.execute(query)
    assert time.perf_counter() - start < 0.25
    assert database.execute("SELECT count(*), sum(age) FROM pets") == ((23, 207),)
    assert not list(tmp_path.iterdir())
    assert score_query(query, "SELECT name FROM pets") == 0


def test_values_cannot_grow_without_limit():
    database = ReadOnlyDatabase({"texts": ([("a", "TEXT")], [("x" * 1_000,)])})
    assert database.execute("SELECT length(a || a || a) FROM texts") == ((3_000,),)
    with pytest.raises(ValueError, match="too big"):
        database.execute(f"SELECT length({'||'.join(['a'] * 20)}) FROM texts")


def test_answers_are_cached_and_so_are_refusals(database):
    query = "SELECT count(*) FROM pets a, pets b, pets c WHERE a.age + b.age > c.age"
    database.execute(query)
    start = time.perf_counter()
    for _ in range(100):
        database.execute(query)
        with pytest.raises(ValueError, match="no such column"):
            database.execute("SELECT colour FROM pets")
    assert time.perf_counter() - start < 0.05
    assert database._answer.cache_info().misses == 2


def test_row_limit(database):
    query = f"SELECT a.age FROM pets a, pets b LIMIT {MAX_ROWS}"
    assert len(database.execute(query)) == MAX_ROWS
    with pytest.raises(ValueError, match=f"more than {MAX_ROWS} rows"):
        database.execute("SELECT a.age FROM pets a, pets b")


def test_score_by_hand():
    reference = "SELECT name FROM pets WHERE kind = 'cat'"
    right = answers(reference)
    assert score_query(reference, reference) == 1
    assert score_query("SELECT name FROM pets WHERE NOT kind <> 'cat' ORDER BY age DESC", reference) == 1
    everything = score_query("SELECT name FROM pets", reference)
    overlap = np.mean([2 * len(rows) / (len(rows) + 12) for rows in right])
    assert everything == pytest.approx(0.1 + 0.4 * overlap)
    assert score_query("SELECT age FROM pets", reference) == pytest.approx(0.1)
    assert score_query("SELECT FROM", reference) == 0
    # Rows count as often as they occur.
    assert 0.1 < score_query("SELECT DISTINCT kind FROM pets", "SELECT kind FROM pets") < 0.5
    with pytest.raises(ValueError, match="reference must be a query that executes"):
        score_query("SELECT 1", "DROP TABLE pets")


def test_averages_are_compared_as_numbers():
    assert score_query("SELECT SUM(age) * 1.0 / COUNT(*) FROM pets", "SELECT AVG(age) FROM pets") == 1


def test_a_wrong_query_is_right_by_accident_on_fewer_than_all_databases():
    """What the second and third database are for."""
    reference, wrong = "SELECT name FROM pets ORDER BY age DESC LIMIT 1", "SELECT name FROM pets ORDER BY name LIMIT 1"
    agreed = [database.execute(reference) == database.execute(wrong) for database in databases()]
    assert not all(agreed)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_question_is_answered_by_its_query(level):
    texts = set()
    for template in questions(level):
        assert template
        for words, tokens in template:
            returned = answers(" ".join(tokens))
            assert returned is not None and all(returned)
            texts.add(" ".join(words))
    assert len(texts) == sum(map(len, questions(level)))


def test_levels_are_drawn_evenly():
    envs = textgym.TextGenVectorEnv(6000, "sql", levels=[1, 2])
    envs.reset(seed=0)
    question = envs.episodes.columns["question"]
    n_first = sum(map(len, questions(1)))
    assert abs((question < n_first).mean() - 0.5) < 0.03


def test_prompt_and_reward_through_the_environment():
    env = textgym.TextGenEnv("sql", levels=[1])
    observation, _ = env.reset(seed=0)
    prompt = env.task.decode(observation)
    assert prompt.endswith("<sep>") and ("people" in prompt) != ("pets" in prompt)
    table = "people" if "people" in prompt else "pets"
    ids = {env.task.token_text(token): token for token in range(env.task.vocab_size)}
    for token in ("SELECT", "COUNT", "(", "*", ")", "FROM", table):
        assert env.step(ids[token])[1] == 0
    _, reward, terminated, _, _ = env.step(ids["<eos>"])
    assert terminated and reward == pytest.approx(1.0 if prompt.startswith("count") else 0.1)


def test_mask_by_hand():
    env = textgym.TextGenEnv("sql", masked=True)
    env.reset(seed=0)
    task = env.task
    ids = {task.token_text(token): token for token in range(task.vocab_size)}

    def legal():
        return {task.token_text(token) for token in np.flatnonzero(env.action_masks())}

    columns = {"name", "city", "kind", "age", "pay", "weight"}
    assert legal() == {"SELECT"}
    env.step(ids["SELECT"])
    assert legal() == {"DISTINCT", "*", "COUNT", "AVG", "SUM", "MIN", "MAX", *columns}
    env.step(ids["name"])
    assert legal() == {",", "FROM"}
    env.step(ids["FROM"])
    assert legal() == {"people", "pets"}
    env.step(ids["pets"])
    assert legal() == {"WHERE", "GROUP BY", "ORDER BY", "LIMIT", "<eos>"}


def test_masked_play_always_fits_the_budget_and_often_executes():
    envs = textgym.TextGenVectorEnv(64, "sql", levels=[1, 2, 3], masked=True)
    envs.reset(seed=0)
    generator, scores = np.random.default_rng(0), []
    for _ in range(80):
        masks = envs.action_masks()
        actions = np.where(masks, generator.random(masks.shape), -1).argmax(axis=1)
        _, rewards, terminated, _, infos = envs.step(actions)
        scores += rewards[terminated].tolist()
        if terminated.any():
            final = infos["final_obs"][terminated]
            assert (final == envs.task.eos_id).any(axis=1).all()  # never cut off
    assert np.mean(np.array(scores) > 0) > 0.2  # the rest name a column of the other table


@pytest.mark.parametrize("levels", [[], [4], "12", 1, [1, [2]]])
def test_bad_arguments(levels):
    with pytest.raises(ValueError, match="levels must be a non-empty list of 1, 2 and 3, got"):
        Sql(levels=levels)
