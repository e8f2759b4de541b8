"""How many replicas the load asks for.

The skeleton is that of Knative's autoscaler (a stable and a panic window, no shrinking in panic), the words are those of Kubernetes'
HorizontalPodAutoscaler (metrics, tolerance, behavior). What neither has: a replica that was asked for may wait for hours, so what is on
its way counts as if it were there, and what waits for it is no reason to ask again. What is not known is never taken for zero: whoever
does not know the load holds what there is.

`decision` asks in turn what the load says (`measured`), what is remembered (`remembered`) and what follows (`moves`); `words` tells people
about it.
"""

from llmop.planner.autoscale.decision import decide
from llmop.planner.autoscale.measured import kept_s
from llmop.planner.autoscale.moves import bounded, window_s
from llmop.planner.autoscale.remembered import remember
from llmop.planner.autoscale.values import TICK_S, Change, Decision, Fleet, Floor, Load, Memory, Reading
from llmop.planner.autoscale.words import Step, step

__all__ = [
    "TICK_S",
    "Change",
    "Decision",
    "Fleet",
    "Floor",
    "Load",
    "Memory",
    "Reading",
    "Step",
    "bounded",
    "decide",
    "kept_s",
    "remember",
    "step",
    "window_s",
]
