"""Laws on arrays and time. Read schedule, prediction, step, ddpm, ddim; the rest in any order."""
