"""Laws on arrays and time. Read step, level, prediction, schedule, fresh, row; then ddpm, ddim; the rest in any order."""
