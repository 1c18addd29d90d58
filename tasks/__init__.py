"""PET artifacts: their format and validation, training recipes, calibration, the task store."""
