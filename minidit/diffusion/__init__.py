"""Laws on arrays and time.

Read step, level, path, prediction, schedule, fresh, solver, row; then ddpm, ddim, flow, consistency; the rest in any order.
"""
