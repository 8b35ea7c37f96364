"""What both pages say in the same words, in the little Markdown that `marked` knows."""

STARTED = (
    "Import, build and first call: the median of the processes in which they were cold, with the least and the most of them: a range, not "
    "an interval."
)
SPREAD = (
    "Spread: the standard deviation of the logarithm of seconds, of processes (their medians) and of rounds within one, in percent. "
    "Where the first is much the larger, processes of the same code differ, which more rounds do not mend; the interval has it in it."
)
PLANNED = (
    "Planned and measured hold different things. Planned: what one call of the compiled step, or loop of steps, needs while it runs, by "
    "the compiler's own account: arguments, results and temporaries. Measured: all that the process took since the import. It is larger by "
    "what building the model, compiling and the framework's own workspace take, so the difference is no error of the plan."
)
SEEDS = "the median over all seeds, of which one that has not reached it took for ever, and the range of those that have."
MEASURED = (
    "Calls into each library, not implementations of a spec: they have no certificate and rank nothing. The 95 % interval is over "
    "processes, below the value or in brackets. From these come the roofline and the share of the bound."
)
READING = (
    "A **certificate** says that an implementation passed every check for one spec, code, set of versions, device, dtype and precision. A "
    "pair without one has no speed here.",
    "**error / gate** of 1e-3 means: three more decimal digits agree than the gate asks for.",
    "An **interval** is of processes, not of rounds: rounds of one process are not independent. Two implementations are told apart by "
    "their paired ratio, not by whether their intervals overlap.",
)
