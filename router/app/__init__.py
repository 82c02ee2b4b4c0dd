"""The composition root: the only place that names concrete adapters, and that builds anything.

`core` makes what every process needs; `web` and `loops` put the web and the worker on top.
Call them in the process that uses them: pooled connections and flag streams do not survive a fork.
"""
