"""The parts of :mod:`agents.hyperparam_opt`, which is the module to import.

Data flow: ``space`` says what may be chosen, ``samplers`` choose the next point from the trials so far, ``parallel``
runs the objective on it (``stopping`` may end that early), ``records`` keeps every run, and ``study`` is the loop.
``objective`` is the built-in objective, ``figures`` draw a study, ``command`` is the work behind ``textgym tune``.
"""
