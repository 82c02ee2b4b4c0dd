"""`pointsman simulate-routing`: how well the router chooses, beside other ways, where the truth is known.

`parameters` states the world; `world` and `troubles` draw one week of it from a seed; `play` sends its payments
through one policy; `circuits` is the breaker that all policies share; `plain_policies`, `learning_policies` and
`own_policy` choose; `runs` plays many seeds in several processes; `table` says what came of it.
"""
