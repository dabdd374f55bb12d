"""Helpers for the notebooks of *NLA, reproduced*, one job a module."""
