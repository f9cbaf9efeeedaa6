"""The table of all checks, in the order in which they run: what everything else rests on comes first."""
from checks import basics, kernels, oracles, peers, ranks, speed, training

ALL = [*basics.CHECKS, *kernels.CHECKS, *oracles.CHECKS, *training.CHECKS, *speed.CHECKS, *peers.EAGER, *speed.COUNTERS, *ranks.CHECKS,
       *peers.COMPILED]  # minutes of compiling: what is left of the budget
