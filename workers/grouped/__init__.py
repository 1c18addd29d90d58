"""The engine's pass by grouped operators, for devices: each operator takes all tasks at once."""
