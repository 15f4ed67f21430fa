"""Measurements that anyone can rerun: learning runs against other agents, learning curves, speed and memory.

``sweep.py`` says what is compared and is data only; ``baselines.py`` builds the agents; ``run.py`` runs each cell in a
process of its own and keeps its result; ``figures.py`` draws; ``throughput.py`` and ``attention.py`` time.
"""
