"""Tests of the engine's pass by grouped operators."""
