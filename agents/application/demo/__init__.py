"""``textgym demo``: a local page to play tasks on, to watch agents write, and to steer a language model.

What the page says is made by pure functions: :mod:`~agents.application.demo.game`,
:mod:`~agents.application.demo.watch`, :mod:`~agents.application.demo.steer` and
:mod:`~agents.application.demo.views`. The layout is :mod:`~agents.application.demo.page`.
"""
